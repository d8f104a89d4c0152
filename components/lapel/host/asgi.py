"""The ASGI application: token, routing, body, errors, and the life of the host."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..caller import caller
from ..errors import LapelError
from .api.unimplemented import no_route
from .errors import ClientGoneError, HostError, error_body, plain_error, reason
from .host import Host
from .http import JSON, Message, Receive, Request, Response, StreamResponse
from .options import HostOptions
from .routing import Route, under_root

if TYPE_CHECKING:
    from ..assembly import Source

__all__ = ["HostApp", "create_app"]

Send = Callable[[Message], Awaitable[None]]
TOKEN_HEADER = b"dapr-api-token"
DISCARDED_BODIES = 8
"""How many times the limit is read and thrown away, so that a client that sends on sees the answer, not a reset."""
NOBODY_THERE = 499
"""What hooks see as the status of a request that was never answered."""
_log = logging.getLogger("lapel.host")
_TOO_LARGE = HostError(413, "ERR_BODY_READ", "failed to read request body: it is larger than allowed (--max-body-size)")


def create_app(source: Source | Iterable[Source], *, options: HostOptions | None = None, **fields: Any) -> HostApp:
    """Return the ASGI application that serves Dapr's HTTP API over the components of `source`.

    `source` is what `lapel.open_components` takes; `fields` are fields of `HostOptions`. Run it with any ASGI server,
    or mount it in an application of Starlette or FastAPI. It opens the components at startup, or where the outer
    application forwards no lifespan to it with the first request; then end it with `await app.host.stop()`.
    """
    return HostApp(Host(source, replace(options or HostOptions(), **fields)))


class HostApp:
    """The ASGI application over one `Host`. Belongs to the event loop that serves it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._token = host.options.api_token
        self._limit = host.options.max_body_size

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI."""
        if scope["type"] == "http":
            try:
                response = await self._respond(scope, receive)
                if type(response) is Response:
                    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
                    await send({"type": "http.response.body", "body": response.body})
                else:
                    await _send_stream(response, send)
            except ClientGoneError:
                return
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _respond(self, scope: Any, receive: Receive) -> Response:
        method: str = scope["method"]
        host = self.host
        try:
            raw_path = _raw_path(scope)
            if root := scope.get("root_path"):
                raw_path = under_root(raw_path, root)
            found = host.router.find(method, raw_path)
            headers = scope["headers"]
            if self._token is not None and not (found and found[0].open):
                headers = self._authorized(headers)
            if found is None:
                return no_route(headers)
            route, parameters = found
            if not host.ready:
                await self._wake(route)
            query = scope["query_string"]
            if b"%" in query:
                _check_escapes(query)
            body = b""
            if route.body == "whole":
                # Nearly every body comes in one piece.
                message = await receive()
                if message["type"] == "http.request" and not message.get("more_body"):
                    body = message.get("body", b"")
                    if 0 <= self._limit < len(body):
                        raise _TOO_LARGE
                else:
                    body = await self._read_on(message, receive)
            request = Request(method, parameters, query, headers, receive, body)
            if route.body != "stream":
                caller.set(request)
            try:
                if host.hooks:
                    return await self._watched(route, request)
                return await route.handler(request)
            finally:
                request.answered = True
        except Exception as exc:
            return _failure(exc, method)

    async def _watched(self, route: Route, request: Request) -> Response:
        tokens = [(hook, hook.started(request, route)) for hook in self.host.hooks]
        status = NOBODY_THERE
        try:
            try:
                response = await route.handler(request)
            except Exception as exc:
                response = _failure(exc, request.method)
            status = response.status
            return response
        finally:
            for hook, token in reversed(tokens):
                hook.finished(token, status)

    def _authorized(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the headers without the token, or raise the 401."""
        given = next((value for name, value in headers if name == TOKEN_HEADER), b"")
        if self._token is not None and not hmac.compare_digest(given, self._token.encode()):
            raise plain_error(401, "invalid api token")
        return [pair for pair in headers if pair[0] != TOKEN_HEADER]

    async def _wake(self, route: Route) -> None:
        """Start a host that nobody started: a mounted application gets no lifespan."""
        if self.host.started or route.group == "healthz":
            return
        try:
            await self.host.start()
        except Exception as exc:
            _log.error("the host does not start: %s", exc)
            raise HostError(500, "ERR_HEALTH_NOT_READY", "dapr is not ready: [components]") from None

    async def _read_on(self, message: Message, receive: Receive) -> bytes:
        """Return a body that begins with `message`. Raises the 413 and `ClientGoneError`."""
        limit = self._limit
        chunks: list[bytes] = []
        size = 0
        while True:
            if message["type"] != "http.request":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if limit < 0 or size <= limit:
                chunks.append(chunk)
            elif size > limit * DISCARDED_BODIES:
                break
            else:
                chunks.clear()
            if not message.get("more_body"):
                break
            message = await receive()
        if 0 <= limit < size:
            raise _TOO_LARGE
        return b"".join(chunks)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.host.start()
        except Exception as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.host.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _raw_path(scope: Any) -> str:
    raw = scope.get("raw_path")
    if raw is None:  # the key is optional in ASGI; without it an escaped slash cannot be told from a plain one
        return quote(scope["path"], safe="/:@!$&'()*,;=~-._")
    path: str = raw.decode("latin-1")
    return path if "?" not in path else path.partition("?")[0]


def _check_escapes(query: bytes) -> None:
    for part in query.split(b"%")[1:]:
        if len(part) < 2 or not all(character in b"0123456789abcdefABCDEF" for character in part[:2]):
            raise plain_error(400, "invalid URL escape in the query")


def _failure(exc: Exception, method: str) -> Response:
    """Return the answer to a request whose handling raised."""
    if isinstance(exc, ClientGoneError):
        raise exc
    if isinstance(exc, LapelError):
        _log.warning("a %s request failed: %s", method, exc)
        exc = HostError(500, "ERROR", reason(exc))
    if not isinstance(exc, HostError):
        _log.error("a %s request failed; please report this", method, exc_info=exc)
        exc = HostError(500, "ERROR", "internal error")
    headers = exc.headers
    if exc is _TOO_LARGE:
        headers = [*headers, (b"connection", b"close")]
    if exc.code is None:
        return Response(exc.status, exc.message.encode(), b"text/plain; charset=utf-8", headers)
    return Response(exc.status, error_body(exc), JSON, headers)


async def _send_stream(response: Response, send: Send) -> None:
    """Send chunks as they come; an error before the first becomes an error body, a later one breaks the stream."""
    assert isinstance(response, StreamResponse)
    async with aclosing(response.chunks) as chunks:
        try:
            first = await anext(chunks, b"")
        except Exception as exc:
            failure = _failure(exc, "streaming")
            await send({"type": "http.response.start", "status": failure.status, "headers": failure.headers})
            await send({"type": "http.response.body", "body": failure.body})
            return
        await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ClientGoneError:
            raise
        except Exception as exc:
            # The status is sent. An incomplete body is the one thing left that a client notices.
            _log.warning("a stream broke off after it had begun: %s", exc)
            return
        await send({"type": "http.response.body", "body": b""})
