"""A server in front of Vault that hands on every request, counts it, and answers some itself."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.backends.vault import VaultBackend

__all__ = ["VaultFront"]

_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}


class VaultFront:
    """Serves on a loopback port while its `with` block runs."""

    def __init__(self, backend: VaultBackend) -> None:
        self._backend = backend
        self._faults: list[tuple[str, int, bytes]] = []
        self._lock = threading.Lock()
        self.asked: list[tuple[str, str]] = []
        """Method and path of every request, oldest first."""

    def fail(self, status: int, *, times: int, path: str = "", body: bytes = b'{"errors":["made up"]}') -> None:
        """Answer the next requests whose path has `path` in it with this status; Vault never sees them."""
        self._faults += [(path, status, body)] * times

    def count(self, path: str) -> int:
        """Count the requests whose path has `path` in it."""
        return sum(path in asked for _, asked in self.asked)

    def __enter__(self) -> Self:
        handle: Callable[[BaseHTTPRequestHandler], None] = self._handle

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def hand_on(self) -> None:
                handle(self)

            do_GET = do_POST = do_PUT = do_LIST = do_DELETE = hand_on  # noqa: N815 - the base class wants it

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
    def properties(self) -> dict[str, str]:
        """The fields of a component that comes this way."""
        return {**self._backend.properties, "vaultAddr": f"http://127.0.0.1:{self._server.server_address[1]}"}

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            self.asked.append((handler.command, handler.path))
            fault = next((one for one in self._faults if one[0] in handler.path), None)
            if fault is not None:
                self._faults.remove(fault)
        if fault is not None:
            status, kind, content = fault[1], "application/json", fault[2]
        else:
            connection = http.client.HTTPConnection(self._backend.host, self._backend.port, timeout=10)
            try:
                headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
                connection.request(handler.command, handler.path, body, headers)
                reply = connection.getresponse()
                status, kind, content = reply.status, reply.headers.get("Content-Type", ""), reply.read()
            finally:
                connection.close()
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
