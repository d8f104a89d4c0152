"""A proxy in front of an emulator of AWS that notes what goes by, and answers itself what a test tells it to."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as the client sent it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        """The action of SQS, SNS, STS and the secret stores; method and path for S3."""
        if target := self.headers.get("x-amz-target"):
            return target.rpartition(".")[2]
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return self.form.get("Action", "")
        return f"{self.method} {urlsplit(self.path).path}"

    @property
    def json(self) -> Any:
        """The body of a JSON protocol."""
        return json.loads(self.body or b"{}")

    @property
    def form(self) -> dict[str, str]:
        """The body of the query protocol."""
        return {name: values[0] for name, values in parse_qs(self.body.decode(), keep_blank_values=True).items()}

    @property
    def query(self) -> dict[str, str]:
        """What follows the path."""
        found = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in found.items()}


@dataclass(frozen=True)
class Reply:
    """An answer in place of the emulator's. `cut` ends the connection without one; `lose` after it was passed on."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    lose: bool = False


Rule = Callable[[Request], Reply | None]


def json_error(code: str, status: int = 400, message: str = "as the test wants it") -> Reply:
    """Return an error of a JSON protocol."""
    body = json.dumps({"__type": f"com.amazonaws#{code}", "message": message}).encode()
    return Reply(status, body, {"Content-Type": "application/x-amz-json-1.0"})


def xml_error(code: str, status: int = 400) -> Reply:
    """Return an error of S3."""
    body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
    return Reply(status, body, {"Content-Type": "application/xml"})


class AwsProxy(ThreadingHTTPServer):
    """Passes requests on to `target`, unless `rule` has an answer. `requests` are all that came."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target)
        self.requests: list[Request] = []
        self.rule: Rule = lambda _: None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def of(self, operation: str) -> list[Request]:
        """Return the requests of one operation."""
        return [request for request in self.requests if request.operation == operation]

    def first(self, operation: str, count: int, reply: Reply) -> None:
        """Answer the first `count` requests of an operation like this, and pass on all others."""
        left = [count]

        def rule(request: Request) -> Reply | None:
            if request.operation == operation and left[0]:
                left[0] -= 1
                return reply
            return None

        self.rule = rule

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


@contextmanager
def proxy_to(target: str) -> Iterator[AwsProxy]:
    """Provide a proxy that runs in threads of its own."""
    with AwsProxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AwsProxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        self.server.requests.append(request)
        reply = self.server.rule(request)
        if reply is None or reply.lose:
            passed = self._forward(request)
            if reply is None:
                reply = passed
        if reply.cut or reply.lose:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in ("connection", "content-length", "date", "server", "transfer-encoding"):
                self.send_header(name, value)
        length = reply.headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass  # noqa: N815  # names of the base class

    def _forward(self, request: Request) -> Reply:
        target = self.server.target
        connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=30)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
