"""What Vault's answers, and lost connections, mean to a caller.

hvac's own exceptions hold bodies, which may be secret, so they are not used: answers are values, and what is raised
here is chained to nothing.
"""

from __future__ import annotations

import ssl

import msgspec
import requests
from urllib3.exceptions import NewConnectionError

from lapel.errors import (
    LapelError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)

__all__ = ["Reply", "failed", "is_bad_token", "reason_of"]


class _Body(msgspec.Struct):
    errors: list[str] | None = None


class Reply:
    """What came back: an HTTP status and a body. Status 0: nothing came, and `failure` says why."""

    __slots__ = ("content", "failure", "status", "token")

    def __init__(self, status: int, content: bytes, token: str | None, failure: str = "") -> None:
        self.status = status
        self.content = content
        self.token = token
        """The token that was sent; None for a request without one."""
        self.failure = failure

    @classmethod
    def none(cls, failure: str) -> Reply:
        """Return the reply that says that none came."""
        return cls(0, b"", None, failure)

    @property
    def ok(self) -> bool:
        """Whether Vault did what was asked."""
        return 200 <= self.status < 300

    @property
    def errors(self) -> str:
        """The errors that Vault names, in one line. May quote what was sent."""
        try:
            found = msgspec.json.decode(self.content, type=_Body).errors or ()
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ""
        # Go joins several errors to a list with bullets.
        return "; ".join(" ".join(text.replace("*", " ").split()) for text in found)


def is_bad_token(reply: Reply) -> bool:
    """Tell whether Vault refused the token itself, and not what was asked with it. Older ones do not say."""
    return reply.status in (401, 403) and "invalid token" in reply.errors


def failed(reply: Reply, place: str, what: str) -> LapelError:
    """Return the error for a reply that is not `ok`.

    `place` names the server, `what` the thing asked for. Vault is not quoted: it may repeat what it was sent. Every
    request made here may be repeated, so a lost reply means no more than that nothing was learnt.
    """
    status = reply.status
    if not status:
        return UnavailableError(f"{place}: {reply.failure}")
    if status in (401, 403):
        if is_bad_token(reply):
            return PermissionDeniedError(f"{place}: it refused the token; it was revoked, has expired or never was one")
        return PermissionDeniedError(f"{place}: access to {what} is denied; give the token a policy that allows it")
    if status == 404:
        if "no handler for route" in reply.errors:
            return NotFoundError(f"{place}: nothing is mounted where {what} should be; check the path of the engine")
        return NotFoundError(f"{place}: there is no {what}")
    if status == 429:
        return ThrottledError(f"{place}: it asks to slow down; nothing was done. See its rate limit quotas")
    if status == 503:
        return UnavailableError(f"{place}: it is sealed, or a standby without an active node")
    if status == 501:
        return UnavailableError(f"{place}: it is not initialised")
    if status >= 500 or status == 412:
        return UnavailableError(f"{place}: it failed with HTTP status {status}")
    if status in (301, 302, 307, 308):
        return UnavailableError(f"{place}: it redirects to an address that is not followed; name the active server")
    return OperationFailedError(
        f"{place}: it refused {what} with HTTP status {status}; check the path and the kind of the engine"
    )


def reason_of(exc: requests.RequestException, timeout: float) -> str:
    """Say why no reply came, in words that hold nothing of the request."""
    causes = list(_causes(exc))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({cause.verify_message}); see the fields caPem, caPath, caCert and "
                "tlsServerName"
            )
        if isinstance(cause, ssl.SSLError):
            return f"the TLS connection failed ({cause.reason or 'no reason given'})"
    if isinstance(exc, requests.exceptions.SSLError):
        return "the TLS connection failed"
    if isinstance(exc, requests.ConnectTimeout):
        return f"cannot be reached: no connection within {timeout:g} s"
    if isinstance(exc, requests.Timeout):
        return f"no answer within {timeout:g} s"
    reached = not any(isinstance(cause, NewConnectionError) for cause in causes)
    detail = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    start = "the connection was lost" if reached else "cannot be reached"
    return f"{start}: {detail or type(exc).__name__}"


def _causes(exc: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[object] = [exc]
    while waiting:
        current = waiting.pop(0)
        if isinstance(current, BaseException) and not any(current is known for known in found):
            found.append(current)
            # requests and urllib3 wrap: the cause may be chained, an argument, or the `reason`.
            waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return found
