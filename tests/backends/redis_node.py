"""One redis-server process: its settings file, its login, and the question whether it serves."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .certificates import Certificates, make_certificates
from .ports import free_port
from .process import NotReady, Process
from .redis_address import RedisAddress
from .resp import Connection, ReplyError

LOOPBACK = "127.0.0.1"
BUS = 10_000
"""How far above its port a node of a cluster listens for the others."""
Module = Literal["json", "search"]


@dataclass(frozen=True, kw_only=True)
class RedisOptions:
    """How a Redis of one's own is to be; the defaults need a random ACL user and keep nothing over a restart."""

    tls: bool = False
    """Encrypted connections only, and only from clients that show a certificate."""
    auth: Literal["acl", "password", "none"] = "acl"
    """A user of its own with the default user off, the default user with a password, or neither."""
    modules: tuple[Module, ...] = ()
    persistent: bool = False
    """Keep data over restart and kill, in an append-only file."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further lines of redis.conf, by name."""


@dataclass(frozen=True)
class Access:
    """How the servers of one backend let clients and each other in."""

    username: str | None
    password: str | None
    certificates: Certificates | None

    @classmethod
    def make(cls, options: RedisOptions, folder: Path) -> Access:
        """Choose a login, and make certificates if TLS is asked for."""
        return cls(
            f"user-{secrets.token_hex(4)}" if options.auth == "acl" else None,
            None if options.auth == "none" else secrets.token_urlsafe(18),
            make_certificates(folder / "tls") if options.tls else None,
        )

    def address(self, nodes: Sequence[RedisNode], **rest: Any) -> RedisAddress:
        """Return what a client needs to reach these servers."""
        return RedisAddress(
            hosts=tuple((LOOPBACK, node.port) for node in nodes),
            username=self.username,
            password=self.password,
            tls=None if self.certificates is None else self.certificates.client,
            **rest,
        )

    def of_server(self) -> list[str]:
        """Lines of redis.conf: who may log in."""
        if self.password is None:
            return []
        if self.username is None:
            return [f"requirepass {self.password}"]
        digest = hashlib.sha256(self.password.encode()).hexdigest()
        return ["user default off", f"user {self.username} on #{digest} ~* &* +@all"]

    def of_replica(self) -> list[str]:
        """Lines of redis.conf: how it logs in at its primary."""
        lines = [] if self.username is None else [f"masteruser {self.username}"]
        return lines if self.password is None else [*lines, f"masterauth {self.password}"]

    def of_port(self, port: int) -> list[str]:
        """Lines of redis.conf: where it listens, and how it encrypts."""
        if self.certificates is None:
            return [f"port {port}"]
        return [
            "port 0",
            f"tls-port {port}",
            f'tls-cert-file "{self.certificates.server_cert}"',
            f'tls-key-file "{self.certificates.server_key}"',
            f'tls-ca-cert-file "{self.certificates.client.ca}"',
            "tls-auth-clients yes",
            "tls-replication yes",
        ]


class RedisNode(Process):
    """A redis-server, or a sentinel, on a port of its own, which it keeps over restarts."""

    def __init__(
        self,
        name: str,
        folder: Path,
        command: Sequence[str],
        access: Access,
        *,
        bus: bool = False,
        sentinel: bool = False,
    ) -> None:
        self.port = free_port(offsets=(0, BUS) if bus else (0,))
        self.host = LOOPBACK
        self._access = access
        self._sentinel = sentinel
        home = folder / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self.settings = home / "redis.conf"
        mode = ["--sentinel"] if sentinel else []
        super().__init__(name, [*command, self.settings, *mode], folder=home, check=self._serves)

    def configure(self, lines: Sequence[str]) -> None:
        """Write the settings: the common ones, and these."""
        common = [f"bind {LOOPBACK}", "protected-mode yes", "daemonize no", 'logfile ""', f'dir "{self.folder}"']
        text = [*common, *self._access.of_port(self.port), *self._access.of_server(), *lines]
        self.settings.write_text("\n".join([*text, ""]))

    def connect(self, *, timeout: float = 5.0) -> Connection:
        """Open a connection to this server, logged in."""
        return self._access.address([self]).connect(self.host, self.port, timeout=timeout)

    def call(self, *command: str | bytes | int, timeout: float = 5.0) -> Any:
        """Send one command on a connection of its own, and return the reply."""
        with self.connect(timeout=timeout) as connection:
            return connection.call(*command)

    def info(self, command: str, *arguments: str) -> dict[str, str]:
        """Return what `INFO` or `CLUSTER INFO` says."""
        with self.connect() as connection:
            return connection.info(command, *arguments)

    def _serves(self, pid: int) -> None:
        """Be sure that it is this process that answers, not another run's on the same port."""
        try:
            with self.connect() as connection:
                if connection.call("PING") != b"PONG":
                    raise NotReady(f"{self.name} does not answer PING")
                found = connection.info("INFO", "server")["process_id"]
        except ReplyError as error:
            raise NotReady(str(error)) from error
        if found != str(pid):
            raise NotReady(f"process {found} answers in the place of {pid}")


def settings_of(options: RedisOptions) -> list[str]:
    """Lines of redis.conf for what a data-bearing server is asked to be."""
    fixed = {
        "save": '""',
        "appendonly": "yes" if options.persistent else "no",
        "enable-debug-command": "yes",
        # A fresh replica counts as available, and is named to clients, from the first byte that its primary streams.
        "repl-ping-replica-period": "1",
        "repl-diskless-sync-delay": "0",
    }
    return [f"{name} {value}" for name, value in {**fixed, **options.settings}.items()]
