"""One broker of Kafka that is its own controller too: settings file, storage, and whether it serves."""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from . import provision
from .certificates import Certificates
from .ports import free_port
from .process import NotReady, Process
from .provision import Unavailable

LOOPBACK = "127.0.0.1"
POM = Path(__file__).with_name("kafka-pom.xml")
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_JAVA = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_METADATA_REQUEST = 3
_PATIENCE = 120.0
"""Seconds; a Java that shares its processors with many others starts slowly."""
_LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""

Listener = Literal["PLAINTEXT", "DIRECT", "SASL", "SASLTLS", "TLS", "MTLS", "OAUTH"]
PROTOCOLS: Mapping[Listener, str] = {
    "PLAINTEXT": "PLAINTEXT",
    "DIRECT": "PLAINTEXT",
    "SASL": "SASL_PLAINTEXT",
    "SASLTLS": "SASL_SSL",
    "TLS": "SSL",
    "MTLS": "SSL",
    "OAUTH": "SASL_SSL",
}
SECURE: tuple[Listener, ...] = ("PLAINTEXT", "SASL", "SASLTLS", "TLS", "MTLS", "OAUTH")
OPEN: tuple[Listener, ...] = ("PLAINTEXT", "DIRECT")
"""Two listeners without a login: with `advertised`, the second one leads past the proxy."""


