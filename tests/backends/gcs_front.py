"""A server before an emulator of Google Cloud Storage that sees every request, and answers some itself.

It adds what the emulator lacks: preconditions of reads, deletes and copies, and on demand the move of one step. One
request is checked and carried out at a time, so they hold.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from .certificates import Certificates
from .gcs import GcsBackend

_OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)(?:/(rewriteTo|moveTo)(?:/b/([^/]+))?/o/([^/]+))?")
_MEDIA = re.compile(r"/download/storage/v1/b/([^/]+)/o/([^/]+)")


@dataclass(frozen=True)
class Seen:
    """One request that came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: bytes = field(repr=False)


@dataclass
class _Rule:
    method: str
    path: re.Pattern[str]
    times: int
    act: Callable[[Seen], tuple[int, bytes] | None]
    hits: int = 0


class GcsFront:
    """What a test holds. `url` is the endpoint for the driver."""

    def __init__(self, backend: GcsBackend, *, moves: bool) -> None:
        self.backend = backend
        self.moves = moves
        self.seen: list[Seen] = []
        self.url = ""
        self.lock = RLock()
        self._rules: list[_Rule] = []
        self.tokens: list[str] | None = None
        """If it is a list, the tokens that were issued under `/token`; only the last one is accepted."""

    def answer(self, method: str, path: str, status: int, body: Any = None, *, times: int = 1) -> None:
        """Answer the next requests of that kind, whose path matches the pattern, in the service's place."""
        said = {"error": {"code": status, "message": f"scripted {status}"}} if body is None else body
        text = json.dumps(said).encode()
        self._rules.append(_Rule(method, re.compile(path), times, lambda _: (status, text)))

    def before(self, method: str, path: str, act: Callable[[Seen], object]) -> None:
        """Do something once, before the next such request is passed on."""

        def acting(seen: Seen) -> None:
            act(seen)

        self._rules.append(_Rule(method, re.compile(path), 1, acting))

    def requests(self, method: str, path: str) -> list[Seen]:
        """Return what came of that kind so far."""
        return [each for each in self.seen if each.method == method and re.search(path, each.path)]

    def respond(self, seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        with self.lock:
            self.seen.append(seen)
        for rule in self._rules:
            if rule.times > rule.hits and rule.method == seen.method and rule.path.search(seen.path):
                rule.hits += 1
                if (answered := rule.act(seen)) is not None:
                    return answered[0], [("Content-Type", "application/json")], answered[1]
        if self.tokens is not None and seen.path == "/token":
            self.tokens.append(f"token-{len(self.tokens)}")
            issued = {"access_token": self.tokens[-1], "expires_in": 3600, "token_type": "Bearer"}
            return 200, [("Content-Type", "application/json")], json.dumps(issued).encode()
        if self.tokens is not None and seen.headers.get("authorization") != f"Bearer {(self.tokens or [''])[-1]}":
            return 401, [], b"{}"
        if seen.path.startswith("/upload/"):
            return self._forward(seen)
        with self.lock:
            return self._object(seen)

    def _object(self, seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        match = _OBJECT.fullmatch(seen.path) or _MEDIA.fullmatch(seen.path)
        if match is not None:
            bucket, name = match[1], match[2]
            verb, other, target = match.groups()[2:] or ("", "", "")
            source = self._generation(bucket, name)
            conditions = {"ifSourceGenerationMatch" if verb else "ifGenerationMatch": source}
            if verb:
                conditions["ifGenerationMatch"] = self._generation(other or bucket, target)
            for parameter, generation in conditions.items():
                if parameter in seen.query and int(seen.query[parameter]) != generation and (source or not verb):
                    return 412, [], b'{"error": {"code": 412, "message": "conditionNotMet"}}'
            if verb == "moveTo" and self.moves:
                return self._move(seen, bucket, name, target) if source else (404, [], b"{}")
        return self._forward(seen)

    def _move(self, seen: Seen, bucket: str, name: str, target: str | None) -> tuple[int, list[tuple[str, str]], bytes]:
        path = f"/storage/v1/b/{bucket}/o/{name}/rewriteTo/b/{bucket}/o/{target}"
        status, headers, body = self._forward(Seen("POST", path, {}, seen.headers, b"{}"))
        self._forward(Seen("DELETE", f"/storage/v1/b/{bucket}/o/{name}", {}, seen.headers, b""))
        return status, headers, json.dumps(json.loads(body)["resource"]).encode()

    def _generation(self, bucket: str, name: str) -> int:
        path = f"/storage/v1/b/{bucket}/o/{name}"
        status, _, body = self._forward(Seen("GET", path, {}, {}, b""))
        return int(json.loads(body)["generation"]) if status == 200 else 0

    def _forward(self, seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        parts = urlsplit(self.backend.endpoint)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in seen.query.items())
        headers = {name: value for name, value in seen.headers.items() if name != "connection"}
        connection.request(seen.method, f"{seen.path}?{query}", seen.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        kept = ("connection", "content-length", "transfer-encoding", "date", "keep-alive")
        return answer.status, [pair for pair in answer.getheaders() if pair[0].lower() not in kept], body


@contextmanager
def front_of(backend: GcsBackend, *, moves: bool = False, tls: Certificates | None = None) -> Iterator[GcsFront]:
    """Serve before an emulator, on a port of its own; `moves`: with the move of one step."""
    front = GcsFront(backend, moves=moves)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            seen = Seen(
                self.command, parts.path, query, {name.lower(): value for name, value in self.headers.items()}, body
            )
            status, headers, data = front.respond(seen)
            self.send_response(status)
            for pair in headers:
                self.send_header(*pair)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: tests cut connections."""

    with Server(("127.0.0.1", 0), Handler) as server:
        scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.server_cert, tls.server_key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        front.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        try:
            yield front
        finally:
            server.shutdown()
            thread.join()
