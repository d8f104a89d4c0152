"""One subscription of pubsub.redis."""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import Task
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from lapel.delivery import Consumer, Delivery, Settled, Settlement
from lapel.errors import ClosedError, LapelError, OutcomeUnknownError, UnavailableError, UnsupportedError

from .client import RedisClient
from .pubsub_entries import Taken, decode
from .pubsub_reader import StreamReader
from .pubsub_scripts import ACK, EXTEND, FAR_MILLISECONDS, HAND_BACK, HANDED_BACK, LAG, PREFIX, REAP, RECLAIM, TAKE
from .scripts import Argument, Script

__all__ = ["RedisConsumer", "Terms"]

CLOSE_SECONDS = 2.0
"""How long handing back may take when the consumer closes."""
LOOK_SECONDS = 0.5
"""How often an idle consumer looks for what others handed back."""
ENDURE_SECONDS = 5.0
"""How long the server may be out of reach before the subscription begins anew."""
RETRY_SECONDS = 0.05
REAP_SECONDS = 300.0
"""How often each consumer deletes dead ones that have nothing pending."""
REAP_IDLE_SECONDS = 600.0
TAKE_COUNT = 100
"""Most messages in one run of a script."""
_NEVER = float("inf")
_RETRY, _DEAD_LETTER = Settlement.RETRY, Settlement.DEAD_LETTER


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer is for: `lease` and `scan` in seconds, None for never."""

    topic: str
    group: str
    name: str
    lease: float | None
    scan: float | None


class RedisConsumer(Consumer):
    """Reads new messages on a connection of its own, and looks on the shared one for those of others and retries.

    A message that waits for its retry stays with this consumer; should it die, others take the message once the
    lease has passed. Reads under way when `receive` is cancelled go on, and the next `receive` returns what they
    brought. `closed` is called once, with whether everything was handed back; `handed_back` when there is something
    for others to take.
    """

    def __init__(
        self,
        client: RedisClient,
        terms: Terms,
        *,
        logger: logging.Logger,
        closed: Callable[[RedisConsumer, bool], None],
        handed_back: Callable[[RedisConsumer], None],
    ) -> None:
        self.terms = terms
        self.lease_seconds = self._lease = terms.lease
        self._client = client
        self._logger = logger
        self._on_close = closed
        self._on_hand_back = handed_back
        self._loop = asyncio.get_running_loop()
        self._reader = StreamReader(client, terms.topic, terms.group, terms.name)
        self._held: dict[bytes, Taken] = {}
        self._delayed: dict[bytes, float] = {}
        self._unacknowledged: list[bytes] = []
        self._settling: set[bytes] = set()
        self._buffer: list[Delivery] = []
        self._buffered_at = 0.0
        self._reading: Task[list[Delivery]] | None = None
        self._looking: Task[list[Delivery]] | None = None
        self._waker: asyncio.Future[None] | None = None
        self._next_look = self._next_scan = self._next_reap = self._next_beat = 0.0
        self._next_read = 0.0
        self._lost_since: float | None = None
        self._recover = False
        self._running = asyncio.Event()
        self._running.set()
        self._closing: Task[None] | None = None

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        end = self._loop.time() + max_wait
        while True:
            if self._closing is not None:
                raise ClosedError("the subscription is closed")
            if not self._running.is_set():
                if not await self._resumed(end):
                    return ()
                continue
            self._collect()
            if self._buffer and (batch := await self._unload(max_messages)):
                return batch
            now = self._loop.time()
            if now >= end:
                return ()
            if self._reading is None and not self._recover and now >= self._next_read:
                self._reading = self._task(self._read(max_messages), "read")
            due = max(self._next_read, min(self._next_look, min(self._delayed.values(), default=_NEVER)))
            if self._looking is None and now >= due:
                self._looking = self._task(self._look(min(max_messages, TAKE_COUNT)), "look")
            await self._wait(end - now if self._looking is not None else min(end, due) - now)

    async def settle(self, settled: Sequence[Settled]) -> None:
        now, late = self._loop.time(), 0
        sure: list[bytes] = []
        unsure: list[bytes] = []
        held = self._held
        for item in settled:
            taken: Taken = item.delivery.handle
            settlement = item.settlement
            if settlement is _DEAD_LETTER:
                raise UnsupportedError("lapel publishes dead letters; a stream has no place of its own for them")
            id_ = taken.id
            if held.get(id_) is not taken:
                late += 1
                continue
            del held[id_]
            if settlement is _RETRY:
                self._delayed[id_] = now + item.delay
                self.wake()
            elif taken.sure_until > now:
                sure.append(id_)
            else:
                unsure.append(id_)
        self._settling.update(sure, unsure)
        try:
            if sure:
                await self._client.call("XACK", self.terms.topic, self.terms.group, *sure, key=self.terms.topic)
            if unsure:
                late += await self._run(ACK, *self._own(), *unsure)
        except LapelError as exc:
            # Acknowledged with the next look: they have been handled.
            self._unacknowledged += sure + unsure
            self._next_look = 0.0
            self.wake()
            if isinstance(exc, OutcomeUnknownError):
                raise UnavailableError(f"{self._client.place}: it is not known whether messages were settled") from exc
            raise
        finally:
            self._settling.difference_update(sure, unsure)
        if late:
            self._logger.info(
                "topic %r: %d of %d messages were settled after their lease had passed on; they are delivered again",
                self.terms.topic,
                late,
                len(settled),
            )

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        mine = [delivery for delivery in deliveries if self._holds(delivery)]
        began = self._loop.time()
        lost = await self._extend([*(delivery.handle.id for delivery in mine), *self._delayed])
        for delivery in mine:
            taken: Taken = delivery.handle
            if taken.id not in lost:
                taken.sure_until = self._sure(began)
            elif self._holds(delivery):
                del self._held[taken.id]
        return [delivery for delivery in deliveries if delivery.handle.id in lost or delivery not in mine]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        ids = [delivery.handle.id for delivery in deliveries if self._holds(delivery)]
        if not ids:
            return
        await self._run(HAND_BACK, *self._own(), HANDED_BACK, FAR_MILLISECONDS, 0, *ids)
        for id_ in ids:
            self._held.pop(id_, None)
        self._on_hand_back(self)

    async def pause(self) -> None:
        self._running.clear()
        self.wake()
        await self._stop_taking()
        unstarted, self._buffer = self._buffer, []
        await self.release(unstarted)

    async def resume(self) -> None:
        self._reader.allow()
        self._running.set()

    async def lag(self) -> int | None:
        waiting = await self._client.run(LAG, [self.terms.topic], [self.terms.group, HANDED_BACK], writes=False)
        return None if waiting is None else int(waiting) + len(self._delayed) + len(self._buffer)

    def look_now(self) -> None:
        """Look at once for what others have handed back."""
        self._next_look = 0.0
        self.wake()

    def wake(self) -> None:
        """Let `receive` look again at what it waits for."""
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name=f"lapel close {self.terms.topic}")
        await asyncio.shield(self._closing)

    # inside

    async def _close(self) -> None:
        self.wake()
        clean = False
        try:
            await self._stop_taking()
            self._reader.close()
            unstarted = [delivery.handle.id for delivery in self._buffer]
            had = bool(self._held or self._delayed)
            self._buffer.clear()
            self._held.clear()
            self._delayed.clear()
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._unacknowledged:
                    await self._run(ACK, *self._own(), *self._unacknowledged)
                await self._run(HAND_BACK, *self._own(), HANDED_BACK, FAR_MILLISECONDS, 1, *unstarted)
            clean = True
            if had or unstarted:
                self._on_hand_back(self)
        except (LapelError, TimeoutError) as exc:
            self._logger.info("topic %r: messages could not be handed back: %s", self.terms.topic, exc)
        finally:
            self._reader.close()
            self._on_close(self, clean)

    async def _stop_taking(self) -> None:
        await self._reader.stop(self._reading)
        if self._looking is not None:
            await asyncio.wait((self._looking,), timeout=CLOSE_SECONDS)
            self._looking.cancel()
        # What went wrong is of no interest any more; what it took is handed back.
        with suppress(LapelError, asyncio.CancelledError):
            self._collect()
        with suppress(LapelError, asyncio.CancelledError):
            self._collect()

    async def _resumed(self, end: float) -> bool:
        try:
            async with asyncio.timeout_at(end):
                await self._running.wait()
        except TimeoutError:
            return False
        return True

    async def _wait(self, seconds: float) -> None:
        self._waker = self._loop.create_future()
        pending = [task for task in (self._reading, self._looking, self._waker) if task is not None]
        try:
            await asyncio.wait(pending, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waker = None

    def _collect(self) -> None:
        """Keep what the tasks have brought. Raises what went wrong with one."""
        for name in ("_looking", "_reading"):
            task: Task[list[Delivery]] | None = getattr(self, name)
            if task is None or not task.done():
                continue
            setattr(self, name, None)
            try:
                found = task.result()
            except UnavailableError as exc:
                self._endure(exc)
                continue
            if name == "_reading":
                self._lost_since = None
            if not self._buffer:
                self._buffered_at = self._loop.time()
            held = self._held
            for delivery in found:
                taken = delivery.handle
                held[taken.id] = taken
            self._buffer += found

    def _endure(self, error: UnavailableError) -> None:
        """Try again soon, or raise the error when that has gone on for half a lease, or the group is gone.

        Leases do not depend on connections, and a new consumer would disturb the handlers at work: what they handle
        would be delivered again.
        """
        now = self._loop.time()
        if self._lost_since is None:
            self._lost_since = now
        if self._closing is not None or self._reader.group_gone or self._lease is None:
            raise error
        if now - self._lost_since >= min(self._lease / 2, ENDURE_SECONDS):
            raise error
        self._logger.info("topic %r: reading is interrupted, trying again: %s", self.terms.topic, error)
        self._recover = True
        self._next_look = self._next_read = now + RETRY_SECONDS

    async def _unload(self, count: int) -> list[Delivery]:
        """Return messages taken earlier, each with most of its lease ahead."""
        if self._lease is not None and self._loop.time() - self._buffered_at > self._lease / 4:
            await self.extend(self._buffer)
            self._buffered_at = self._loop.time()
            self._buffer = [delivery for delivery in self._buffer if self._holds(delivery)]
        batch, self._buffer = self._buffer[:count], self._buffer[count:]
        return batch

    async def _read(self, count: int) -> list[Delivery]:
        entries = await self._reader.read(count)
        topic, sure = self.terms.topic, self._sure(self._loop.time())
        return [decode(topic, id_, fields, 1, sure) for id_, fields in entries]

    async def _look(self, count: int) -> list[Delivery]:
        """Take what is due for a retry, what was handed back and, at times, what the dead have left."""
        now, terms = self._loop.time(), self.terms
        self._next_look = now + LOOK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
        if self._unacknowledged:
            ids = self._unacknowledged[:]
            await self._run(ACK, *self._own(), *ids)
            del self._unacknowledged[: len(ids)]
        found: list[Any] = []
        if self._recover and self._reading is None:
            found += await self._run(RECLAIM, *self._own(), *await self._unknown(count))
            self._recover = len(found) >= count
        due = [id_ for id_, time in self._delayed.items() if time <= now][: count - len(found)]
        if due:
            for id_ in due:
                del self._delayed[id_]
            found += await self._run(RECLAIM, *self._own(), *due)
        room, scans = count - len(found), False
        if room > 0:
            scans = self._lease is not None and terms.scan is not None and now >= self._next_scan
            idle = int((self._lease or 0) * 1000) if scans else 0
            others = await self._run(TAKE, *self._own(), HANDED_BACK, room, idle, len(self._held) + len(self._delayed))
            found += others
            if len(others) < room and scans:
                self._next_scan = now + (terms.scan or 0)
        if found:
            self._next_look = 0.0
        await self._keep_house(now)
        sure = self._sure(self._loop.time())
        for id_, _, _ in found:
            self._delayed.pop(id_, None)
        return [decode(terms.topic, id_, fields, attempt, sure) for id_, attempt, fields in found]

    async def _unknown(self, count: int) -> list[bytes]:
        """Return messages that the server gave to this consumer in replies that never came."""
        known = {*self._held, *self._delayed, *self._unacknowledged, *self._settling}
        topic, (group, name) = self.terms.topic, self._own()
        most = len(known) + count
        pending = await self._client.call("XPENDING", topic, group, "-", "+", most, name, key=topic, writes=False)
        return [entry[0] for entry in pending if entry[0] not in known][:count]

    async def _keep_house(self, now: float) -> None:
        if self._delayed and self._lease is not None and now >= self._next_beat:
            self._next_beat = now + self._lease / 3
            for id_ in await self._extend(list(self._delayed)):
                self._delayed.pop(id_, None)
        if now >= self._next_reap:
            self._next_reap = now + REAP_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
            idle = max(REAP_IDLE_SECONDS, 2 * (self._lease or 0))
            await self._run(REAP, self.terms.group, int(idle * 1000), PREFIX)

    async def _extend(self, ids: Sequence[bytes]) -> set[bytes]:
        lost: set[bytes] = set()
        for start in range(0, len(ids), TAKE_COUNT):
            lost.update(await self._run(EXTEND, *self._own(), *ids[start : start + TAKE_COUNT]))
        return lost

    async def _run(self, script: Script, *args: Argument) -> Any:
        try:
            return await self._client.run(script, [self.terms.topic], args)
        except OutcomeUnknownError as exc:
            # Each may be done twice, and what one took is given back by the close that follows.
            raise UnavailableError(f"{self._client.place}: no answer came while messages were looked after") from exc
        except LapelError as exc:
            if "NOGROUP" in str(exc):
                self._reader.group_gone = True
                raise UnavailableError(f"{self._client.place}: the stream or its consumer group was deleted") from exc
            raise

    def _own(self) -> tuple[str, str]:
        return self.terms.group, self.terms.name

    def _sure(self, since: float) -> float:
        return _NEVER if self._lease is None else since + self._lease / 2

    def _holds(self, delivery: Delivery) -> bool:
        return self._held.get(delivery.handle.id) is delivery.handle

    def _task(self, work: Any, what: str) -> Task[list[Delivery]]:
        return self._loop.create_task(work, name=f"lapel {what} {self.terms.topic}")
