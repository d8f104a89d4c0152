"""AWS: what tests and drivers need to reach an emulator of it, and moto, which emulates all services.

Two emulators, each where it is more faithful. moto has SQS, SNS, S3, Secrets Manager, Systems Manager and STS, and the
delivery of SNS to SQS, with queues made faster by `moto_speed.py`; it still answers one request after another, so it is
for behaviour and never for speed. ElasticMQ (`elasticmq.py`) has nothing but SQS, with a real queue behind it: for soak
tests, speed, and the order of message groups.
"""

from __future__ import annotations

import importlib.metadata
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from .backend import Backend, Facts
from .ports import free_port
from .process import NotReady, Process
from .provision import Unavailable

REGION = "us-east-1"
ACCESS_KEY = f"AKIA{secrets.token_hex(8).upper()}"
SECRET_KEY = secrets.token_urlsafe(30)
"""Emulators take any, so each process makes its own."""
_PROBE = "/moto-api/data.json"


class AwsBackend(Backend):
    """An endpoint that speaks the protocols of AWS."""

    def __init__(self, facts: Facts, url: str | None = None) -> None:
        super().__init__(facts)
        self._url = url

    @property
    def url(self) -> str:
        assert self._url is not None, "not started"
        return self._url

    @property
    def properties(self) -> dict[str, str]:
        return {"endpoint": self.url, "region": REGION, "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}


class MotoServer(AwsBackend):
    """moto in a process of this run's own. It keeps everything in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Facts("emulator", version_of_moto(), "own process"))
        self._folder = folder

    def configure(self) -> None:
        port = free_port()
        url = self._url = f"http://127.0.0.1:{port}"
        command = (sys.executable, "-m", "tests.backends.moto_server", "--port", str(port))
        self.processes = (
            Process(
                "moto",
                command,
                folder=self._folder,
                check=lambda _: ask(url + _PROBE),
                environment={"PYTHONPATH": str(Path(__file__).parents[2])},
            ),
        )


def ask(url: str, *, accepted: tuple[int, ...] = (200,)) -> None:
    """Raise `NotReady` unless a GET is answered as it should be."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    if status not in accepted:
        raise NotReady(f"{url} answered {status}")


def attach_moto(url: str, *, origin: str) -> AwsBackend:
    """Return a moto that somebody else runs; `Unavailable` if it does not answer."""
    return attached(url, _PROBE, (200,), origin)


def attached(url: str, probe: str, accepted: tuple[int, ...], origin: str) -> AwsBackend:
    """Return an endpoint that somebody else runs; `Unavailable` if it does not answer."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise Unavailable(f"{origin} names no endpoint: expected http://HOST:PORT")
    base = url.rstrip("/")
    try:
        ask(base + probe, accepted=accepted)
    except (OSError, NotReady) as error:
        raise Unavailable(f"{origin} names an endpoint that does not serve: {error}") from error
    return AwsBackend(Facts("emulator", "unknown", origin), base)


def version_of_moto() -> str:
    """Return moto's version; `Unavailable` if it is not installed."""
    try:
        return f"moto {importlib.metadata.version('moto')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise Unavailable("moto is not installed; `make venv` gets it") from error


def install_moto() -> None:
    """Get moto: it is one of the tools of a developer."""
    version_of_moto()
