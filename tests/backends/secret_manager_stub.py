"""A stub of Google's Secret Manager: its HTTP interface, as far as secrets are written and read, in memory.

Run as a script with a port. The messages are those that Google's own library generates. There is no emulator of the
service to be had; what is kept here are its rules for names, versions, states, pages and sizes, and its status codes.
A secret with the labels `fail` (an HTTP status) and `times` fails that often when it is read; with `corrupt` another
value comes than is stored.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
from google.cloud import secretmanager_v1 as service

PAGE = 100
NUMBER = "123456789"
"""Resource names in answers hold the number of the project, whatever its id."""

_SECRET = re.compile(r"projects/([^/]+)/secrets/([A-Za-z0-9_-]{1,255})")
_VERSION = re.compile(_SECRET.pattern + r"/versions/([1-9][0-9]*|[A-Za-z][A-Za-z0-9_-]{0,62})")
_State = service.SecretVersion.State


class Refused(Exception):  # noqa: N818 - an answer
    """The answer is this status."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass
class Secret:
    labels: dict[str, str]
    failures: int
    versions: list[bytes] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)


class Store:
    def __init__(self) -> None:
        self.secrets: dict[str, Secret] = {}

    def create(self, name: str, labels: dict[str, str]) -> Any:
        if _SECRET.fullmatch(f"projects/p/secrets/{name}") is None:
            raise Refused(400, "INVALID_ARGUMENT", "the name of the secret is not valid")
        if name in self.secrets:
            raise Refused(409, "ALREADY_EXISTS", "the secret exists already")
        self.secrets[name] = Secret(labels, int(labels.get("times", 0)))
        return service.Secret(name=_resource(name))

    def add(self, resource: str, data: bytes) -> Any:
        name, secret = self._secret(resource)
        if not 0 < len(data) <= 65536:
            raise Refused(400, "INVALID_ARGUMENT", "the payload must have 1 to 65536 bytes")
        secret.versions.append(data)
        secret.states.append(_State.ENABLED)
        return service.SecretVersion(name=f"{_resource(name)}/versions/{len(secret.versions)}")

    def access(self, resource: str) -> Any:
        name, secret, number = self._version(resource)
        if secret.failures:
            secret.failures -= 1
            raise Refused(int(secret.labels["fail"]), "AS_LABELLED", "as the label of the secret says")
        if secret.states[number - 1] is not _State.ENABLED:
            raise Refused(400, "FAILED_PRECONDITION", f"the version is {secret.states[number - 1].name}")
        data = secret.versions[number - 1]
        checksum = int.from_bytes(google_crc32c.Checksum(data).digest(), "big")
        sent = data + b"!" if "corrupt" in secret.labels else data
        payload = service.SecretPayload(data=sent, data_crc32c=checksum)
        return service.AccessSecretVersionResponse(name=f"{_resource(name)}/versions/{number}", payload=payload)

    def page(self, size: int, token: str) -> Any:
        names = sorted(self.secrets)
        start, size = int(token or 0), min(size or PAGE, PAGE)
        found = [service.Secret(name=_resource(name)) for name in names[start : start + size]]
        following = str(start + size) if start + size < len(names) else ""
        return service.ListSecretsResponse(secrets=found, next_page_token=following, total_size=len(names))

    def delete(self, resource: str) -> None:
        del self.secrets[self._secret(resource)[0]]

    def set_state(self, resource: str, state: Any) -> Any:
        name, secret, number = self._version(resource)
        secret.states[number - 1] = state
        return service.SecretVersion(name=f"{_resource(name)}/versions/{number}", state=state)

    def _secret(self, resource: str) -> tuple[str, Secret]:
        match = _SECRET.fullmatch(resource)
        if match is None:
            raise Refused(400, "INVALID_ARGUMENT", "the name of the secret is not valid")
        if match[2] not in self.secrets:
            raise Refused(404, "NOT_FOUND", "the secret was not found")
        return match[2], self.secrets[match[2]]

    def _version(self, resource: str) -> tuple[str, Secret, int]:
        match = _VERSION.fullmatch(resource)
        if match is None:
            raise Refused(400, "INVALID_ARGUMENT", "the name of the version is not valid")
        name, secret = self._secret(resource.rpartition("/versions/")[0])
        # There are no aliases here but the one that every secret has.
        number = len(secret.versions) if match[3] == "latest" else int(match[3]) if match[3].isdecimal() else 0
        if not 0 < number <= len(secret.versions):
            raise Refused(404, "NOT_FOUND", "the version was not found, or there is none")
        return name, secret, number


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body go out together: apart, the second would wait for the first to be acknowledged.
    wbufsize = -1
    store: ClassVar[Store] = Store()
    lock: ClassVar[Lock] = Lock()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            with self.lock:
                message = self._act(body)
        except Refused as refused:
            self._send(refused.code, _error(refused))
        else:
            self._send(200, "{}" if message is None else type(message).to_json(message))

    def _act(self, body: bytes) -> Any:
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix("/v1/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        resource, _, verb = path.rpartition(":")
        match self.command, verb if resource else "":
            case "GET", "access":
                return self.store.access(resource)
            case "GET", _ if path.endswith("/secrets"):
                return self.store.page(int(query.get("pageSize", 0)), query.get("pageToken", ""))
            case "POST", "addVersion":
                return self.store.add(resource, service.AddSecretVersionRequest.from_json(body).payload.data)
            case "POST", "disable":
                return self.store.set_state(resource, _State.DISABLED)
            case "POST", "destroy":
                return self.store.set_state(resource, _State.DESTROYED)
            case "POST", _ if path.endswith("/secrets"):
                return self.store.create(query["secretId"], dict(service.Secret.from_json(body).labels))
            case "DELETE", _:
                return self.store.delete(path)
        raise Refused(404, "NOT_FOUND", "there is no such method")

    def _send(self, code: int, text: str) -> None:
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    allow_reuse_address = True


def _error(refused: Refused) -> str:
    return f'{{"error": {{"code": {refused.code}, "status": "{refused.status}", "message": "{refused}"}}}}'


def _resource(secret: str) -> str:
    return f"projects/{NUMBER}/secrets/{secret}"


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
