"""From an invocation to an HTTP request: where it goes and with which headers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from lapel.errors import InvalidArgumentError
from lapel.values import parse_bool

from .settings import HEADER_NAME, HttpSettings

__all__ = [
    "METHODS_WITH_BODY",
    "error_if_not_2xx",
    "method_of",
    "place_of",
    "request_headers",
    "split_credentials",
    "target",
]

METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})

_JSON: Final = "application/json; charset=utf-8"
_TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")
_VALUE: Final = re.compile("[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_OURS: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


def method_of(operation: str) -> str:
    """Return the HTTP method of an operation; `create` is POST."""
    return "POST" if operation == "create" else operation.upper()


def target(base: str, path: str | None) -> str:
    """Return the URL of a request: `path`, which may have a query, joined to `base` with exactly one slash.

    Raises `InvalidArgumentError` for a path that would leave the one of `base`.
    """
    if not path:
        return base
    route, mark, query = path.partition("?")
    if not path.isprintable() or "\\" in route or "#" in path:
        raise InvalidArgumentError(
            "the metadata 'path' holds a control character, a backslash or '#'; percent-encode it"
        )
    decoded = route
    # A server, or a proxy before it, may decode more than once.
    for _ in range(3):
        decoded = unquote(decoded).replace("\\", "/")
        if any(part in (".", "..") for part in decoded.split("/")):
            raise InvalidArgumentError("the metadata 'path' holds '.' or '..' as a part; give the path without it")
    parts = urlsplit(base)
    queries = [text for text in (parts.query, query if mark else "") if text]
    joined = f"{parts.path.rstrip('/')}/{route.lstrip('/')}"
    return urlunsplit((parts.scheme, parts.netloc, joined, "&".join(queries), ""))


def request_headers(settings: HttpSettings, metadata: Mapping[str, str], method: str) -> dict[str, str]:
    """Return the headers of a request, by name in lower case.

    Metadata whose name begins with an upper-case letter becomes a header; the tracing ones win over those.
    """
    headers = {"accept": _JSON, "accept-encoding": "identity", "user-agent": "lapel"}
    if method in METHODS_WITH_BODY:
        headers["content-type"] = _JSON
    for name, value in metadata.items():
        if name[:1].isascii() and name[:1].isupper():
            headers[name.lower()] = _header(settings, name, value)
    for name in _TRACE_HEADERS:
        if name in metadata:
            headers[name] = _header(settings, name, metadata[name])
    if settings.security_token is not None and settings.security_token_header is not None:
        headers[settings.security_token_header.lower()] = settings.security_token.reveal()
    return headers


def _header(settings: HttpSettings, name: str, value: str) -> str:
    lower = name.lower()
    if HEADER_NAME.fullmatch(name) is None or lower in _OURS:
        raise InvalidArgumentError(f"the metadata {name!r} cannot be sent as a header")
    if lower == (settings.security_token_header or "").lower():
        raise InvalidArgumentError(f"the metadata {name!r} would replace the component's security token")
    if _VALUE.fullmatch(value) is None:
        raise InvalidArgumentError(f"the value of the metadata {name!r} holds characters that a header cannot carry")
    return value.strip()


def place_of(url: str) -> str:
    """Return host and port, the part of a URL that is not secret."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port}" if parts.port else str(host)


def split_credentials(url: str) -> tuple[str, str | None]:
    """Return the URL without user name and password, and the header that carries them."""
    parts = urlsplit(url)
    user, mark, host = parts.netloc.rpartition("@")
    if not mark:
        return url, None
    name, _, password = user.partition(":")
    token = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), f"Basic {token}"


def error_if_not_2xx(settings: HttpSettings, metadata: Mapping[str, str]) -> bool:
    """Return what the request says about it, else what the component says."""
    text = metadata.get("errorIfNot2XX")
    if text is None:
        return settings.error_if_not_2xx
    try:
        return parse_bool(text)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"the metadata 'errorIfNot2XX': {exc.message}") from None
