"""The shapes of Kafka that tests can ask for."""

from __future__ import annotations

from . import compose, kafka, kafka_node
from .backend import Backend
from .kafka import KafkaBackend, KafkaCluster
from .launcher import Technology
from .provision import Unavailable


def _in_compose() -> KafkaBackend | None:
    port = compose.published("kafka", 9092)
    return None if port is None else kafka.attach(f"kafka://127.0.0.1:{port}", origin="docker compose")


def _attach_secure(url: str, *, origin: str) -> Backend:
    raise Unavailable(f"{origin}: listeners for every login are made by the run itself; unset it")


TECHNOLOGIES = (
    Technology(
        name="kafka",
        nature="real",
        install=kafka_node.install,
        version=kafka_node.version,
        make=KafkaCluster,
        attach=kafka.attach,
        in_compose=_in_compose,
    ),
    Technology(
        name="kafka-secure",
        nature="real",
        install=kafka_node.install,
        version=kafka_node.version,
        make=kafka.secure,
        attach=_attach_secure,
    ),
)
