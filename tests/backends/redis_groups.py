"""Redis as a cluster of three primaries with a replica each, and as a primary and a replica under three sentinels."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .backend import Facts
from .process import POLL, Died, NotReady
from .redis import RedisBackend, server_command
from .redis_node import BUS, LOOPBACK, Access, RedisNode, RedisOptions, settings_of

SLOTS = 16_384
_PATIENCE = 30.0


class RedisGroup(RedisBackend):
    """Several servers; ready when the group says so, not when each of them is up."""

    def __init__(self, folder: Path, options: RedisOptions | None = None) -> None:
        self.options = options or RedisOptions()
        self._folder = folder
        self._command, version = server_command()
        self._access = Access.make(self.options, folder)
        super().__init__(Facts("real", version, "own process"))

    def wait_ready(self) -> None:
        super().wait_ready()
        self._until(self.check)

    def check(self) -> None:
        """Return if all servers agree that the group is complete; raise `NotReady` if not."""
        raise NotImplementedError

    @staticmethod
    def _until(check: Callable[[], None]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return check()
            except (NotReady, OSError) as error:
                if time.monotonic() > deadline:
                    raise Died(f"the group was not ready after {_PATIENCE:g} s: {error}") from error
            time.sleep(4 * POLL)


class RedisCluster(RedisGroup):
    """A cluster of six: `nodes[:3]` begin as primaries, `nodes[3:]` as their replicas in the same order."""

    nodes: Sequence[RedisNode] = ()

    def configure(self) -> None:
        self.nodes = [
            RedisNode(f"node-{number}", self._folder, self._command, self._access, bus=True) for number in range(6)
        ]
        lines = [
            *settings_of(self.options),
            *self._access.of_replica(),
            *(["tls-cluster yes"] if self.options.tls else []),
            "cluster-enabled yes",
            "cluster-config-file nodes.conf",
            "cluster-node-timeout 2000",
        ]
        names = [secrets.token_hex(20) for _ in self.nodes]
        for me, node in enumerate(self.nodes):
            node.configure(lines)
            (node.folder / "nodes.conf").write_text(self._knowledge(names, me))
        self.processes = self.nodes
        self._address = self._access.address(self.nodes, mode="cluster")

    def check(self) -> None:
        for node in self.nodes:
            state = node.info("CLUSTER", "INFO")
            if (state["cluster_state"], state["cluster_known_nodes"]) != ("ok", "6"):
                raise NotReady(f"{node.name}: {state}")
            link = node.info("INFO", "replication")
            if link.get("master_link_status", "up") != "up" or (link["role"], link["connected_slaves"]) == (
                "master",
                "0",
            ):
                raise NotReady(f"{node.name}: {link}")
            # Each node hears of the others' replicas by gossip, and names them to clients only then.
            if [len(shard) for shard in node.call("CLUSTER", "SLOTS")] != [4, 4, 4]:
                raise NotReady(f"{node.name} does not know all replicas yet")

    def primary_of(self, key: str | bytes) -> RedisNode:
        """Return the node that serves writes to this key now."""
        slot = self.nodes[0].call("CLUSTER", "KEYSLOT", key) if self.nodes[0].pid else None
        for node in self.nodes:
            if node.pid is None:
                continue
            slot = node.call("CLUSTER", "KEYSLOT", key) if slot is None else slot
            for first, last, primary, *_ in node.call("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(found for found in self.nodes if found.port == primary[1])
        raise NotReady(f"no node serves slot {slot}")

    def _knowledge(self, names: Sequence[str], me: int) -> str:
        """What a node would have learnt by gossip: who there is, and which slots are whose."""
        lines = []
        for number, (name, node) in enumerate(zip(names, self.nodes, strict=True)):
            myself = "myself," if number == me else ""
            place = f"{name} {LOOPBACK}:{node.port}@{node.port + BUS}"
            if number < 3:
                first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
                lines.append(f"{place} {myself}master - 0 0 {number + 1} connected {first}-{last}")
            else:
                lines.append(f"{place} {myself}slave {names[number - 3]} 0 0 {number - 2} connected")
        return "\n".join([*lines, "vars currentEpoch 3 lastVoteEpoch 0", ""])


class RedisSentinel(RedisGroup):
    """Two servers, `nodes`, the first of which begins as primary, and three `sentinels` that fail over in about 2 s."""

    master = "lapel"
    nodes: Sequence[RedisNode] = ()
    sentinels: Sequence[RedisNode] = ()

    def configure(self) -> None:
        access = self._access
        self.nodes = [RedisNode(f"node-{number}", self._folder, self._command, access) for number in range(2)]
        sentinel_access = Access(
            None if access.username is None else f"sentinel-{secrets.token_hex(4)}",
            None if access.password is None else secrets.token_urlsafe(18),
            access.certificates,
        )
        self.sentinels = [
            RedisNode(f"sentinel-{number}", self._folder, self._command, sentinel_access, sentinel=True)
            for number in range(3)
        ]
        primary, replica = self.nodes
        common = [*settings_of(self.options), *access.of_replica()]
        primary.configure(common)
        replica.configure([*common, f"replicaof {LOOPBACK} {primary.port}"])
        for sentinel in self.sentinels:
            sentinel.configure(self._watching(primary, access, sentinel_access))
        self.processes = (*self.nodes, *self.sentinels)
        self._address = access.address(
            self.sentinels,
            mode="sentinel",
            master=self.master,
            sentinel_username=sentinel_access.username,
            sentinel_password=sentinel_access.password,
        )

    def start(self) -> None:
        # A sentinel looks for replicas at once and then every 10 s: it must not come before the replica is there.
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.wait_ready()
        self._until(self._check_replica)
        super().start()

    def check(self) -> None:
        for sentinel in self.sentinels:
            reply = sentinel.call("SENTINEL", "MASTER", self.master)
            found = dict(zip(reply[::2], reply[1::2], strict=True))
            counts = (found[b"flags"], found[b"num-other-sentinels"], found[b"num-slaves"])
            if counts != (b"master", b"2", b"1"):
                raise NotReady(f"{sentinel.name}: {counts}")
        self._check_replica()

    def _check_replica(self) -> None:
        if self.nodes_by_role()["slave"].info("INFO", "replication").get("master_link_status") != "up":
            raise NotReady("the replica is not connected")

    def nodes_by_role(self) -> dict[str, RedisNode]:
        """Return the running nodes by the role that they have now, `master` or `slave`."""
        roles = {node.info("INFO", "replication")["role"]: node for node in self.nodes if node.pid is not None}
        if len(roles) != len([node for node in self.nodes if node.pid is not None]):
            raise NotReady("both nodes have the same role")
        return roles

    def primary(self) -> RedisNode:
        """Return the node that the sentinels name as primary now."""
        asked: Any = next(one for one in self.sentinels if one.pid is not None)
        _, port = asked.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)
        return next(node for node in self.nodes if node.port == int(port))

    def _watching(self, primary: RedisNode, access: Access, own: Access) -> list[str]:
        lines = [
            f"sentinel monitor {self.master} {LOOPBACK} {primary.port} 2",
            f"sentinel down-after-milliseconds {self.master} 500",
            f"sentinel failover-timeout {self.master} 3000",
        ]
        if access.username is not None:
            lines.append(f"sentinel auth-user {self.master} {access.username}")
        if access.password is not None:
            lines.append(f"sentinel auth-pass {self.master} {access.password}")
        if own.username is not None:
            lines.append(f"sentinel sentinel-user {own.username}")
        if own.password is not None:
            lines.append(f"sentinel sentinel-pass {own.password}")
        return lines
