"""Run handlers for deliveries and decide what becomes of each: done, again later, or given up."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError, Future
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from .schedule import DONE, RUNNING, Held
from .types import Delivery, DispatchPolicy, Dropped, Ordering, Outcome, Reply, Settled, Settlement
from .workers import Worker, Workers, context_changed

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Dispatcher", "Raised"]

DEAD_LETTER_SECONDS = 30.0
POISON_ATTEMPTS = 5
"""From this attempt on, a message that still fails is reported by health."""

_POISON_MEMORY = 60.0
_PREFETCH = 100
_PARKED = 100
_ACK = Settlement.ACK
_SUCCESS = Outcome.SUCCESS


class Raised:
    """What a handler raised, in place of a result. `trace` says whether the log gets the traceback."""

    __slots__ = ("error", "trace")

    def __init__(self, error: BaseException, *, trace: bool = True) -> None:
        self.error = error
        self.trace = trace


class Dispatcher(Workers):
    """The deliveries of one subscription and the workers that handle them. It outlives the consumers that feed it.

    `handler` is called with each delivery and returns what to await; the result is an `Outcome`, None, a `Dropped` or
    a `Reply`. Everything that it raises is a failure of that delivery and leads to a retry; only `KeyboardInterrupt`
    and `SystemExit` go on to the loop. `dead_letter` publishes a delivery that is given up, with the reason.

    A retry goes back to the broker where it redelivers and counts by itself and no order is asked for; else the
    delivery is kept here, counted, and handled again after the back-off, while its key or queue waits with it.

    Must be made on the loop that uses it.
    """

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[Any]],
        policy: DispatchPolicy,
        *,
        name: str,
        logger: logging.Logger,
        owner: object = None,
        dead_letter: Callable[[Held, str], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(policy, name=name, logger=logger, owner=owner)
        self.capacity = self.concurrency + min(self.concurrency, _PREFETCH)
        self.given_up = 0
        self.room_waiter: Future[None] | None = None
        self._handler = handler
        self._dead_letter = dead_letter
        self._watchers: list[Future[None]] = []
        self._poison: tuple[float, int, str] | None = None

    # intake

    @property
    def in_flight(self) -> int:
        """How many deliveries are held: running, queued and waiting for a retry."""
        return self.schedule.active + self.schedule.waiting

    @property
    def poison(self) -> str | None:
        """What keeps failing, in words; None when nothing does."""
        if self._poison is None:
            return None
        since, attempt, reason = self._poison
        if self._loop.time() - since > 2 * self.policy.backoff.maximum + _POISON_MEMORY:
            return None
        return f"a message keeps failing: {reason} at attempt {attempt}"

    def room(self) -> int:
        """Return how many further deliveries may be received now."""
        schedule = self.schedule
        parked = self.capacity if self.policy.ordering is Ordering.ALL else max(_PARKED, 10 * self.capacity)
        return min(self.capacity - schedule.active, parked - schedule.waiting)

    def ready_for_more(self) -> bool:
        """Tell whether it is time to receive: no more is held than can run, so that what is asked for is a batch."""
        return not self._paused and self.schedule.active <= self.capacity // 2 and self.room() > 0

    def accept(self, session: Session, deliveries: Iterable[Delivery]) -> None:
        """Take over what a consumer returned."""
        schedule, held_of, seen, lease = self.schedule, session.held, session.clock(), session.lease_until()
        if schedule.ordered:
            for delivery in deliveries:
                held = held_of[delivery] = Held(delivery, session, delivery.attempt or 1, seen, lease)
                schedule.add(held)
        else:
            ready, before = schedule.ready, len(schedule.ready)
            for delivery in deliveries:
                held = held_of[delivery] = Held(delivery, session, delivery.attempt or 1, seen, lease)
                ready.append(held)
            schedule.active += len(ready) - before
        if not self._waking:
            self._wake()

    def pause(self) -> None:
        """Start no further handlers until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Start handlers again."""
        self._paused = False
        self.make_room()

    def watcher(self) -> Future[None]:
        """Return a future that is done when a delivery or a batch of settlements has ended, or room was made."""
        watcher = self._loop.create_future()
        self._watchers.append(watcher)
        return watcher

    def make_room(self) -> None:
        """Let whoever waits for room, for work, or for the end of a delivery, look again."""
        if self.room_waiter is not None and not self.room_waiter.done() and self.ready_for_more():
            self.room_waiter.set_result(None)
        if self._watchers:
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)
        if self.schedule.ready and not self._waking:
            self._wake()

    # handlers

    @override
    async def _run(self, worker: Worker) -> None:
        schedule, ready, handler = self.schedule, self.schedule.ready, self._handler
        base = copy_context()
        self._waking = False
        while True:
            while not ready or self._paused:
                if not await self._rest(worker):
                    return
            held = self._begin(worker)
            if ready and not self._waking:
                self._wake()
            try:
                result = await handler(held) if held.reason is None else Dropped(held.reason)
            except BaseException as exc:
                result = self._raised(held, exc)
            if (result is None or result is _SUCCESS) and not held.lost:
                # What `_decide` does, without the calls: this is the way of nearly every message.
                held.phase = DONE
                schedule.active -= 1
                if held.lane is not None:
                    schedule.advance(held.lane)
                held.session.settle(Settled(held.delivery, _ACK))
                if self.room_waiter is not None or self._watchers:
                    self.make_room()
            elif self._decide(held, result):
                await self._publish_dead_letter(worker, held)
            worker.work = ()
            if context_changed(base) or self._retires(worker):
                return

    def _begin(self, worker: Worker) -> Held:
        held = self.schedule.ready.popleft()
        held.phase = RUNNING
        held.worker = worker
        worker.work = (held,)
        return held

    def _raised(self, held: Held, error: BaseException) -> Any:
        """Return what an exception of a handler means, or raise it where it is not the handler's business."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.let_go(held)
            raise error
        if isinstance(error, GeneratorExit):
            # Also what a coroutine gets that is destroyed with its loop; it must not await anything after that.
            if not self._loop.is_closed() and self._decide(held, Raised(error)):
                self._park(held, 0.0)
            raise error
        return Raised(error)

    # outcomes

    def _decide(self, held: Held, result: Any) -> bool:
        """Do what a result asks for. True when a dead letter has to be published first; its reason is in `held`."""
        if held.lost:
            self.let_go(held)
        elif result is None or _is(result, Outcome.SUCCESS):
            self._settle(held, Settled(held.delivery, _ACK))
        elif isinstance(result, Reply):
            self._settle(held, Settled(held.delivery, _ACK, reply=result.value))
        elif _is(result, Outcome.DROP):
            return self._give_up(held, "the handler dropped it")
        elif isinstance(result, Dropped):
            return self._give_up(held, result.reason)
        else:
            return self._failed(held, result)
        return False

    def _failed(self, held: Held, result: Any) -> bool:
        error = result.error if isinstance(result, Raised) else None
        if error is not None:
            reason = f"the handler raised {type(error).__name__}"
        elif _is(result, Outcome.RETRY):
            reason = "the handler asked for a retry"
        else:
            reason = f"the handler returned a {type(result).__name__}, which is neither an Outcome nor None"
        policy = self.policy
        if held.attempt >= POISON_ATTEMPTS:
            self._poison = (self._loop.time(), held.attempt, reason)
        last = policy.max_attempts is not None and held.attempt >= policy.max_attempts
        if last and self._stopping:
            # It may have failed only because what it needs is ending as well.
            self.logger.warning("%s: %s while this ends; it will be delivered again", self.name, reason)
            self.let_go(held)
            return False
        if last:
            self.logger.error("%s: %s at attempt %d, the last one", self.name, reason, held.attempt, exc_info=error)
            return self._give_up(held, f"{held.attempt} attempts failed, in the last one {reason}")
        delay = policy.backoff.delay(held.attempt)
        # One traceback is enough; a message that keeps failing would fill the log. A cancellation has none to show.
        shown = held.attempt == 1 and isinstance(result, Raised) and result.trace
        trace = error if shown and not isinstance(error, CancelledError) else None
        text = "%s: %s at attempt %d; again in %.3g s"
        self.logger.warning(text, self.name, reason, held.attempt, delay, exc_info=trace)
        if held.lane is None and held.delivery.attempt is not None and held.session.redelivers:
            self._settle(held, Settled(held.delivery, Settlement.RETRY, delay))
        else:
            held.attempt += 1
            self._park(held, delay)
        return False

    def _give_up(self, held: Held, reason: str) -> bool:
        if self._dead_letter is not None:
            held.reason = reason
            return True
        self.given_up += 1
        if self.policy.broker_dead_letter:
            self._settle(held, Settled(held.delivery, Settlement.DEAD_LETTER))
        else:
            self.logger.warning("%s: a message is gone: %s, and there is no dead-letter topic", self.name, reason)
            self._settle(held, Settled(held.delivery, _ACK))
        return False

    async def _publish_dead_letter(self, worker: Worker, held: Held) -> None:
        assert self._dead_letter is not None
        assert held.reason is not None
        delay = self.policy.backoff.delay(held.attempt)
        try:
            async with asyncio.timeout(DEAD_LETTER_SECONDS):
                await self._dead_letter(held, held.reason)
        except CancelledError:
            if worker.cancelled:
                self.let_go(held)
            else:
                self._park(held, delay)
            raise
        except Exception as exc:
            self.logger.error("%s: no dead letter could be published, again in %.3g s: %s", self.name, delay, exc)
            self._park(held, delay)
            return
        self.given_up += 1
        self._settle(held, Settled(held.delivery, _ACK))

    def _settle(self, held: Held, settled: Settled) -> None:
        self.schedule.finish(held)
        if not held.lost:
            held.session.settle(settled)
        self.make_room()

    def _park(self, held: Held, delay: float) -> None:
        if held.lost or held.leaving or self._stopping:
            self.let_go(held)
            return
        self.schedule.park(held)
        held.worker = None
        held.timer = self._loop.call_later(delay, self._unpark, held)
        self.make_room()

    def _unpark(self, held: Held) -> None:
        self.schedule.unpark(held)
        if not self._waking:
            self._wake()

    # loss

    def let_go(self, held: Held) -> None:
        """Forget a delivery without settling it. One that runs must have come to its end."""
        self._mark_lost(held)
        if held.phase == RUNNING:
            self.schedule.finish(held)
        elif held.phase != DONE:
            self.schedule.remove(held)
        self.make_room()

    def lose(self, held: Held) -> list[Delivery]:
        """Treat a delivery as someone else's: it is not started, or its settlement is suppressed.

        With an order kept, its handler is cancelled and what waits behind it is let go as well, so that two members
        do not work on one key. Returns the latter, to be handed back.
        """
        behind = self.schedule.behind(held)
        for other in reversed(behind):
            self.let_go(other)
        if held.phase != RUNNING:
            self.let_go(held)
        elif self.schedule.ordered:
            self._cancel(held.worker)
        else:
            self._mark_lost(held)
        return [other.delivery for other in behind]

    def detach(self, session: Session) -> None:
        """Lose everything that came from a session; its broker will deliver it again."""
        for held in reversed(list(session.held.values())):
            self.lose(held)

    def hand_back(self, session: Session) -> list[Delivery]:
        """Let go of everything that is not running and return what no handler has begun, for the broker to take."""
        unstarted = self.schedule.take_unstarted(session)
        for held in [*unstarted, *session.held.values()]:
            if held.phase != RUNNING:
                self.let_go(held)
        return [held.delivery for held in unstarted if held.reason is None]

    async def revoke(self, session: Session, deliveries: Iterable[Delivery], seconds: float) -> None:
        """Let go of deliveries that are being taken away: finish what runs in time, drop the rest.

        What fails meanwhile is not tried again here, for others have it by then.
        """
        found = [held for held in map(session.held.get, deliveries) if held is not None]
        running = [held for held in found if held.phase == RUNNING]
        for held in reversed(found):
            if held.phase != RUNNING:
                self.let_go(held)
        for held in running:
            held.leaving = True
        await self._wait_done(running, seconds * 0.6)
        late = [held for held in running if held.phase == RUNNING]
        for held in late:
            self._cancel(held.worker)
        await self._wait_done(late, seconds * 0.2)
        await session.flush(seconds * 0.2)

    @override
    def _mark_lost(self, held: Held) -> None:
        held.lost = True
        held.session.held.pop(held.delivery, None)

    async def _wait_done(self, helds: list[Held], seconds: float) -> None:
        end = self._loop.time() + seconds
        while any(held.phase == RUNNING for held in helds) and (left := end - self._loop.time()) > 0:
            await asyncio.wait((self.watcher(),), timeout=left)


def _is(result: Any, outcome: Outcome) -> bool:
    # Handlers return anything, also what cannot be compared with a text.
    return isinstance(result, str) and result == outcome
