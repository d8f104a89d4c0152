"""One request and one response, small: a host builds one of each per call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ..state.types import NO_METADATA
from .errors import ClientGoneError, plain_error

__all__ = [
    "JSON",
    "NO_CONTENT",
    "NO_METADATA",
    "Message",
    "Receive",
    "Request",
    "Response",
    "StreamResponse",
    "metadata_headers",
]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = Sequence[tuple[bytes, bytes]]

JSON = b"application/json"
_PREFIX = "metadata."


class Request(msgspec.Struct):
    """What a handler gets.

    `parameters` are the values of the template's parameters, unescaped, in its order. `body` is empty for routes
    that take none, and for those that `stream`, which reads from ASGI's `receive`. `answered` is true once its handler
    has ended.
    """

    method: str
    parameters: tuple[str, ...]
    query_string: bytes
    headers: Headers
    receive: Receive
    body: bytes = b""
    answered: bool = False
    _query: list[tuple[str, str]] | None = None

    def __repr__(self) -> str:
        # Bodies, headers and queries may hold secrets.
        return f"<{type(self).__name__} {self.method}>"

    def header(self, name: bytes) -> str | None:
        """Return the first header of this name (lower case), None when there is none.

        Read as UTF-8, as names of keys are sent, and as Latin-1 where it is none.
        """
        for key, value in self.headers:
            if key == name:
                try:
                    return value.decode()
                except UnicodeDecodeError:
                    return value.decode("latin-1")
        return None

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's pairs in order, unescaped, without repetitions removed."""
        if self._query is None:
            try:
                text = self.query_string.decode("ascii")
                pairs = parse_qsl(text, keep_blank_values=True, errors="strict") if text else []
            except UnicodeError:
                raise plain_error(400, "the query is not UTF-8") from None
            self._query = pairs
        return self._query

    def argument(self, name: str) -> str | None:
        """Return the first value of a query parameter, None when it is not there."""
        if not self.query_string:
            return None
        return next((value for key, value in self.query if key == name), None)

    def metadata(self, given: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Return component metadata: query parameters `metadata.<key>`, the first of each, over what is `given`."""
        if not self.query_string:
            return given or NO_METADATA
        found: dict[str, str] = {}
        for key, value in self.query:
            if key.startswith(_PREFIX):
                found.setdefault(key[len(_PREFIX) :], value)
        return {**given, **found} if given and found else found or given or NO_METADATA

    async def left(self) -> None:
        """Return once the client has gone away without an answer.

        Not for routes that `stream`, whose body this would take. What a request leaves running, as a subscription, is
        not for its client alone any more.
        """
        while not self.answered:
            if (await self.receive())["type"] == "http.disconnect" and not self.answered:
                return
        await asyncio.get_running_loop().create_future()

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body of a streaming route as it comes. Raises `ClientGoneError`."""
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientGoneError
            if chunk := message.get("body"):
                yield chunk
            if not message.get("more_body"):
                return


class Response:
    """Status, body and headers; `content_type` None sends no body header at all (for 204)."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes | None = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.status = status
        self.body = body
        self.headers: list[tuple[bytes, bytes]] = (
            list(headers)
            if content_type is None
            else [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
        )

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
        """Return a response whose body is the JSON of `value`."""
        return cls(status, msgspec.json.encode(value), JSON, headers)

    @classmethod
    def text(cls, status: int, text: str) -> Response:
        """Return a plain-text response."""
        return cls(status, text.encode(), b"text/plain; charset=utf-8")


class StreamResponse(Response):
    """A body that is sent as `chunks` come.

    What `chunks` raises before the first chunk becomes an error body; later the connection is closed in the middle.
    """

    __slots__ = ("chunks",)

    def __init__(
        self,
        status: int,
        chunks: AsyncGenerator[bytes, None],
        content_type: bytes,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(status, b"", None, [(b"content-type", content_type), *headers])
        self.chunks = chunks


NO_CONTENT = Response(204, b"", None)
"""Shared, so nobody may change it."""


def metadata_headers(metadata: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return response metadata as `metadata.<key>` headers; what no header can carry is left out."""
    found = []
    for key, value in metadata.items():
        name = f"{_PREFIX}{key}"
        if name.isascii() and name.isprintable() and not set(name) & _SEPARATORS and value.isprintable():
            found.append((name.lower().encode(), value.encode()))  # ASGI wants names in lower case
    return found


_SEPARATORS = set(' "(),/:;<=>?@[\\]{}')
