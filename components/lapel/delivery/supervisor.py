"""Keep one subscription armed, whatever happens to its broker."""

from __future__ import annotations

import asyncio
import random
from asyncio import CancelledError, Task
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context

from ..component import Health, HealthState
from ..errors import UnavailableError
from .consumer import Consumer, Revoked
from .dispatcher import Dispatcher
from .session import CLOSE_SECONDS, Session, describe
from .types import Delivery

__all__ = ["MAX_WAIT", "Supervisor"]

MAX_WAIT = 5.0
"""How long one `receive` may find nothing; also the interval at which progress is checked."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
"""With the time that arming takes, messages flow again within ten seconds of the return of a broker."""


class Supervisor:
    """A subscription as a desired state: once `start` has succeeded it is restored after every outage, until `aclose`.

    `subscribe` arms a consumer. When its `receive` fails or does not return within `max_wait` + `margin` seconds, the
    consumer is closed and a new one armed, with growing pauses of at most 5 s, for ever. `arm_timeout` bounds each
    attempt. `on_tick` is called every `max_wait` seconds while connected.
    """

    def __init__(
        self,
        subscribe: Callable[[Revoked], Awaitable[Consumer]],
        dispatcher: Dispatcher,
        *,
        arm_timeout: float,
        max_wait: float = MAX_WAIT,
        margin: float = MAX_WAIT,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        self.state = HealthState.INIT
        self.reason: str | None = None
        self.reconnects = 0
        self._subscribe = subscribe
        self._dispatcher = dispatcher
        self._arm_timeout = arm_timeout
        self._max_wait = max_wait
        self._margin = margin
        self._on_tick = on_tick
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._task: Task[None] | None = None
        self._closing: Task[None] | None = None
        self._paused = False
        self._on_closed: Callable[[], None] | None = None

    async def start(self) -> None:
        """Arm the subscription for the first time. Raises what that raises, and leaves nothing behind then."""
        self._begin(await self._arm())
        # An empty context: the supervisor works for everybody, not for the caller's trace or task-local state.
        self._task = self._loop.create_task(
            self._supervise(), name=f"lapel supervise {self._dispatcher.name}", context=Context()
        )

    async def pause(self) -> None:
        """Start no handlers and take nothing in until `resume`. Idempotent; an outage does not end it."""
        self._paused = True
        self._dispatcher.pause()
        if self._session is not None:
            await self._quietly(self._session.consumer.pause(), "pause")

    async def resume(self) -> None:
        """Go on after `pause`. Idempotent."""
        self._paused = False
        if self._session is not None:
            await self._quietly(self._session.consumer.resume(), "resume")
        self._dispatcher.resume()

    @property
    def paused(self) -> bool:
        """Whether `pause` is in force."""
        return self._paused

    async def lag(self) -> int | None:
        """Return how many messages wait in the broker; None when it does not tell or is not connected."""
        if self._session is None:
            return None
        async with asyncio.timeout(self._arm_timeout):
            return await self._session.consumer.lag()

    def measurements(self) -> Mapping[str, int]:
        """Return the numbers for metrics: those of the dispatcher, and what the consumer has under its own names."""
        own = {"in_flight": self._dispatcher.in_flight, "reconnects": self.reconnects}
        return own if self._session is None else {**own, **self._session.consumer.measurements()}

    def health(self) -> Health:
        """Return the state, judged by the progress of the receive loop."""
        dispatcher, session = self._dispatcher, self._session
        state, reason = self.state, self.reason
        if state is HealthState.READY and dispatcher.poison:
            state, reason = HealthState.DEGRADED, dispatcher.poison
        details: dict[str, object] = {
            "in_flight": dispatcher.in_flight,
            "running": dispatcher.running,
            "given_up": dispatcher.given_up,
            "abandoned": dispatcher.abandoned,
            "reconnects": self.reconnects,
            "paused": self._paused,
        }
        if session is not None and session.progress is not None:
            details["seconds_since_receive"] = round(self._loop.time() - session.progress, 3)
        return Health(state=state, reason=reason, details=details)

    async def aclose(self) -> None:
        """Stop: take nothing in, hand back what was not started, wait for handlers up to the deadline, and leave.

        Idempotent, always returns, may be called from several tasks. Called by one of its own handlers it waits for
        the other handlers only; the rest is done once that handler has ended.
        """
        closing = self.close_soon()
        own = self._dispatcher.own_workers()
        if own:
            await self._dispatcher.wait_for_others(own)
        else:
            await asyncio.shield(closing)

    def on_closed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once the subscription has ended."""
        self._on_closed = callback
        if self._closing is not None and self._closing.done():
            callback()

    def close_soon(self) -> Task[None]:
        """Stop starting handlers now and return the task that does the rest of `aclose`."""
        if self._closing is None:
            self.state, self.reason = HealthState.CLOSED, None
            self._dispatcher.stop_starting()
            self._closing = self._loop.create_task(
                self._close(), name=f"lapel close {self._dispatcher.name}", context=Context()
            )
        return self._closing

    # inside

    async def _arm(self) -> Session:
        session: Session | None = None

        async def revoked(deliveries: Sequence[Delivery], seconds: float) -> None:
            if session is not None:
                await self._dispatcher.revoke(session, deliveries, seconds)

        limit = asyncio.timeout(self._arm_timeout)
        try:
            async with limit:
                consumer = await self._subscribe(revoked)
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise UnavailableError(f"the subscription was not armed within {self._arm_timeout:g} s") from exc
        session = Session(
            consumer, self._dispatcher, max_wait=self._max_wait, margin=self._margin, on_tick=self._on_tick
        )
        if self._paused:
            await self._quietly(consumer.pause(), "pause")
        return session

    def _begin(self, session: Session) -> None:
        self._session = session
        self.state, self.reason = HealthState.READY, None
        session.start()

    async def _supervise(self) -> None:
        name, logger = self._dispatcher.name, self._dispatcher.logger
        failures = 0
        while True:
            session = self._session
            assert session is not None
            # Not awaited itself: cancelling this task would cancel the future, which the stop still needs.
            await asyncio.wait((session.ended,))
            error = session.ended.result()
            if error is None:
                self.reason = "the source has come to its end"
                return
            self._lost(error)
            logger.warning("%s lost its broker and subscribes anew: %s", name, self.reason)
            self._dispatcher.detach(session)
            await session.close()
            self._session = None
            if session.progress is not None:
                failures = 0
            failures = await self._restore(failures)
            self.reconnects += 1
            logger.info("%s is subscribed again", name)

    async def _restore(self, failures: int) -> int:
        """Try until a consumer is armed; return how many pauses that took, and `failures` before."""
        while True:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 16))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            failures += 1
            try:
                session = await self._arm()
            except CancelledError as exc:
                if self._task is None or self._task.cancelling():
                    raise
                self._lost(exc)
            except Exception as exc:
                before = self.reason
                self._lost(exc)
                if self.reason != before:
                    self._dispatcher.logger.warning("%s: %s", self._dispatcher.name, self.reason)
            else:
                self._begin(session)
                return failures

    def _lost(self, error: BaseException) -> None:
        if self._closing is None:
            self.state = HealthState.RECONNECTING
        self.reason = describe(error)

    async def _close(self) -> None:
        dispatcher, task = self._dispatcher, self._task
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=CLOSE_SECONDS)
        session = self._session
        if session is not None:
            await session.stop_receiving()
            await session.release(dispatcher.hand_back(session))
            if dispatcher.running:
                # Handlers may take a while yet, and what a read under way brings meanwhile would lie about.
                await self._quietly(session.consumer.pause(), "pause")
        await dispatcher.drain()
        if session is not None:
            await session.flush(CLOSE_SECONDS)
            await session.close()
        self.state, self.reason = HealthState.CLOSED, None
        if self._on_closed is not None:
            self._on_closed()

    async def _quietly(self, work: Awaitable[None], what: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await work
        except Exception as exc:
            self._dispatcher.logger.warning(
                "%s: the consumer could not %s: %s", self._dispatcher.name, what, describe(exc)
            )
