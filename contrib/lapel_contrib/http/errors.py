"""What failures of HTTP mean to a caller. No text holds a URL, a header or a body: they may hold secrets."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from http import HTTPStatus

import httpx

from lapel.bindings import (
    BindingResponse,
    NotFoundReplyError,
    PermissionDeniedReplyError,
    ReplyError,
    ThrottledReplyError,
    UnavailableReplyError,
)
from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    OutcomeUnknownError,
    PermissionDeniedError,
    UnavailableError,
)

__all__ = ["CONNECT_SECONDS", "causes", "from_status", "reason_of", "translated"]

CONNECT_SECONDS = 15.0

_BY_STATUS: dict[int, type[ReplyError]] = {
    HTTPStatus.UNAUTHORIZED: PermissionDeniedReplyError,
    HTTPStatus.FORBIDDEN: PermissionDeniedReplyError,
    HTTPStatus.NOT_FOUND: NotFoundReplyError,
    HTTPStatus.GONE: NotFoundReplyError,
    HTTPStatus.TOO_MANY_REQUESTS: ThrottledReplyError,
    HTTPStatus.SERVICE_UNAVAILABLE: UnavailableReplyError,
}


def from_status(status: int, method: str, place: str, response: BindingResponse) -> ReplyError:
    """Return the error for a reply whose status is not 200 to 299."""
    text = f"{place} answered {method} with {status}; its reply is in this error's `response`"
    return _BY_STATUS.get(status, ReplyError)(text, response)


def translated(exc: Exception, place: str, *, sent: bool, safe: bool) -> LapelError:
    """Return the error for one of httpx. `sent` tells whether any of the request may have left this process."""
    for cause in causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return OperationFailedError(
                f"the certificate of {place} is not trusted ({cause.verify_message}); see the field 'MTLSRootCA'"
            )
        if isinstance(cause, ssl.SSLError) and (not sent or "ALERT" in (cause.reason or "")):
            return PermissionDeniedError(
                f"{place} refused the TLS connection ({cause.reason}); see the fields 'MTLSClientCert' and 'url'"
            )
    if isinstance(exc, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return InvalidArgumentError("url, path or headers do not make a request that can be sent")
    reason = reason_of(exc)
    if not sent:
        return UnavailableError(f"cannot reach {place}: {reason}")
    if safe:
        return UnavailableError(f"lost the connection to {place}: {reason}")
    return OutcomeUnknownError(f"the request was sent to {place}, but its reply was lost: {reason}")


def causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception and what led to it, the latest first."""
    current: BaseException | None = exc
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def reason_of(exc: Exception) -> str:
    """Return why a request failed, in words that hold nothing of the request."""
    if isinstance(exc, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    for cause in causes(exc):
        if isinstance(cause, OSError) and cause.errno:
            return cause.strerror or os.strerror(cause.errno)
    return type(exc).__name__
