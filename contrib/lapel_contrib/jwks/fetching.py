"""Fetch a key set from an HTTP server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin

import httpcore
import httpx

from lapel.errors import (
    ConfigurationError,
    LapelError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)
from lapel_contrib.http.errors import causes, reason_of
from lapel_contrib.http.requests import place_of, split_credentials
from lapel_contrib.http.settings import url_problem
from lapel_contrib.http.transport import Transports

from .keyset import MAX_SET_BYTES

__all__ = ["Fetcher"]

MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NO_LIMITS: Final = httpx.Timeout(None).as_dict()
_HEADERS: Final = {
    "accept": "application/jwk-set+json, application/json",
    "accept-encoding": "identity",
    "user-agent": "lapel",
}


class Fetcher:
    """Gets the text behind one URL. Not for overlapping calls.

    Certificates are verified with the system's authorities. Redirects are followed up to 5 times, but not from https
    to http; a user name and password in the URL go to its own host only. Proxies of the environment are used, except
    for loopback addresses. `seconds` is the deadline of one fetch, redirects included.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._authorization = split_credentials(url)
        self._seconds = seconds
        self._transports: Transports | None = None
        # httpcore forgets the connection of a TLS handshake that is cancelled, and would leave it open for ever.
        self._greeting: httpcore.AsyncNetworkStream | None = None
        self.place = place_of(url)

    async def fetch(self) -> bytes:
        """Return the body of the answer, at most `MAX_SET_BYTES`.

        Raises `UnavailableError`, `ThrottledError`, `PermissionDeniedError`, or `ConfigurationError` for an answer
        that comes from no key server. No text holds the URL but for its host and port.
        """
        try:
            async with asyncio.timeout(self._seconds):
                if self._transports is None:
                    self._transports = await asyncio.to_thread(_make_transports)
                return await self._follow(self._transports)
        except TimeoutError:
            text = f"{self.place} did not send the key set within {self._seconds:g} s (requestTimeout)"
            raise UnavailableError(text) from None
        except (httpx.TransportError, httpx.StreamError, httpx.InvalidURL) as exc:
            error = _translated(exc, self.place)
        # The exceptions of httpx hold the request, and with it the URL.
        raise error

    async def close(self) -> None:
        """Close the connections. May be called again, not during a fetch."""
        transports, self._transports = self._transports, None
        if transports is not None:
            await transports.close()

    async def _follow(self, transports: Transports) -> bytes:
        url = self._url
        for _ in range(MOST_REDIRECTS + 1):
            body, location = await self._get(transports, url)
            if location is None:
                return body
            url = _redirected(url, location, self.place)
        raise ConfigurationError(f"{self.place} redirects more than {MOST_REDIRECTS} times; see the field 'jwks'")

    async def _get(self, transports: Transports, url: str) -> tuple[bytes, str | None]:
        headers = dict(_HEADERS)
        if self._authorization is not None and _origin(url) == _origin(self._url):
            headers["authorization"] = self._authorization
        extensions = {"timeout": _NO_LIMITS, "trace": self._trace}
        request = httpx.Request("GET", url, headers=headers, extensions=extensions)
        lease = transports.lease(request.url)
        try:
            response = await lease.transport.handle_async_request(request)
            try:
                location = response.headers.get("location")
                if location and response.status_code in _REDIRECTS:
                    return b"", location
                _check_status(response.status_code, place_of(url))
                return await _body(response, place_of(url)), None
            finally:
                await response.aclose()
        except asyncio.CancelledError:
            if self._greeting is not None:
                await self._greeting.aclose()
            raise
        finally:
            self._greeting = None
            await lease.release()

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._greeting = info["return_value"]
        elif event.endswith("send_request_headers.started"):
            self._greeting = None


def _make_transports() -> Transports:
    # Reads the certificate authorities from files.
    return Transports(ssl.create_default_context())


async def _body(response: httpx.Response, place: str) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_SET_BYTES:
            raise ConfigurationError(
                f"{place} answers with more than the {MAX_SET_BYTES} bytes of the largest key set; see the field 'jwks'"
            )
    return bytes(body)


def _check_status(status: int, place: str) -> None:
    if status == HTTPStatus.OK:
        return
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise PermissionDeniedError(f"{place} refused to give the key set (status {status})")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise ThrottledError(f"{place} asks for fewer requests (status {status}); raise 'minRefreshInterval'")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UnavailableError(f"{place} cannot give the key set now (status {status})")
    raise ConfigurationError(f"{place} answers with status {status} instead of a key set; see the field 'jwks'")


def _redirected(url: str, location: str, place: str) -> str:
    """Return where a redirect leads. Raises `ConfigurationError` for a place that gives no safe key set."""
    try:
        target = urljoin(url, location)
    except ValueError:
        target = ""
    problem, scheme = url_problem(target)
    if problem:
        raise ConfigurationError(f"{place} redirects to something that is no http or https URL; see the field 'jwks'")
    if scheme == "http" and _origin(url)[0] == "https":
        raise ConfigurationError(f"{place} redirects from https to http, where keys could be forged; not followed")
    return split_credentials(target)[0]


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def _translated(exc: Exception, place: str) -> LapelError:
    for cause in causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of {place} is not trusted ({cause.verify_message}); add its authority to those of the"
                " system, for example with the environment variable SSL_CERT_FILE"
            )
    if isinstance(exc, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return ConfigurationError("the field 'jwks' is not a URL that a request can be sent to")
    return UnavailableError(f"cannot fetch the key set from {place}: {reason_of(exc)}")
