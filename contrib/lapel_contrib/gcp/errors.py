"""What failures of Google Cloud mean to a caller. No text holds a token, a header, a key or a payload."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import requests
import urllib3
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, InvalidOperation, RefreshError, TransportError
from google.cloud.storage.exceptions import DataCorruption

from lapel.errors import (
    ConfigurationError,
    EtagMismatchError,
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StorageError,
    ThrottledError,
    UnavailableError,
)

__all__ = ["EXPECTED", "translated"]

EXPECTED = (
    GoogleAPICallError,
    GoogleAuthError,
    DataCorruption,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""What Google's libraries and those below them raise."""

_LONGEST = 200
_REFUSED_KEY = "no token for these credentials; check that the key or the identity is valid and not disabled"
_SLOW_DOWN = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})


def translated(exc: Exception, place: str, *, writes: bool, sent: bool = True) -> LapelError:
    """Return the error for one of `EXPECTED`, to be raised `from None`.

    `place` names what was asked. `writes`: it may have had an effect. `sent`: any of it may have left this process.
    """
    if isinstance(exc, GoogleAPICallError):
        return _from_answer(exc, place, writes=writes)
    if isinstance(exc, DataCorruption):
        return OperationFailedError(f"{place}: what arrived is not what was sent (checksum); send it again")
    if isinstance(exc, RefreshError) and not exc.retryable:
        return PermissionDeniedError(f"{place}: {_REFUSED_KEY}")
    if isinstance(exc, InvalidOperation):
        return PermissionDeniedError(
            f"{place}: credentials are asked for (401), and none are sent to a plain http endpoint"
        )
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(f"{place}: the server's certificate is not trusted: {cause.verify_message}")
    if isinstance(exc, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader | UnicodeError):
        return InvalidArgumentError(f"{place}: this makes no request that can be sent")
    reason = _reason(exc)
    if isinstance(exc, GoogleAuthError):
        kind = "the token service cannot be reached" if isinstance(exc, TransportError) else "getting a token failed"
        return UnavailableError(f"{place}: {kind}: {reason}; nothing was done")
    if not sent or any(isinstance(each, urllib3.exceptions.ConnectTimeoutError) for each in _causes(exc)):
        return UnavailableError(f"{place}: cannot be reached: {reason}; nothing was done")
    if writes:
        return OutcomeUnknownError(
            f"{place}: the connection was lost before the answer came: {reason}; it may or may not have been done"
        )
    return UnavailableError(f"{place}: the connection was lost: {reason}")


def _from_answer(exc: GoogleAPICallError, place: str, *, writes: bool) -> LapelError:
    code, reason, said = _details(exc)
    match code:
        case 401:
            return PermissionDeniedError(f"{place}: the credentials are not accepted{said}")
        case 403 if reason not in _SLOW_DOWN:
            return PermissionDeniedError(f"{place}: the credentials do not allow this{said}")
        case 403 | 429:
            return ThrottledError(f"{place}: too many requests ({reason or code}); nothing was done")
        case 404 | 410:
            return NotFoundError(f"{place}: not found")
        case 412:
            return EtagMismatchError(f"{place}: the object has another generation, exists already or is gone")
        case 400 if reason == "FAILED_PRECONDITION":
            return NotFoundError(f"{place}: is disabled or destroyed{said}")
        case 413 | 507:
            return StorageError(f"{place}: too large, or no room{said}")
        case 503:
            return UnavailableError(f"{place}: the service does not take requests now (503); nothing was done")
        case 408 | 500 | 502 | 504 if writes:
            return OutcomeUnknownError(f"{place}: the service failed ({code}); it may or may not have been done")
        case 408 | 500 | 502 | 504:
            return UnavailableError(f"{place}: the service failed ({code})")
    return OperationFailedError(f"{place}: refused with {reason or code}{said}")


def _details(exc: GoogleAPICallError) -> tuple[int, str, str]:
    """Return the status, the service's word for the reason, and its own text where it gave one."""
    code = int(exc.code or 500)
    # The library's own text holds the whole URL.
    found: Any = None
    if isinstance(exc.response, requests.Response):
        try:
            found = exc.response.json()["error"]
        except (ValueError, KeyError, TypeError):
            found = None
    if not isinstance(found, Mapping):
        return code, "", ""
    errors = found.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    reason = str((first.get("reason") if isinstance(first, Mapping) else None) or found.get("status") or "")
    message = str(found.get("message") or "")
    return code, reason, f": {message[:_LONGEST]}" if message else ""


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception and what led to it, arguments included: urllib3 and requests put causes there."""
    waiting: list[BaseException] = [exc]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        linked = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        waiting += [each for each in linked if isinstance(each, BaseException)]


def _reason(exc: BaseException) -> str:
    """Return why, in words that hold nothing of the request."""
    name = type(exc).__name__
    for cause in _causes(exc):
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
            return "no answer in time"
        name = type(cause).__name__
    return name
