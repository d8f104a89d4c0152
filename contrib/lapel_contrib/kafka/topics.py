"""The topics that a member has told its group. Each change of them has the whole group share out anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener

from .commits import Commits

__all__ = ["LINGER_SECONDS", "Topics"]

LINGER_SECONDS = 3.0
"""How long a topic that nobody here wants any more stays ours: others often end with it, or it is wanted again."""
_CHANGE_PAUSE = 0.01
_CHANGE_SECONDS = 2.0


class Topics:
    """Tells the group which topics are ours. `wanted` says what is wanted here.

    A topic that is new is told at once. One that is wanted no more is given back later, or together with the next new
    one, and not before what was finished of it is committed: `release` lets go of topics, and returns those of them
    that it has to keep for that.
    """

    def __init__(
        self, wanted: Callable[[], frozenset[str]], release: Callable[[frozenset[str]], frozenset[str]]
    ) -> None:
        self.assigned = asyncio.Event()
        """Set while the group's last answer is for the topics that were told last."""
        self._wanted = wanted
        self._release = release
        self._told: frozenset[str] = frozenset()
        self._joining = False
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Look again at what is wanted."""
        self._changed.set()

    def is_ours(self) -> bool:
        """Tell, once, whether the rebalance that begins is because of a change of our topics."""
        ours, self._joining = self._joining, False
        return ours

    def answered(self) -> None:
        """Note that the group has given us partitions; `assigned` is set when we have begun with them."""
        self._joining = False

    async def tell(self, client: AIOKafkaConsumer, commits: Commits, listener: ConsumerRebalanceListener) -> None:
        """Tell the group which topics are ours, and again when that has changed, for ever."""
        loop = asyncio.get_running_loop()
        due: float | None = None
        while True:
            await self._change(None if due is None else due - loop.time())
            wanted = self._wanted()
            if not wanted or wanted == self._told:
                due = None
                continue
            if wanted < self._told:
                if due is None or not self.assigned.is_set():
                    due = loop.time() + LINGER_SECONDS
                if loop.time() < due:
                    continue
            await commits.now()
            self._tell(client, listener)
            due = None if self._told == self._wanted() else loop.time() + LINGER_SECONDS
            # A change in the middle of a rebalance begins it anew.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHANGE_SECONDS):
                    await self.assigned.wait()

    async def _change(self, seconds: float | None) -> None:
        """Wait for a change, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
                # Those that follow at once share the rebalance.
                await asyncio.sleep(_CHANGE_PAUSE)
        self._changed.clear()

    def _tell(self, client: AIOKafkaConsumer, listener: ConsumerRebalanceListener) -> None:
        wanted = self._wanted()
        if not wanted:
            return
        topics = wanted | self._release(self._told - wanted)
        if topics != self._told:
            self.assigned.clear()
            self._told, self._joining = topics, True
            client.subscribe(sorted(topics), listener=listener)
