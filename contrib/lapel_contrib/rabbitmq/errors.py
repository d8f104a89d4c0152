"""What the broker's refusals and lost connections mean to a caller."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    UnavailableError,
)

__all__ = ["Cancellation", "broker_text", "refused", "translating", "unreachable", "why_closed"]

_LONGEST = 300
_OPENED = "Connection.OpenOk"


class Cancellation:
    """Tells a cancellation of this task from one that the client library puts into what it leaves behind.

    Make one before an await; ask it when `CancelledError` came out.
    """

    __slots__ = ("_before", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()

    def is_ours(self) -> bool:
        """Whether somebody cancelled this task in the meantime."""
        return self._task is not None and self._task.cancelling() > self._before


@asynccontextmanager
async def translating(place: str, what: str) -> AsyncIterator[None]:
    """Raise our errors for those of the client library. For calls without an effect, or that are made anew anyway.

    Where a connection ends between two frames the library raises a bare `Exception`, so it is every one but our own.
    """
    cancellation = Cancellation()
    try:
        yield
    except asyncio.CancelledError:
        if cancellation.is_ours():
            raise
        raise UnavailableError(f"{place}: the connection was lost during {what}") from None
    except LapelError:
        raise
    except Exception as exc:
        raise refused(place, what, exc) from None


def why_closed(channel: Channel) -> BaseException | None:
    """Return why the broker has closed a channel; None while it has not.

    The library calls the channel closed some steps after it has told the broker that it is. What is sent in between is
    sent on a channel that does not exist, for which the broker ends the connection.
    """
    return channel._close_exception


def refused(place: str, what: str, exc: BaseException) -> LapelError:
    """Return the error for a call that the broker answered by closing the channel, or that got no answer."""
    text = broker_text(exc)
    if isinstance(exc, ChannelAccessRefused):
        return PermissionDeniedError(f"{place}: it does not allow {what}; extend the user's permissions ({text})")
    if isinstance(exc, ChannelPreconditionFailed):
        return InvalidArgumentError(
            f"{place}: {what} failed, because it exists with other properties or because the broker cannot make one "
            f"like this. Set the fields as they were when it was made, or delete it there ({text})"
        )
    if isinstance(exc, ChannelNotFoundEntity):
        return NotFoundError(f"{place}: {what} failed, there is no such thing ({text})")
    if isinstance(exc, ChannelLockedResource):
        return PermissionDeniedError(f"{place}: {what} failed, the queue is exclusive to another connection ({text})")
    if isinstance(exc, TimeoutError):
        return UnavailableError(f"{place}: no answer during {what}")
    if isinstance(exc, AMQPError) and not isinstance(exc, AMQPConnectionError) and text:
        return OperationFailedError(f"{place}: {what} was refused ({text})")
    return UnavailableError(f"{place}: the connection was lost during {what}{f' ({text})' if text else ''}")


def unreachable(place: str, exc: BaseException) -> LapelError:
    """Return the error for a connection that could not be made. Nothing was sent."""
    if isinstance(exc, ProbableAuthenticationError):
        return PermissionDeniedError(f"{place}: it refused the log-in; check user name and password")
    if isinstance(exc, AuthenticationError):
        return PermissionDeniedError(
            f"{place}: it offers no log-in of this kind; check saslExternal, and the broker's mechanisms"
        )
    # Where the library expects the answer to the choice of a virtual host, it does not look at what else came.
    if isinstance(exc, ConnectionNotAllowed) or (isinstance(exc, InvalidFrameError) and _OPENED in str(exc)):
        return PermissionDeniedError(
            f"{place}: it does not let this user into the virtual host, or there is none of that name; "
            "check the path of the address, and the user's permissions"
        )
    cause = exc
    while isinstance(cause.__cause__, OSError):
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UnavailableError(f"{place}: its certificate is not trusted: {cause.verify_message}; check caCert")
    if isinstance(cause, ssl.SSLError):
        return UnavailableError(f"{place}: TLS failed: {cause.reason or type(cause).__name__}; nothing was done")
    if isinstance(exc, TimeoutError):
        return UnavailableError(f"{place}: no connection in time; nothing was done")
    if isinstance(exc, StopAsyncIteration) or isinstance(exc.__cause__, EOFError):
        return UnavailableError(f"{place}: the connection was closed during the log-in; nothing was done")
    reason = getattr(cause, "strerror", None) or type(cause).__name__
    return UnavailableError(f"{place}: cannot be reached: {reason}; nothing was done")


def broker_text(exc: BaseException) -> str:
    """Return the broker's own words, which name entities and settings and quote no message."""
    words = [part for part in exc.args if isinstance(part, str)] if isinstance(exc, AMQPError) else []
    return " ".join(words)[:_LONGEST]
