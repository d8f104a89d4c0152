"""Kafka: one broker, one with every kind of login, or a cluster; as processes or wherever an endpoint is named."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from . import kafka_node
from .backend import Backend, Facts
from .certificates import TlsFiles, make_certificates
from .kafka_node import LOOPBACK, OPEN, SECURE, KafkaNode, KafkaOptions, Listener, Login
from .process import POLL, Died, NotReady
from .provision import Unavailable

_JOINING = 30.0


class KafkaBackend(Backend):
    """Connection details of a Kafka in any shape."""

    def __init__(self, facts: Facts, addresses: tuple[str, ...] = ()) -> None:
        super().__init__(facts)
        self._addresses = addresses

    @property
    def addresses(self) -> tuple[str, ...]:
        """`host:port` of each broker, without encryption or login."""
        return self._addresses

    @property
    def properties(self) -> dict[str, str]:
        return {"brokers": ",".join(self.addresses), "authType": "none"}

    @property
    def url(self) -> str:
        return f"kafka://{','.join(self.addresses)}"


class KafkaCluster(KafkaBackend):
    """Brokers of this run's own, each a controller as well."""

    def __init__(self, folder: Path, options: KafkaOptions | None = None) -> None:
        self.options = options or KafkaOptions()
        self._folder = folder
        self._login: Login | None = None
        self.nodes: list[KafkaNode] = []
        super().__init__(Facts("real", kafka_node.version(), "own process"))

    def configure(self) -> None:
        if not set(self.options.listeners) <= set(OPEN):
            certificates = make_certificates(self._folder / "tls")
            self._login = Login(f"user{secrets.token_hex(4)}", secrets.token_hex(18), certificates)
        self.nodes = [
            KafkaNode(number, self._folder, self.options, self._login) for number in range(1, self.options.brokers + 1)
        ]
        cluster = kafka_node.new_cluster_id()
        for node in self.nodes:
            node.configure(cluster, self.nodes)
        self.processes = tuple(self.nodes)

    def wait_ready(self) -> None:
        super().wait_ready()
        everyone = {node.advertised["PLAINTEXT"] for node in self.nodes}
        for node in self.nodes:
            _wait(node, everyone)

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.at("PLAINTEXT")

    def at(self, listener: Listener) -> tuple[str, ...]:
        """Return `host:port` of each broker's listener of that kind."""
        return tuple(f"{LOOPBACK}:{node.advertised[listener]}" for node in self.nodes)

    @property
    def login(self) -> Login:
        """The user that may log in."""
        assert self._login is not None, "it needs no login"
        return self._login

    @property
    def tls(self) -> TlsFiles:
        """The files to connect with."""
        return self.login.certificates.client


def _wait(node: KafkaNode, everyone: set[int]) -> None:
    """Return when this broker knows all others."""
    deadline = time.monotonic() + _JOINING
    while not everyone <= kafka_node.known_brokers(node.ports["PLAINTEXT"]):
        if time.monotonic() > deadline:
            raise Died(f"{node.name} does not know all brokers after {_JOINING:g} s\n{node.tail()}")
        time.sleep(POLL)


def attach(url: str, *, origin: str) -> KafkaBackend:
    """Return a Kafka that somebody else runs; `Unavailable` if it does not answer. `url` is kafka://host:port,..."""
    addresses = tuple(part for part in url.partition("://")[2].rstrip("/").split(",") if part)
    try:
        for address in addresses:
            kafka_node.known_brokers(int(address.rpartition(":")[2]))
    except (OSError, ValueError, NotReady) as error:
        raise Unavailable(f"{origin} names a Kafka that does not serve: {error}") from error
    if not addresses:
        raise Unavailable(f"{origin} names no broker; expected kafka://host:port")
    return KafkaBackend(Facts("real", "unknown", origin), addresses)


def secure(folder: Path) -> KafkaCluster:
    """Describe one broker with a listener for each kind of login."""
    return KafkaCluster(folder, KafkaOptions(listeners=SECURE))
