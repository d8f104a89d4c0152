"""What Redis' error replies and lost connections mean to a caller."""

from __future__ import annotations

from collections.abc import Callable

from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    PermissionDeniedError,
    StorageError,
    ThrottledError,
    UnavailableError,
)

__all__ = ["ReplyError", "lost", "translate", "unreachable", "with_code"]

_LONGEST = 200


class ReplyError(Exception):
    """An error reply as the server sent it. `code` is its first word, such as `WRONGTYPE`.

    The text may quote arguments, so it is not for applications: `translate` makes an error of it that is.
    """

    @property
    def code(self) -> str:
        """The first word; `ERR` for errors without a code of their own."""
        return str(self).partition(" ")[0]


_PERMISSION = {
    "NOAUTH": "it wants a log-in; set redisPassword, and redisUsername for a user of the ACL",
    "WRONGPASS": "it refused the log-in; check redisUsername and redisPassword, and that the user is on",
    "NOPERM": "the user may not do this; extend the commands, keys or channels of the user in the server's ACL",
    "DENIED": "it accepts no connection from here; check protected-mode and bind of the server",
}
_STORAGE = {
    "OOM": "its memory is full; raise maxmemory, let it evict keys, or remove some",
    "READONLY": "it is a replica and takes no writes; name the primary, or use sentinels or a cluster",
    "MISCONF": "it takes no writes because it cannot save to its disk; look at its log",
    "NOREPLICAS": "it takes no writes because too few replicas are connected (min-replicas-to-write)",
}
_LATER = {
    "BUSY": "a script keeps it busy",
    "CLUSTERDOWN": "the cluster is down or does not serve this key now",
    "LOADING": "it is still loading its data",
    "MASTERDOWN": "its link to the primary is down",
    "MOVED": "the slot of the key moved again while the cluster was asked for it",
    "ASK": "the slot of the key is moving",
    "TRYAGAIN": "the slot of the keys is moving",
    "UNBLOCKED": "it stopped the wait because its role changed",
}
_MEANINGS: dict[str, tuple[Callable[[str], LapelError], str]] = {
    **{code: (PermissionDeniedError, text) for code, text in _PERMISSION.items()},
    **{code: (StorageError, text) for code, text in _STORAGE.items()},
    **{code: (UnavailableError, f"{text}; nothing was done") for code, text in _LATER.items()},
    "CROSSSLOT": (InvalidArgumentError, "the keys are in different slots; give them the same {tag}"),
    "NOTBUSY": (OperationFailedError, "no script is running"),
}


def translate(error: ReplyError, place: str, *, failover: bool = False) -> LapelError:
    """Choose the error of lapel for an error reply; raise it `from None`, for the reply may quote arguments.

    `place` names the server. With `failover` the address of the primary is looked up again, so that a replica is no
    more than an inconvenience.
    """
    code, text = error.code, str(error)
    if code == "READONLY" and failover:
        return UnavailableError(f"{place}: the primary became a replica, the new one is looked up; nothing was done")
    if code == "ERR":
        if "max number of clients" in text:
            return ThrottledError(f"{place}: it has as many clients as it allows (maxclients); nothing was done")
        if "DISABLED" in text or "no password is set" in text or "without any password configured" in text:
            return PermissionDeniedError(f"{place}: it has no password; remove redisPassword or set one at the server")
        if "user executing the script" in text or "ACL failure in script" in text:
            return PermissionDeniedError(f"{place}: {_PERMISSION['NOPERM']} ({_shown(text)})")
        if "invalid DB index" in text or "DB index is out of range" in text or "SELECT is not allowed" in text:
            return InvalidArgumentError(f"{place}: it has no database of that number; check redisDB")
    cls, meaning = _MEANINGS.get(code, (OperationFailedError, "it refused the command"))
    if cls is OperationFailedError:
        return OperationFailedError(f"{place}: {meaning} ({_shown(text)})")
    return cls(f"{place}: {meaning} ({code})")


def with_code(text: str) -> str:
    """Put the code `ERR` back that redis-py takes off, unless the text has another one."""
    return text if text.partition(" ")[0] in _MEANINGS else f"ERR {text}"


def unreachable(place: str, exc: BaseException | None) -> UnavailableError:
    """Return the error for a connection that could not be made. Nothing was sent."""
    if exc is None or isinstance(exc, TimeoutError):
        reason = "no connection within dialTimeout"
    else:
        reason = str(exc) or type(exc).__name__
    return UnavailableError(f"{place}: cannot be reached: {reason}; nothing was done")


def lost(place: str, *, writes: bool, timed_out: bool) -> LapelError:
    """Return the error for a command that was sent and not answered."""
    reason = "no answer within readTimeout" if timed_out else "the connection was lost before the answer came"
    if not writes:
        return UnavailableError(f"{place}: {reason}; it was a read, so nothing was done")
    cls = OutcomeUnknownTimeoutError if timed_out else OutcomeUnknownError
    return cls(f"{place}: {reason}; the write may or may not have been done. Read the item back")


def _shown(text: str) -> str:
    # `unknown command 'X', with args beginning with: ...` quotes what was written.
    return text.partition(", with args")[0][:_LONGEST]
