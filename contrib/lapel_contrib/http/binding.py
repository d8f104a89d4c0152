"""Requests to one HTTP server as an output binding."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx
from typing_extensions import override

from lapel.bindings import BindingDriver, BindingResponse, InvokeRequest
from lapel.coalesce import mark_not_sent
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, LapelError, OperationFailedError
from lapel.policy import Effect
from lapel.settings import format_size

from . import BINDING
from .errors import CONNECT_SECONDS, from_status, translated
from .requests import (
    METHODS_WITH_BODY,
    error_if_not_2xx,
    method_of,
    place_of,
    request_headers,
    split_credentials,
    target,
)
from .settings import HttpSettings
from .tls import make_context
from .transport import Lease, Transports

__all__ = ["HttpBinding"]

MOST_REDIRECTS: Final = 10
EAGER_BYTES: Final = 256 * 1024
_BODILESS: Final = (204, 205, 304)
_SAFE: Final = frozenset({"get", "head", "options", "trace"})
_TIMEOUT: Final = httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()
_PRIVATE: Final = ("authorization", "cookie", "proxy-authorization", "www-authenticate")


class HttpBinding(BindingDriver[HttpSettings]):
    """`bindings.http`: requests to `url`, with the metadata `path` joined to it.

    Metadata that begins with an upper-case letter is sent as headers. The reply's metadata has `statusCode`, `status`
    and each header, repeated ones joined with commas; its data is the body as the server sent it (compression is not
    asked for). A body of known length up to 256 KiB is bytes, any other a stream. A status other than 2xx is a
    `ReplyError` or one of its subclasses unless `errorIfNot2XX` is false. Redirects are followed up to 10 times, as Go
    does; credentials go to the host of `url` only. Proxies of the environment are used, except for loopback addresses.
    Data for an operation without a body (all but create, post, put, patch) is refused. There is no ping.
    """

    descriptor = BINDING

    def __init__(self, settings: HttpSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._base, self._authorization = split_credentials(settings.url.reveal())
        self._limit = int(settings.max_response_body_size)
        self._transports: Transports | None = None

    @property
    @override
    def call_timeout(self) -> float | None:
        timeout = self.settings.response_timeout
        return None if timeout is None else timeout.total_seconds()

    @override
    def effect(self, operation: str) -> Effect:
        return Effect.SAFE if operation in _SAFE else Effect.UNSAFE

    async def open(self) -> None:
        self._transports = await asyncio.to_thread(lambda: Transports(make_context(self.settings)))

    async def close(self) -> None:
        transports, self._transports = self._transports, None
        if transports is not None:
            await transports.close()

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        method = method_of(request.operation)
        data: bytes | AsyncIterable[bytes] | None = request.data
        if method not in METHODS_WITH_BODY:
            if data:
                raise InvalidArgumentError(f"{method} has no body; send the data with post, put or patch")
            data = None
        headers = request_headers(self.settings, request.metadata, method)
        if self._authorization is not None:
            headers.setdefault("authorization", self._authorization)
        exchange = _Exchange(
            target(self._base, request.metadata.get("path")),
            method,
            headers,
            data,
            safe=self.effect(request.operation) is Effect.SAFE,
            token_header=(self.settings.security_token_header or "").lower(),
        )
        demand_success = error_if_not_2xx(self.settings, request.metadata)
        assert self._transports is not None
        response = await exchange.send(self._transports)
        body = _Body(response, exchange, self._limit)
        try:
            return await self._reply(response, body, method, exchange.place, demand_success)
        except BaseException:
            await body.aclose()
            raise

    async def _reply(
        self, response: httpx.Response, body: _Body, method: str, place: str, demand_success: bool
    ) -> BindingResponse:
        metadata = _reply_metadata(response)
        content_type = response.headers.get("content-type")
        length = response.headers.get("content-length", "")
        if method == "HEAD":
            await body.aclose()
            data: bytes | _Body | None = None
        elif (
            (demand_success and not response.is_success)
            or response.status_code in _BODILESS
            or (length.isdecimal() and int(length) <= EAGER_BYTES)
        ):
            data = b"".join([chunk async for chunk in body])
        else:
            body.check_length(length)
            data = body
        reply = BindingResponse(data, metadata, content_type)
        if demand_success and not response.is_success:
            raise from_status(response.status_code, method, place, reply)
        return reply


class _Exchange:
    """One invocation on its way, redirects included."""

    def __init__(
        self,
        url: str,
        method: str,
        headers: dict[str, str],
        data: bytes | AsyncIterable[bytes] | None,
        *,
        safe: bool,
        token_header: str,
    ) -> None:
        self._url = url
        self._method = method
        self._headers = headers
        self._data = data
        self._safe = safe
        self._token_header = token_header
        self._sent = False
        self._lease: Lease | None = None
        # httpcore forgets the connection of a TLS handshake that is cancelled, and would leave it open for ever.
        self._greeting: httpcore.AsyncNetworkStream | None = None
        self.place = place_of(url)

    async def send(self, transports: Transports) -> httpx.Response:
        """Return the first reply that is no redirect, its body unread. The connections are kept until `release`."""
        try:
            for _ in range(MOST_REDIRECTS + 1):
                response = await self._send(transports)
                location = response.headers.get("location")
                if not location or response.status_code not in (301, 302, 303, 307, 308):
                    return response
                await response.aclose()
                await self.release()
                self._follow(location, response.status_code)
            raise OperationFailedError(f"{self.place} redirected more than {MOST_REDIRECTS} times")
        except BaseException:
            await self.release()
            raise

    async def _send(self, transports: Transports) -> httpx.Response:
        try:
            request = httpx.Request(
                self._method,
                self._url,
                headers=[(name.encode("ascii"), value.encode()) for name, value in self._headers.items()],
                content=self._data,
                extensions={"timeout": _TIMEOUT, "trace": self._trace},
            )
            self._lease = transports.lease(request.url)
            return await self._lease.transport.handle_async_request(request)
        except CancelledError as exc:
            if not self._sent:
                mark_not_sent(exc)
            if self._greeting is not None:
                await self._greeting.aclose()
            raise
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            # The exceptions of httpx hold the request, and with it URL and token.
            raise self.translated(exc) from None

    async def release(self) -> None:
        """Give the connections back. Idempotent."""
        if self._lease is not None:
            await self._lease.release()

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self._sent = True
            self._greeting = None
        elif event == "connection.connect_tcp.complete":
            self._greeting = info["return_value"]

    def _follow(self, location: str, status: int) -> None:
        """Go on to another place, with a GET or with the same request."""
        if status in (307, 308):
            if self._data is not None and not isinstance(self._data, bytes):
                raise OperationFailedError(
                    f"{self.place} redirected with {status}, but a stream can be sent only once; "
                    "send bytes, or set 'url' to where it redirects"
                )
        elif self._method not in ("GET", "HEAD"):
            self._method, self._data = "GET", None
            self._headers.pop("content-type", None)
        before = httpx.URL(self._url)
        try:
            after = httpx.URL(urlsplit(urljoin(self._url, location)).geturl())
        except (httpx.InvalidURL, ValueError):
            after = httpx.URL("")
        if after.scheme not in ("http", "https") or not after.host:
            raise OperationFailedError(f"{self.place} redirected to something that is no http or https URL")
        if _origin(before) != _origin(after):
            for name in (*_PRIVATE, self._token_header):
                self._headers.pop(name, None)
        self._url = str(after)
        self.place = place_of(self._url)

    def translated(self, exc: Exception) -> LapelError:
        """Return the error that a failure of httpx means now."""
        return translated(exc, self.place, sent=self._sent, safe=self._safe)


class _Body(AsyncIterator[bytes]):
    """The body of a reply, never longer than the limit."""

    def __init__(self, response: httpx.Response, exchange: _Exchange, limit: int) -> None:
        self._response = response
        self._chunks = response.aiter_raw()
        self._exchange = exchange
        self._limit = limit
        self._length = 0

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            await self.aclose()
            raise
        except (httpx.TransportError, httpx.StreamError) as exc:
            raise self._exchange.translated(exc) from None
        self._length += len(chunk)
        self._check(self._length)
        return chunk

    def check_length(self, length: str) -> None:
        """Refuse a body that is too long by its own account, before any of it is read."""
        if length.isdecimal():
            self._check(int(length))

    def _check(self, length: int) -> None:
        if 0 < self._limit < length:
            raise OperationFailedError(
                f"{self._exchange.place} answered with status {self._response.status_code} and a body longer than "
                f"maxResponseBodySize={format_size(self._limit)}; raise the field or ask for less"
            )

    async def aclose(self) -> None:
        try:
            await self._response.aclose()
            close = getattr(self._chunks, "aclose", None)
            if close is not None:
                await close()
        finally:
            await self._exchange.release()


def _reply_metadata(response: httpx.Response) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for name, value in response.headers.multi_items():
        canonical = "-".join(part.capitalize() for part in name.split("-"))
        metadata[canonical] = f"{metadata[canonical]}, {value}" if canonical in metadata else value
    status = f"{response.status_code} {response.reason_phrase}".strip()
    return metadata | {"statusCode": str(response.status_code), "status": status}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
