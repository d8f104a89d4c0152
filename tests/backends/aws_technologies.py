"""The emulators of AWS that tests can ask for: `aws` has all services, `sqs` has SQS alone and is fast."""

from __future__ import annotations

from . import aws, compose, elasticmq
from .aws import AwsBackend, MotoServer
from .elasticmq import ElasticMq
from .launcher import Technology


def _in_compose(service: str, port: int) -> AwsBackend | None:
    found = compose.published(service, port)
    if found is None:
        return None
    attach = aws.attach_moto if service == "aws" else elasticmq.attach
    return attach(f"http://127.0.0.1:{found}", origin="docker compose")


TECHNOLOGIES = (
    Technology(
        name="aws",
        nature="emulator",
        install=aws.install_moto,
        version=aws.version_of_moto,
        make=MotoServer,
        attach=aws.attach_moto,
        in_compose=lambda: _in_compose("aws", 5000),
    ),
    Technology(
        name="sqs",
        nature="emulator",
        install=elasticmq.install,
        version=elasticmq.version,
        make=ElasticMq,
        attach=elasticmq.attach,
        in_compose=lambda: _in_compose("sqs", 9324),
    ),
)
