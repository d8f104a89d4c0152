"""The shapes of RabbitMQ that tests can ask for."""

from __future__ import annotations

from pathlib import Path

from . import compose, rabbitmq, rabbitmq_node
from .launcher import Technology
from .rabbitmq import RabbitBackend, RabbitServer
from .rabbitmq_node import RabbitOptions


def _in_compose() -> RabbitBackend | None:
    port = compose.published("rabbitmq", 5672)
    return None if port is None else rabbitmq.attach(f"amqp://127.0.0.1:{port}", origin="docker compose")


def _install() -> None:
    rabbitmq_node.install()


def _secure(folder: Path) -> RabbitServer:
    return RabbitServer(folder, RabbitOptions(tls=True))


TECHNOLOGIES = (
    Technology(
        name="rabbitmq",
        nature="real",
        install=_install,
        version=rabbitmq_node.version,
        make=RabbitServer,
        attach=rabbitmq.attach,
        in_compose=_in_compose,
    ),
    Technology(
        name="rabbitmq-tls",
        nature="real",
        install=_install,
        version=rabbitmq_node.version,
        make=_secure,
        attach=rabbitmq.attach,
    ),
)
