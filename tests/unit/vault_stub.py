"""A stub of Vault's HTTP interface: it records what it is asked, and answers what the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from lapel.driver import DriverContext, SharedClients
from lapel.secretstores import SecretStore
from lapel.testing.lifecycle import wait_until
from lapel_contrib.vault.secretstore import VaultSecretStore
from lapel_contrib.vault.settings import VaultSecretsSettings

__all__ = ["Answer", "Asked", "VaultStub", "store_on", "until"]

FOREVER = {"data": {"ttl": 0, "renewable": False}}


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def token(self) -> str | None:
        """The token that came with it."""
        return self.headers.get("x-vault-token")


Answer = Callable[[Asked], tuple[int, Any]]


@dataclass
class VaultStub:
    """Serves on a loopback port while its `with` block runs. `answer` gives status and JSON for each request.

    Without an answer for it, a token lives for ever and every secret is `{"user": "ops"}` in version 1.
    """

    answer: Answer | None = None
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                parts = urlsplit(self.path)
                size = int(self.headers.get("Content-Length") or 0)
                text = self.rfile.read(size)
                asked = Asked(
                    self.command,
                    parts.path.removeprefix("/v1/"),
                    dict(parse_qsl(parts.query)),
                    {name.lower(): value for name, value in self.headers.items()},
                    json.loads(text) if text else None,
                )
                stub.asked.append(asked)
                status, content = stub._answered(asked)
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                if status in (301, 302, 307, 308):
                    self.send_header("Location", content["location"])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_LIST = do_DELETE = handle_any  # noqa: N815 - the base class wants it

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """Where it listens, for `vaultAddr`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def of(self, path: str) -> list[Asked]:
        """Return the requests for a path, oldest first."""
        return [asked for asked in self.asked if asked.path == path]

    def _answered(self, asked: Asked) -> tuple[int, Any]:
        found = self.answer(asked) if self.answer is not None else (404, None)
        if found != (404, None):
            return found
        if asked.path == "auth/token/lookup-self":
            return 200, FOREVER
        if asked.path == "sys/health":
            return 200, {}
        return 200, {"data": {"data": {"user": "ops"}, "metadata": {"version": 1}}}


def store_on(
    stub: VaultStub, fields: Mapping[str, str] | None = None, *, shared: SharedClients | None = None, **more: str
) -> SecretStore:
    """Return a store whose server is the stub, with a token unless the fields say otherwise."""
    given = {"vaultAddr": stub.address, "vaultToken": "t", **(fields or {}), **more}
    settings = VaultSecretsSettings.parse(given, component="vault", driver="secretstores.hashicorp.vault")
    context = DriverContext(component="vault", shared=shared or SharedClients())
    return SecretStore(VaultSecretStore(settings, context))


async def until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as the condition holds; fail with `what` when it does not."""

    async def holds() -> bool:
        return condition()

    await wait_until(holds, lambda: what)
