"""What a consumer of a group asks of the server, besides reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any

import msgspec

from lapel.errors import LapelError, OutcomeUnknownError, UnavailableError

from .client import RedisClient
from .errors import ReplyError
from .pubsub_scripts import ACK, EXTEND, FAR_MILLISECONDS, HAND_BACK, HANDED_BACK, LAG, PREFIX, REAP, RECLAIM, TAKE
from .scripts import Argument, Call, Script

__all__ = ["TAKE_COUNT", "Found", "Member", "Terms"]

TAKE_COUNT = 100
"""Most messages in one run of a script."""

Found = tuple[bytes, int, list[bytes]]
"""Id, attempt and fields of a message."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer is for: `lease` and `scan` in seconds, None for never.

    With `most_retries` messages waiting for their next attempt it takes no others.
    """

    topic: str
    group: str
    name: str
    lease: float | None
    scan: float | None
    most_retries: int = 100


class Member:
    """A consumer of a group, as the server knows it: what it claims, keeps and gives back.

    Each method raises `UnavailableError` when no answer came, for all may be done again, and when the group is gone,
    which `group_gone` tells. What brings messages uses connections of the pool, for nobody knows how large they are.
    """

    def __init__(self, client: RedisClient, terms: Terms) -> None:
        self._client = client
        self._topic = terms.topic
        self._own = (terms.group, terms.name)
        self.group_gone = False

    async def take(self, count: int, *, idle: float, held: int) -> tuple[list[Found], bool]:
        """Take what others handed back and, with an idle time in seconds, what the dead have left.

        `held` is how many messages it has already. Also tells whether there is more.
        """
        found, left = await self._claim(TAKE, HANDED_BACK, count, int(idle * 1000), held)
        return found, left > 0 or len(found) >= count

    async def reclaim(self, ids: Sequence[bytes]) -> tuple[list[Found], Sequence[bytes]]:
        """Begin a further attempt of own messages. Also returns those that are left for the next time."""
        if not ids:
            return [], ()
        found, left = await self._claim(RECLAIM, *ids)
        return found, ids[len(ids) - left :]

    async def extend(self, ids: Sequence[bytes]) -> set[bytes]:
        """Begin the lease of own messages anew; return those that are not its own any more."""
        lost: set[bytes] = set()
        for start in range(0, len(ids), TAKE_COUNT):
            lost.update(await self._run(EXTEND, *ids[start : start + TAKE_COUNT]))
        return lost

    async def acknowledge(self, ids: Sequence[bytes]) -> int:
        """Acknowledge those that are its own; return how many are not."""
        return int(await self._run(ACK, *ids))

    async def hand_back(self, ids: Sequence[bytes], *, leave: bool = False) -> None:
        """Let others have messages that were not begun; with `leave` also all others, and end the membership."""
        await self._run(HAND_BACK, HANDED_BACK, FAR_MILLISECONDS, int(leave), *ids)

    async def unknown(self, known: Set[bytes], count: int) -> list[bytes]:
        """Return up to `count` messages that the server gave to it in replies that never came."""
        topic, (group, name), most = self._topic, self._own, len(known) + count
        pending = await self._client.call("XPENDING", topic, group, "-", "+", most, name, key=topic, writes=False)
        return [entry[0] for entry in pending if entry[0] not in known][:count]

    async def reap(self, idle: float) -> None:
        """Delete consumers of ours that hold nothing and have been idle for so many seconds."""
        with self._errors():
            await self._client.run(REAP, [self._topic], [self._own[0], int(idle * 1000), PREFIX])

    async def lag(self) -> int | None:
        """Return how many messages of the group nobody has; None when the server does not know."""
        waiting = await self._client.run(LAG, [self._topic], [self._own[0], HANDED_BACK], writes=False)
        return None if waiting is None else int(waiting)

    async def _run(self, script: Script, *args: Argument) -> Any:
        with self._errors():
            return await self._client.run(script, [self._topic], [*self._own, *args])

    async def _claim(self, script: Script, *args: Argument) -> tuple[list[Found], int]:
        client, topic = self._client, self._topic
        call = Call(script, (topic,), (*self._own, *args))
        with self._errors():
            (reply,) = await client.apart(call, key=topic, timeout=client.options.patience)
            if isinstance(reply, ReplyError):
                raise client.translate(reply) from None
        found, left = reply
        return found, left

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OutcomeUnknownError as exc:
            # Each may be done twice, and what one took is found again, or given back by the close that follows.
            raise UnavailableError(f"{self._client.place}: no answer came while messages were looked after") from exc
        except LapelError as exc:
            if "NOGROUP" in str(exc):
                self.group_gone = True
                raise UnavailableError(f"{self._client.place}: the stream or its consumer group was deleted") from exc
            raise
