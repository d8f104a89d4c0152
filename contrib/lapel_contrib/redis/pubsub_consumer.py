"""One subscription of pubsub.redis."""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import Task
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from lapel.delivery import Consumer, Delivery, Settled, Settlement
from lapel.errors import ClosedError, LapelError, OutcomeUnknownError, UnavailableError, UnsupportedError

from .client import RedisClient
from .pubsub_claims import Claims
from .pubsub_entries import Taken, decode
from .pubsub_member import TAKE_COUNT, Found, Member, Terms
from .pubsub_places import Places
from .pubsub_reader import StreamReader

__all__ = ["RedisConsumer"]

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
_NEVER = float("inf")
_RETRY, _DEAD_LETTER = Settlement.RETRY, Settlement.DEAD_LETTER


class RedisConsumer(Consumer):
    """Reads new messages on a connection of its own, and looks on the shared one for those of others and retries.

    A message that waits for its retry stays with this consumer; should it die, others take the message once the
    lease has passed. Reads under way when `receive` is cancelled go on, and the next `receive` returns what they
    brought, or `pause` and `close` hand it back. `closed` is called once, with whether everything was handed back;
    `handed_back` when there is something for others to take. `places` bounds what several consumers have at work.
    """

    def __init__(
        self,
        client: RedisClient,
        terms: Terms,
        *,
        logger: logging.Logger,
        closed: Callable[[RedisConsumer, bool], None],
        handed_back: Callable[[RedisConsumer], None],
        places: Places | None = None,
    ) -> None:
        self.terms = terms
        self.lease_seconds = self._lease = terms.lease
        self._client = client
        self._logger = logger
        self._on_close = closed
        self._on_hand_back = handed_back
        self._loop = asyncio.get_running_loop()
        self._places = places or Places(None)
        self._reader = StreamReader(client, terms.topic, terms.group, terms.name)
        self._member = Member(client, terms)
        self._claims = Claims(self._member, terms.lease, self._places.freed)
        self._unacknowledged: list[bytes] = []
        self._reading: Task[None] | None = None
        self._looking: Task[None] | None = None
        self._beating: Task[None] | None = None
        self._waker: asyncio.Future[None] | None = None
        self._next_look = self._next_scan = self._next_reap = 0.0
        self._next_read = 0.0
        self._lost_since: float | None = None
        self._recover = False
        self._running = asyncio.Event()
        self._running.set()
        self._closing: Task[None] | None = None
        self._places.join(self)

    @property
    def at_work(self) -> int:
        """How many messages `receive` has returned that are neither settled nor lost."""
        return self._claims.at_work

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        end, claims = self._loop.time() + max_wait, self._claims
        if self._beating is None and self._lease is not None:
            self._beating = self._task(self._beat(self._lease), "keep")
        while True:
            if self._closing is not None:
                raise ClosedError("the subscription is closed")
            if not self._running.is_set():
                if not await self._resumed(end):
                    return ()
                continue
            self._collect()
            if claims.buffer and (batch := await self._unload(max_messages)):
                return batch
            now = self._loop.time()
            if now >= end:
                return ()
            # What is here already goes first.
            room = 0 if claims.buffer else self._places.room(max_messages)
            reads = self._reading is None and not self._recover and now >= self._next_read
            if reads and room > 0 and self._takes_more():
                self._reading = self._task(self._read(room), "read")
            due = max(self._next_read, min(self._next_look, claims.retries.next_due if room > 0 else _NEVER))
            if self._looking is None and now >= due:
                self._looking = self._task(self._look(min(room, TAKE_COUNT)), "look")
            await self._wait(end - now if self._looking is not None else min(end, due) - now)

    async def settle(self, settled: Sequence[Settled]) -> None:
        now, late = self._loop.time(), 0
        sure: list[bytes] = []
        unsure: list[bytes] = []
        claims = self._claims
        held = claims.held
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
                claims.retries.add(id_, now + item.delay)
                self.wake()
            elif taken.sure_until > now:
                sure.append(id_)
            else:
                unsure.append(id_)
        claims.leaving.update(sure, unsure)
        self._places.freed()
        try:
            if sure:
                await self._client.call("XACK", self.terms.topic, self.terms.group, *sure, key=self.terms.topic)
            if unsure:
                late += await self._member.acknowledge(unsure)
        except LapelError as exc:
            # Acknowledged with the next look: they have been handled.
            self._unacknowledged += sure + unsure
            self._next_look = 0.0
            self.wake()
            if isinstance(exc, OutcomeUnknownError):
                raise UnavailableError(f"{self._client.place}: it is not known whether messages were settled") from exc
            raise
        finally:
            claims.leaving.difference_update(sure, unsure)
        if late:
            self._logger.info(
                "topic %r: %d of %d messages were settled after their lease had passed on; they are delivered again",
                self.terms.topic,
                late,
                len(settled),
            )

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        lost = {delivery for delivery in deliveries if not self._claims.holds(delivery)}
        gone = await self._claims.extend(deliveries)
        return [delivery for delivery in deliveries if delivery in lost or delivery.handle.id in gone]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        ids = self._claims.leave(deliveries)
        if not ids:
            return
        try:
            await self._member.hand_back(ids)
        except BaseException:
            # They are found among what is pending; by others, when the lease has passed.
            self._recover = True
            raise
        finally:
            self._claims.leaving.difference_update(ids)
        self._on_hand_back(self)

    async def pause(self) -> None:
        self._running.clear()
        self.wake()
        await self._stop_taking()
        await self._return_buffer()

    async def resume(self) -> None:
        self._reader.allow()
        self._running.set()

    async def lag(self) -> int | None:
        waiting = await self._member.lag()
        return None if waiting is None else waiting + len(self._claims.retries) + len(self._claims.buffer)

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
            rest = [task for task in (self._looking, self._beating) if task is not None]
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest, timeout=1.0)
            unstarted = [delivery.handle.id for delivery in self._claims.buffer]
            had = bool(self._claims.known())
            self._claims.clear()
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._unacknowledged:
                    await self._member.acknowledge(self._unacknowledged)
                await self._member.hand_back(unstarted, leave=True)
            clean = True
            if had:
                self._on_hand_back(self)
        except (LapelError, TimeoutError) as exc:
            self._logger.info("topic %r: messages could not be handed back: %s", self.terms.topic, exc)
        finally:
            self._reader.close()
            self._places.leave(self)
            self._on_close(self, clean)

    async def _stop_taking(self) -> None:
        """End the read, and wait a while for the look, under way. What they bring later they hand back themselves."""
        end = self._loop.time() + CLOSE_SECONDS
        await self._reader.stop(self._reading)
        if self._looking is not None:
            await asyncio.wait((self._looking,), timeout=max(0.0, end - self._loop.time()))
        # What went wrong is of no interest any more.
        for _ in ("look", "read"):
            with suppress(LapelError):
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
        """See to the tasks that have ended. Raises what went wrong with one."""
        for name in ("_looking", "_reading"):
            task: Task[None] | None = getattr(self, name)
            if task is None or not task.done():
                continue
            setattr(self, name, None)
            if task.cancelled():
                self._recover = True
                continue
            try:
                task.result()
            except UnavailableError as exc:
                self._endure(exc)
                continue
            if name == "_reading":
                self._lost_since = None

    def _endure(self, error: UnavailableError) -> None:
        """Try again soon, or raise the error when that has gone on for half a lease, or the group is gone.

        Leases do not depend on connections, and a new consumer would disturb the handlers at work: what they handle
        would be delivered again.
        """
        now = self._loop.time()
        if self._lost_since is None:
            self._lost_since = now
        if self._closing is not None or self._group_gone() or self._lease is None:
            raise error
        if now - self._lost_since >= min(self._lease / 2, ENDURE_SECONDS):
            raise error
        self._logger.info("topic %r: reading is interrupted, trying again: %s", self.terms.topic, error)
        self._recover = True
        self._next_look = self._next_read = now + RETRY_SECONDS

    async def _keep(self, deliveries: list[Delivery]) -> None:
        """Take note of messages that are this consumer's now. When it has paused meanwhile, they go back at once."""
        self._claims.add(deliveries)
        if not self._running.is_set():
            await self._return_buffer()

    async def _unload(self, count: int) -> list[Delivery]:
        """Return messages taken earlier, as many as there is room for, each with most of its lease ahead."""
        claims = self._claims
        if claims.stale():
            try:
                await claims.extend(claims.buffer)
            except UnavailableError as exc:
                self._endure(exc)
                return []
            self._lost_since = None
        count = self._places.room(count)
        batch, claims.buffer = claims.buffer[:count], claims.buffer[count:]
        if batch:
            self._places.taken(self)
        return batch

    async def _return_buffer(self) -> None:
        unstarted, self._claims.buffer = self._claims.buffer, []
        await self.release(unstarted)

    def _takes_more(self) -> bool:
        """Tell whether messages may come in besides those that are this consumer's already."""
        return self._running.is_set() and len(self._claims.retries) < self.terms.most_retries

    async def _read(self, count: int) -> None:
        entries = await self._reader.read(count)
        topic, sure = self.terms.topic, self._claims.sure(self._loop.time())
        await self._keep([decode(topic, id_, fields, 1, sure) for id_, fields in entries])

    async def _look(self, count: int) -> None:
        """Take up to `count` messages: due for a retry, handed back and, at times, what the dead have left."""
        now, member, claims = self._loop.time(), self._member, self._claims
        self._next_look = now + LOOK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
        if self._unacknowledged:
            ids = self._unacknowledged[:]
            await member.acknowledge(ids)
            del self._unacknowledged[: len(ids)]
        room = count
        if room > 0 and self._recover and self._reading is None:
            unknown = await member.unknown({*claims.known(), *self._unacknowledged}, room)
            found, left = await member.reclaim(unknown)
            self._recover = bool(left) or len(unknown) >= room
            room -= await self._bring(found, now)
        if self._running.is_set() and (due := claims.retries.take(now, room)):
            found, left = await member.reclaim(due)
            for id_ in left:
                claims.retries.add(id_, now)
            room -= await self._bring(found, now)
        if room > 0 and self._takes_more():
            scans = self._lease is not None and self.terms.scan is not None and now >= self._next_scan
            idle = (self._lease or 0.0) if scans else 0.0
            found, more = await member.take(room, idle=idle, held=len(claims.held) + len(claims.retries))
            if scans and not more:
                self._next_scan = now + (self.terms.scan or 0)
            room -= await self._bring(found, now)
        if room < count:
            self._next_look = 0.0
        if now >= self._next_reap:
            self._next_reap = now + REAP_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
            await member.reap(max(REAP_IDLE_SECONDS, 2 * (self._lease or 0)))

    async def _bring(self, found: list[Found], since: float) -> int:
        topic, sure = self.terms.topic, self._claims.sure(since)
        await self._keep([decode(topic, id_, fields, attempt, sure) for id_, attempt, fields in found])
        return len(found)

    async def _beat(self, lease: float) -> None:
        """Keep what waits here, for its retry or for `receive`. What is at work is extended by who has it."""
        pause = lease / 3
        while True:
            await asyncio.sleep(pause)
            try:
                await self._claims.extend_waiting()
                pause = lease / 3
            except LapelError as exc:
                self._logger.info("topic %r: what waits could not be kept, trying again: %s", self.terms.topic, exc)
                pause = lease / 12

    def _group_gone(self) -> bool:
        return self._reader.group_gone or self._member.group_gone

    def _task(self, work: Coroutine[Any, Any, None], what: str) -> Task[None]:
        return self._loop.create_task(work, name=f"lapel {what} {self.terms.topic}")
