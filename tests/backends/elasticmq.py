"""ElasticMQ: SQS with a real queue behind it, from Maven Central."""

from __future__ import annotations

from pathlib import Path

from . import provision
from .aws import REGION, AwsBackend, ask, attached
from .backend import Facts
from .ports import free_port
from .process import Process

VERSION = "1.6.12"
PACKAGES = {"java": "openjdk-17-jre-headless", "mvn": "maven"}
_READY = (400,)
"""What it answers to a GET without an action, once it serves."""
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>lapel</groupId>
  <artifactId>elasticmq</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.elasticmq</groupId>
      <artifactId>elasticmq-server_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class ElasticMq(AwsBackend):
    """ElasticMQ in a process of this run's own. It keeps everything in memory and refuses what SQS refuses."""

    def __init__(self, folder: Path) -> None:
        self._jars = _jars()
        self._java = provision.need_program("java", PACKAGES["java"])
        super().__init__(Facts("emulator", version(), "own process"))
        self._folder = folder

    def configure(self) -> None:
        port = free_port()
        url = self._url = f"http://127.0.0.1:{port}"
        settings = self._folder / "elasticmq.conf"
        settings.write_text(
            'include classpath("application.conf")\n'
            f'node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}\n'
            f'rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "127.0.0.1", sqs-limits = strict }}\n'
            "rest-stats { enabled = false }\n"
            f"aws {{ region = {REGION}, accountId = 000000000000 }}\n"
        )
        # Half of the memory of a machine is more than a test may take.
        options = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dconfig.file={settings}")
        command = (self._java, *options, "-cp", f"{self._jars}/*", "org.elasticmq.server.Main")
        check = lambda _: ask(url, accepted=_READY)  # noqa: E731
        self.processes = (Process("elasticmq", command, folder=self._folder, check=check, patience=60.0),)


def attach(url: str, *, origin: str) -> AwsBackend:
    """Return an ElasticMQ that somebody else runs; `Unavailable` if it does not answer."""
    return attached(url, "", _READY, origin)


def install() -> None:
    """Get Java, Maven where the jars are missing, and the jars."""
    place = _place()
    provision.install_packages(PACKAGES if not place.exists() else {"java": PACKAGES["java"]})

    def make(made: Path) -> None:
        (made / "pom.xml").write_text(_POM)
        arguments = ("-q", "-B", "-f", made / "pom.xml", _COPY, f"-DoutputDirectory={made}")
        provision.run("mvn", *arguments, what="mvn copy-dependencies")

    provision.make_once(place, make)


def version() -> str:
    """Return what would be started; `Unavailable` if it cannot be."""
    _jars()
    provision.need_program("java", PACKAGES["java"])
    return f"ElasticMQ {VERSION}"


def _place() -> Path:
    return provision.stamped("elasticmq", _POM)


def _jars() -> Path:
    place = _place()
    if not place.exists():
        raise provision.Unavailable("ElasticMQ is not in the cache; `make backends` gets it")
    return place