@dataclass(frozen=True, kw_only=True)
class KafkaOptions:
    """How a Kafka of one's own is to be; the defaults make one broker without a login that keeps its data."""

    brokers: int = 1
    listeners: tuple[Listener, ...] = ("PLAINTEXT",)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further lines of server.properties, by name."""
    port: int | None = None
    """The port of the only broker; None for any."""
    advertised: int | None = None
    """The port at which the only broker says it is, that of a proxy before it; None for its own."""


@dataclass(frozen=True)
class Login:
    """The one user that may log in, with every mechanism, and the certificates of encrypted listeners."""

    username: str
    password: str
    certificates: Certificates


class KafkaNode(Process):
    """A broker on ports of its own, which it keeps over restarts, as it keeps its data."""

    def __init__(self, number: int, folder: Path, options: KafkaOptions, login: Login | None) -> None:
        self.number = number
        self.ports = {name: free_port() for name in options.listeners}
        if options.port is not None:
            self.ports["PLAINTEXT"] = options.port
        self.controller = free_port()
        self._options = options
        self._login = login
        home = folder / f"kafka-{number}"
        shutil.rmtree(home, ignore_errors=True)
        (home / "data").mkdir(parents=True)
        self.settings = home / "server.properties"
        self._log4j = home / "log4j2.properties"
        super().__init__(
            f"kafka-{number}",
            java("kafka.Kafka", self._log4j, self.settings),
            folder=home,
            check=self._serves,
            patience=_PATIENCE,
        )

    @property
    def advertised(self) -> dict[Listener, int]:
        """The ports at which clients are told to find it."""
        behind = self._options.advertised
        return self.ports if behind is None else {**self.ports, "PLAINTEXT": behind}

    def configure(self, cluster: str, nodes: Sequence[KafkaNode]) -> None:
        """Write the settings and format the storage."""
        self._log4j.write_text(_LOG4J)
        lines = {
            **self._common(nodes),
            **({} if self._login is None else self._security(self._login)),
            **self._options.settings,
        }
        self.settings.touch(mode=0o600)
        self.settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        if self._login is None:
            # What the storage tool writes, without the second that a further Java takes.
            (self.folder / "data" / "meta.properties").write_text(
                f"version=1\ncluster.id={cluster}\nnode.id={self.number}\n"
            )
        else:
            users = [
                f"{mechanism}=[name={self._login.username},password={self._login.password}]"
                for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            ]
            arguments = ["format", "-t", cluster, "-c", str(self.settings)]
            for user in users:
                arguments += ["--add-scram", user]
            provision.run(*java("kafka.tools.StorageTool", self._log4j, *arguments), what="format Kafka's storage")

    def _common(self, nodes: Sequence[KafkaNode]) -> dict[str, str]:
        copies = str(min(3, len(nodes)))
        listeners = [f"{name}://{LOOPBACK}:{port}" for name, port in self.ports.items()]
        protocols = [f"{name}:{PROTOCOLS[name]}" for name in self.ports]
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.number),
            "controller.quorum.voters": ",".join(f"{node.number}@{LOOPBACK}:{node.controller}" for node in nodes),
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*listeners, f"CONTROLLER://{LOOPBACK}:{self.controller}"]),
            "advertised.listeners": ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in self.advertised.items()),
            "listener.security.protocol.map": ",".join([*protocols, "CONTROLLER:PLAINTEXT"]),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "num.partitions": "1",
            "default.replication.factor": copies,
            "min.insync.replicas": str(max(1, len(nodes) - 1)),
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "500",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "controller.quorum.election.timeout.ms": "500",
            "controller.quorum.fetch.timeout.ms": "1500",
            "replica.lag.time.max.ms": "3000",
            "log.cleaner.enable": "false",
            "log.segment.delete.delay.ms": "1000",
            "num.network.threads": "2",
            "num.io.threads": "2",
            "num.recovery.threads.per.data.dir": "1",
            "background.threads": "2",
            "controlled.shutdown.enable": "true",
        }

    def _security(self, login: Login) -> dict[str, str]:
        certificates = login.certificates
        keystore = self.folder / "keystore.pem"
        keystore.touch(mode=0o600)
        keystore.write_bytes(certificates.server_key.read_bytes() + certificates.server_cert.read_bytes())
        modules = "org.apache.kafka.common.security"
        user = f'username="{login.username}" password="{login.password}" user_{login.username}="{login.password}";'
        lines = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.client.ca),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.oauth.oauthbearer.sasl.jaas.config": (
                f'{modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            ),
        }
        for listener in ("sasl", "sasltls"):
            lines[f"listener.name.{listener}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
            lines[f"listener.name.{listener}.plain.sasl.jaas.config"] = (
                f"{modules}.plain.PlainLoginModule required {user}"
            )
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                lines[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = (
                    f"{modules}.scram.ScramLoginModule required;"
                )
        return lines

    def _serves(self, pid: int) -> None:
        brokers = known_brokers(self.ports["PLAINTEXT"])
        if self.advertised["PLAINTEXT"] not in brokers:
            raise NotReady(f"{self.name} does not know itself yet")


def known_brokers(port: int, *, timeout: float = 5.0) -> set[int]:
    """Ask the broker on this port for the ports of all that it knows; `NotReady` if the answer is none."""
    # Metadata, version 1, of no topic.
    body = struct.pack(">hhih5si", _METADATA_REQUEST, 1, 1, 5, b"lapel", 0)
    with socket.create_connection((LOOPBACK, port), timeout=timeout) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        stream = connection.makefile("rb")
        size = stream.read(4)
        answer = stream.read(int.from_bytes(size)) if len(size) == 4 else b""
    if len(answer) < 8:
        raise NotReady("the broker closed the connection")
    (count,) = struct.unpack_from(">i", answer, 4)
    place, found = 8, set()
    for _ in range(count):
        (length,) = struct.unpack_from(">h", answer, place + 4)
        place += 6 + length
        (found_port, rack) = struct.unpack_from(">ih", answer, place)
        found.add(found_port)
        place += 6 + max(0, rack)
    return found


def java(main: str, log4j: Path, *arguments: str | Path) -> list[str | Path]:
    """Return the command that runs a main class of Kafka; `Unavailable` if there is no Java or no jar."""
    program = provision.need_program("java", "default-jre-headless")
    if not jars().exists():
        raise Unavailable("the jars of Kafka are not in the cache; `make backends` gets them")
    return [program, *_JAVA, f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{jars()}/*", main, *arguments]


def jars() -> Path:
    """Return where the jars are kept."""
    return provision.stamped("kafka", POM.read_text(encoding="utf-8"))


def version() -> str:
    """Return the version that would be started; `Unavailable` if it cannot be."""
    java("kafka.Kafka", Path("/dev/null"))
    found = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)<", POM.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def install() -> None:
    """Get Java, Maven, and through it the jars."""
    provision.install_packages({"java": "default-jre-headless"})
    provision.need_program("java", "default-jre-headless")

    def make(made: Path) -> None:
        provision.install_packages({"mvn": "maven"})
        provision.need_program("mvn", "maven")
        command = ("mvn", "-B", "-q", "-f", POM, f"{_PLUGIN}:copy-dependencies")
        provision.run(*command, f"-DoutputDirectory={made}", what="mvn copy-dependencies")

    provision.make_once(jars(), make)


def new_cluster_id() -> str:
    """Return an id as Kafka makes them: 22 characters that do not begin with a dash."""
    return f"L{secrets.token_urlsafe(16)[1:22]}"
