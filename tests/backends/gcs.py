"""Google Cloud Storage: an emulator, as a process or wherever an endpoint is named."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from . import compose, golang
from .backend import Backend, Facts
from .launcher import Technology
from .ports import free_port
from .process import Process
from .provision import Unavailable

PROJECT = "lapel-test"
_MODULE = "github.com/fsouza/fake-gcs-server"
_VERSION = "v1.56.1"
_GO = (1, 26)


class GcsBackend(Backend):
    """A server that speaks the JSON API of Google Cloud Storage and asks for no credentials."""

    def __init__(self, facts: Facts, endpoint: str = "") -> None:
        super().__init__(facts)
        self.endpoint = endpoint

    @property
    def properties(self) -> dict[str, str]:
        return {"endpoint": self.endpoint, "projectID": PROJECT}

    @property
    def url(self) -> str:
        return self.endpoint

    def make_bucket(self, name: str) -> str:
        """Make the bucket unless it is there, and return its name."""
        try:
            self.call("POST", f"/storage/v1/b?project={PROJECT}", json.dumps({"name": name}).encode())
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
        return name

    def names(self, bucket: str) -> list[str]:
        """Return the names of all objects of a bucket, looked up behind the driver's back."""
        found = json.loads(self.call("GET", f"/storage/v1/b/{bucket}/o"))
        return [item["name"] for item in found.get("items", ())]

    def attributes(self, bucket: str, name: str) -> dict[str, Any]:
        """Return what the API says of an object."""
        found: dict[str, Any] = json.loads(self.call("GET", self._path(bucket, name)))
        return found

    def content(self, bucket: str, name: str) -> bytes:
        """Return what an object holds."""
        return self.call("GET", f"{self._path(bucket, name)}?alt=media")

    def call(self, method: str, path: str, data: bytes | None = None, content_type: str = "application/json") -> bytes:
        """Send one request and return the body of the reply; `urllib.error.HTTPError` unless it is a success."""
        request = urllib.request.Request(self.endpoint + path, data, {"Content-Type": content_type}, method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            body: bytes = reply.read()
            return body

    @staticmethod
    def _path(bucket: str, name: str) -> str:
        return f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"


class GcsServer(GcsBackend):
    """A process of this run's own, with its objects in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = golang.need_built(_MODULE, _VERSION)
        super().__init__(Facts("emulator", version(), "own process"))

    def configure(self) -> None:
        port = free_port()
        place = f"127.0.0.1:{port}"
        self.endpoint = f"http://{place}"
        options = {
            "scheme": "http",
            "host": "127.0.0.1",
            "port": str(port),
            "public-host": place,
            "backend": "memory",
            "log-level": "error",
        }
        flags = [part for name, value in options.items() for part in (f"-{name}", value)]
        command: list[str | Path] = [self._program, *flags]
        self.processes = (Process("gcs", command, folder=self._folder, check=lambda _: self._ask()),)

    def _ask(self) -> None:
        self.call("GET", "/_internal/healthcheck")


def attach(url: str, *, origin: str) -> GcsBackend:
    """Return an emulator that somebody else runs; `Unavailable` if it does not answer."""
    backend = GcsBackend(Facts("emulator", "unknown version", origin), url.rstrip("/"))
    try:
        backend.call("GET", "/storage/v1/b?project=" + PROJECT)
    except (OSError, ValueError) as error:
        raise Unavailable(f"{origin} names an emulator of Google Cloud Storage that does not serve: {error}") from error
    return backend


def install() -> None:
    """Build the emulator."""
    golang.build(_MODULE, _VERSION, needs=_GO)


def version() -> str:
    """Return what would be started; `Unavailable` if it was not built."""
    golang.need_built(_MODULE, _VERSION)
    return f"fake-gcs-server {_VERSION.removeprefix('v')}"


def _in_compose() -> GcsBackend | None:
    port = compose.published("gcs", 4443)
    return None if port is None else attach(f"http://127.0.0.1:{port}", origin="docker compose")


TECHNOLOGIES = (
    Technology(
        name="gcs",
        nature="emulator",
        install=install,
        version=version,
        make=GcsServer,
        attach=attach,
        in_compose=_in_compose,
    ),
)
