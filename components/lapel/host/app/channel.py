"""Requests to the application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from ...errors import DeadlineExceededError, OperationFailedError, OutcomeUnknownError, UnavailableError
from ...pubsub.tracing import current_trace
from ..options import HostOptions

__all__ = ["AppChannel", "AppReply", "AppStatusError", "carried_headers", "header_text"]

CONNECT_SECONDS = 5.0
PROBE_PAUSE = 0.1
"""Between looks whether the application listens."""
REPLY_BYTES = 16 * 1024 * 1024
"""The largest reply that is read."""
_OWN_HEADERS = frozenset(
    (
        *("connection", "content-length", "content-type", "dapr-api-token", "host", "keep-alive"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    )
)
_log = logging.getLogger("lapel.host")


class AppReply(msgspec.Struct, frozen=True):
    """What the application answered."""

    status: int
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300


class AppStatusError(OperationFailedError):
    """The application answered with `status`, which is not 2xx."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AppChannel:
    """The way to the application. Calls may overlap, up to `app_max_concurrency` of them reach it at once."""

    def __init__(self, options: HostOptions) -> None:
        assert options.app_port is not None
        self._options = options
        self._base = f"{options.app_protocol}://{_host(options.app_channel_address)}:{options.app_port}"
        limit = options.app_max_concurrency
        self._gate: asyncio.Semaphore | contextlib.nullcontext[None]
        self._gate = asyncio.Semaphore(limit) if limit > 0 else contextlib.nullcontext()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the client. Connects to nothing."""
        headers = {"dapr-api-token": self._options.app_api_token} if self._options.app_api_token else None
        self._session = aiohttp.ClientSession(
            # The certificate of one's own application on the loopback is not looked at, as in Dapr.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._options.app_protocol != "https"),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            skip_auto_headers=("User-Agent", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )

    async def close(self) -> None:
        """End the client and every request under way. Bounded."""
        if self._session is not None:
            await self._session.close()

    async def wait_until_listening(self) -> None:
        """Return when the application takes connections; waits for ever."""
        options, told = self._options, False
        while True:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(options.app_channel_address, options.app_port)
                writer.close()
                return
            if not told:
                _log.info("waiting for the application on port %d", options.app_port)
                told = True
            await asyncio.sleep(PROBE_PAUSE)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        trace: tuple[str, str] = ("", ""),
        timeout: float | None = None,
    ) -> AppReply:
        """Send one request and return the reply, whatever its status.

        `trace` is traceparent and tracestate where no span is current. `timeout` in seconds; None is `app_timeout`.

        Raises `UnavailableError` when the application was not reached, `OutcomeUnknownError` when it went away before
        it answered, and `DeadlineExceededError`. Redirects are not followed.
        """
        limit = self._options.app_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit), self._gate:
                return await self._send(method, path, body, content_type, dict(headers), trace)
        except TimeoutError:
            raise DeadlineExceededError(f"the application did not answer {method} {path} within {limit:g} s") from None

    async def probe(self, path: str, timeout: float) -> AppReply:
        """Ask `GET path` beside all other requests, whatever the limit. Raises as `request`."""
        try:
            async with asyncio.timeout(timeout):
                return await self._send("GET", path, None, None, {}, ("", ""))
        except TimeoutError:
            raise DeadlineExceededError(f"the application did not answer GET {path} within {timeout:g} s") from None

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        content_type: str | None,
        sent: dict[str, str],
        trace: tuple[str, str],
    ) -> AppReply:
        assert self._session is not None
        if content_type is not None:
            sent["Content-Type"] = content_type
        sent |= _trace_headers(*current_trace()) or _trace_headers(*trace)
        url = URL(self._base + (path if path.startswith("/") else f"/{path}"))
        try:
            async with self._session.request(method, url, data=body, headers=sent, allow_redirects=False) as response:
                return AppReply(response.status, await _read(response))
        except aiohttp.ClientConnectorError as exc:
            raise UnavailableError(f"the application does not listen on {self._base}: {exc.strerror}") from exc
        except aiohttp.ClientError as exc:
            text = f"the application broke off while it was asked for {method} {path}: {type(exc).__name__}"
            raise OutcomeUnknownError(text) from exc


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > REPLY_BYTES:
            raise OperationFailedError(f"the application answered with more than {REPLY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _trace_headers(parent: str, state: str) -> dict[str, str]:
    if not parent or not header_text(parent):
        return {}
    return {"traceparent": parent, "tracestate": state} if state and header_text(state) else {"traceparent": parent}


def carried_headers(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return attributes of a message as request headers; what no header can carry is left out."""
    found: dict[str, str] = {}
    for name, value in metadata.items():
        if name.lower() in _OWN_HEADERS or not header_text(name, token=True) or not header_text(value):
            continue
        found[name] = value
    return found


def header_text(text: str, *, token: bool = False) -> bool:
    """Tell whether a header can carry this text, as its name (`token`) or as its value."""
    if token:
        return (
            bool(text)
            and all(character.isalnum() or character in "!#$%&'*+-.^_`|~" for character in text)
            and (text.isascii())
        )
    return text.isprintable() and text.isascii()


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
