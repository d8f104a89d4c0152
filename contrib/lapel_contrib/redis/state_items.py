"""What goes into the scripts of state.redis, and what comes out of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lapel.errors import EtagInvalidError, LapelError, UnavailableError
from lapel.state.types import IfMatch, Precondition, StateItem

from .client import RedisClient
from .errors import ReplyError
from .options import Address
from .state_scripts import ABSENT, ANY

__all__ = ["Item", "count_replicas", "expected_of", "has_commands", "item_of", "one", "written"]

ETAG_DIGITS = 19
_WILL_NOT_TELL = ("ERR", "NOPERM")
"""What a server says that lacks a command, or a user that may not use it."""

Item = StateItem | LapelError | None


def one(item: Item) -> StateItem | None:
    """Return an item, or raise what is in its place."""
    if isinstance(item, LapelError):
        raise item
    return item


def expected_of(precondition: Precondition | None) -> str:
    """Return what a script compares with. Raises `EtagInvalidError`."""
    if precondition is None:
        return ANY
    if not isinstance(precondition, IfMatch):
        return ABSENT
    etag = precondition.etag
    if not (etag.isascii() and etag.isdigit() and len(etag) <= ETAG_DIGITS):
        raise EtagInvalidError(f"etag {etag[:40]!r} is not one of Redis, which are whole numbers; pass it as returned")
    return etag


def item_of(reply: list[Any]) -> StateItem:
    """Build an item from what the script for reading returns."""
    data, version, ends = reply[:3]
    expires_at = datetime.fromtimestamp(ends / 1000, UTC) if ends > 0 else None
    return StateItem(data=data, etag=None if version is None else version.decode(), expires_at=expires_at)


def written(reply: Any) -> bool:
    """Tell whether a script did what was asked for one key: it returns the new etag, or 0 for a deletion."""
    return type(reply) is bytes or reply == 0


async def has_commands(client: RedisClient, *names: str) -> list[bool]:
    """Tell which commands the server has; none when it does not tell."""
    primaries = client.primaries
    if not primaries:
        raise UnavailableError(f"{client.place}: no node serves any slot; check its state with CLUSTER INFO")
    (reply,) = await client.apart(("COMMAND", "INFO", *names), node=primaries[0], writes=False)
    if isinstance(reply, ReplyError):
        if reply.code not in _WILL_NOT_TELL:
            raise client.translate(reply) from None
        return [False] * len(names)
    return [entry is not None and entry != [] for entry in reply]


async def count_replicas(client: RedisClient, node: Address | None) -> int:
    """Return how many replicas are connected to a server; 0 when it does not tell."""
    (reply,) = await client.apart(("INFO", "replication"), node=node, writes=False)
    if isinstance(reply, ReplyError):
        if reply.code not in _WILL_NOT_TELL:
            raise client.translate(reply) from None
        return 0
    for line in reply.decode().splitlines():
        name, _, value = line.partition(":")
        if name == "connected_slaves":
            return int(value)
    return 0
