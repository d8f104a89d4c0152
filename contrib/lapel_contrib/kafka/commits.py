"""Commits of what is finished, as often as there is something and not more often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition

from .errors import name_of
from .offsets import commit_unassigned, note_of
from .partition import Partition

__all__ = ["COMMIT_PAUSE", "REBALANCE_COMMIT_SECONDS", "Commits"]

COMMIT_PAUSE = 0.1
"""Least seconds between two commits."""
COMMIT_SECONDS = 5.0
REBALANCE_COMMIT_SECONDS = 2.0
"""How long a rebalance waits for the commit of what is finished, less where a session is short; what is not committed
by then comes again."""


class Commits:
    """Commits the finished beginning of each of `partitions`, with a note of what is finished beyond it.

    A commit that comes into a rebalance is lost, which is nothing unusual: what stays ours is committed after it, and
    the rest is delivered again to whoever has it.
    """

    def __init__(
        self,
        client: AIOKafkaConsumer,
        partitions: Mapping[TopicPartition, Partition],
        *,
        place: str,
        logger: logging.Logger,
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._place = place
        self._logger = logger
        self._due = asyncio.Event()
        self._lock = asyncio.Lock()

    def soon(self) -> None:
        """Commit within a moment."""
        self._due.set()

    async def now(self, seconds: float = COMMIT_SECONDS, *, joining: bool = False) -> None:
        """Commit at once, and return when the broker has answered. Never raises.

        While the group shares out anew because our topics have changed, the client knows of no partition that is ours,
        although they still are. Nothing is committed then, as it follows soon; but with `joining` it is tried all the
        same.
        """
        async with self._lock:
            given = self._client.assignment()
            # Not as a rule: in the wrong moment of a rebalance it makes the client join once more.
            unassigned = joining and not given
            states = [
                (one, one.mark, one.finished(), one.count)
                for one in self._partitions.values()
                if one.uncommitted and (one.tp in given or unassigned)
            ]
            if not states:
                return
            offsets = {one.tp: (mark, note_of(mark, beyond)) for one, mark, beyond, _ in states}
            try:
                async with asyncio.timeout(seconds):
                    if unassigned:
                        await commit_unassigned(self._client, offsets)
                    else:
                        await self._client.commit(offsets)
            except (CommitFailedError, IllegalStateError):
                self._logger.info("%s: a commit came into a rebalance and is made up for after it", self._place)
                return
            except (KafkaError, TimeoutError) as exc:
                self._logger.warning("%s: a commit failed and is repeated: %s", self._place, name_of(exc))
                self._due.set()
                return
            for one, mark, _, count in states:
                one.committed, one.noted = mark, count

    async def run(self) -> None:
        """Commit whenever it is due, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self.now()
            await asyncio.sleep(COMMIT_PAUSE)
