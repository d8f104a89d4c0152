"""Google's Secret Manager: a stub of this repository's own, as a process or wherever an endpoint is named."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path

import requests
from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import secretmanager_v1 as service
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceRestTransport,
)

from .backend import Backend, Facts
from .launcher import Technology
from .ports import free_port
from .process import NotReady, Process
from .provision import Unavailable

PROJECT = "lapel-test"


class SecretManagerBackend(Backend):
    """A server that speaks the API of Secret Manager over plain HTTP and asks for no credentials."""

    def __init__(self, facts: Facts, endpoint: str = "") -> None:
        super().__init__(facts)
        self.endpoint = endpoint

    @classmethod
    def at(cls, endpoint: str) -> SecretManagerBackend:
        """Return the one at this address, whoever runs it."""
        return SecretManagerBackend(Facts("stub", "unknown version", "a test"), endpoint)

    @property
    def properties(self) -> dict[str, str]:
        return {"endpoint": self.endpoint, "projectID": PROJECT}

    @property
    def url(self) -> str:
        return self.endpoint

    def client(self) -> service.SecretManagerServiceClient:
        """Return a client for looking behind the driver's back; to be closed with `transport.close()`."""
        transport = SecretManagerServiceRestTransport(host=self.endpoint, credentials=AnonymousCredentials())
        return service.SecretManagerServiceClient(transport=transport)

    def put(self, name: str, value: bytes, labels: Mapping[str, str] | None = None) -> str:
        """Add a version to a secret, which is made if it is not there; return the id of the version."""
        return write(self.endpoint, name, value, labels)


class SecretManagerServer(SecretManagerBackend):
    """A process of this run's own, with its secrets in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(Facts("stub", version(), "own process"))

    def configure(self) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [sys.executable, Path(__file__).with_name("secret_manager_stub.py"), str(port)]
        self.processes = (Process("secret-manager", command, folder=self._folder, check=lambda _: ask(self.endpoint)),)


def ask(endpoint: str) -> None:
    """Return if somebody answers there; `NotReady` otherwise."""
    client = SecretManagerBackend.at(endpoint).client()
    try:
        client.list_secrets(parent=f"projects/{PROJECT}", retry=None, timeout=2)
    except (GoogleAPICallError, requests.RequestException) as error:
        raise NotReady(str(error)) from error
    finally:
        client.transport.close()


def write(endpoint: str, name: str, value: bytes, labels: Mapping[str, str] | None = None) -> str:
    """Add a version to a secret, which is made if it is not there; return the id of the version."""
    client = SecretManagerBackend.at(endpoint).client()
    parent = f"projects/{PROJECT}"
    try:
        with contextlib.suppress(Conflict):
            client.create_secret(parent=parent, secret_id=name, secret=service.Secret(labels=dict(labels or {})))
        payload = service.SecretPayload(data=value)
        made = client.add_secret_version(parent=f"{parent}/secrets/{name}", payload=payload)
        return str(made.name.rpartition("/")[2])
    finally:
        client.transport.close()


def attach(url: str, *, origin: str) -> SecretManagerBackend:
    """Return a server that somebody else runs; `Unavailable` if it does not answer."""
    try:
        ask(url)
    except NotReady as error:
        raise Unavailable(f"{origin} names a Secret Manager that does not serve: {error}") from error
    return SecretManagerBackend(Facts("stub", "unknown version", origin), url)


def version() -> str:
    """Return what would be started."""
    return f"messages of {importlib.metadata.version('google-cloud-secret-manager')}"


def _nothing() -> None:
    """Install nothing: the libraries are those of the driver."""


TECHNOLOGIES = (
    Technology(
        name="gcp-secrets", nature="stub", install=_nothing, version=version, make=SecretManagerServer, attach=attach
    ),
)
