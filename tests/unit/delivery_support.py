"""A loop whose clock jumps instead of waiting, and a broker whose every step a test can see and script."""

from __future__ import annotations

import asyncio
import functools
import logging
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

from lapel.delivery import (
    Backoff,
    Consumer,
    Delivery,
    Dispatcher,
    DispatchPolicy,
    Held,
    Revoked,
    Settled,
    Settlement,
    Supervisor,
)
from lapel.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

QUICK = Backoff(initial=1.0, maximum=1.0, jitter=0.0)
REAL_SECONDS = 5.0
LOGGER = logging.getLogger("lapel.test")


class _JumpingSelector(selectors.DefaultSelector):
    loop: VirtualLoop
    busy = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # What is always busy must not stop the clock.
        self.busy = self.busy + 1 if timeout == 0 else 0
        if self.busy > 10_000:
            self.loop.now += 0.001
        # Threads take real time; without a timer only they can be what the loop waits for.
        patience = REAL_SECONDS if timeout is None or (timeout > 0 and self.loop.threads) else 0
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(patience)
        if not ready:
            if timeout is None:
                raise RuntimeError("everything waits and no timer is left")
            self.loop.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to the next timer when there is nothing to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.threads = 0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]  # the stub's type variables add nothing here
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, future: asyncio.Future[Any]) -> None:
        self.threads -= 1


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on a `VirtualLoop`."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


class Broker:
    """Messages are numbers; what a consumer has not settled when it closes comes back. `log` is all that happened."""

    def __init__(self, numbers: Iterable[int] = (), *, counts: bool = False, keys: int | None = None) -> None:
        self.counts = counts
        self.keys = keys
        self.queue: deque[tuple[int, int]] = deque((number, 1) for number in numbers)
        self.acked: list[int] = []
        self.retried: list[tuple[int, float]] = []
        self.dead: list[int] = []
        self.released: list[int] = []
        self.replies: list[Any] = []
        self.settle_batches: list[int] = []
        self.extended: list[tuple[float, list[int]]] = []
        self.lost: set[int] = set()
        self.consumers: list[FakeConsumer] = []
        self.subscribe_faults: deque[Any] = deque()
        self.receive_faults: deque[Any] = deque()
        self.settle_faults: deque[Any] = deque()
        self.extend_faults: deque[Any] = deque()
        self.lease: float | None = None
        self.redelivers = True
        self.subscribed: list[float] = []

    async def subscribe(self, revoked: Revoked) -> Consumer:
        self.subscribed.append(now())
        await _fault(self.subscribe_faults)
        consumer = FakeConsumer(self, revoked)
        self.consumers.append(consumer)
        return consumer

    def put(self, *numbers: int) -> None:
        self.queue.extend((number, 1) for number in numbers)
        self.wake()

    def put_back(self, number: int, attempt: int) -> None:
        self.queue.append((number, attempt))
        # What comes back takes its old place, as brokers that keep order do it.
        self.queue = deque(sorted(self.queue))
        self.wake()

    def wake(self) -> None:
        for consumer in self.consumers:
            consumer.wake()

    @property
    def consumer(self) -> FakeConsumer:
        return self.consumers[-1]

    @property
    def outstanding(self) -> list[int]:
        return sorted(item.handle[0] for consumer in self.consumers for item in consumer.held)


async def _fault(faults: deque[Any]) -> None:
    """Do what the script says: None is nothing, a number is a pause, an exception is raised."""
    fault = faults.popleft() if faults else None
    if isinstance(fault, BaseException):
        raise fault
    if fault is not None:
        await asyncio.sleep(fault)


class FakeConsumer(Consumer):
    def __init__(self, broker: Broker, revoked: Revoked) -> None:
        self.broker = broker
        self.revoked = revoked
        self.lease_seconds = broker.lease
        self.redelivers = broker.redelivers
        self.held: dict[Delivery, None] = {}
        self.closed = False
        self.paused = False
        self.asked: list[int] = []
        self.broken: BaseException | None = None
        self.slow_to_stop = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def cut(self) -> None:
        """Make a `receive` that is waiting fail."""
        self.broken = UnavailableError("cut")
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        assert not self.closed
        await _fault(self.broker.receive_faults)
        self.asked.append(max_messages)
        end = now() + max_wait
        while (not self.broker.queue or self.paused) and not self.ends and not self.broken and now() < end:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = asyncio.get_running_loop().call_at(end, self.wake)
            try:
                await self._waiter
            except asyncio.CancelledError:
                await asyncio.sleep(self.slow_to_stop)
                raise
            finally:
                self._waiter = None
                timer.cancel()
        if self.broken:
            raise self.broken
        taken: list[Delivery] = []
        while self.broker.queue and len(taken) < max_messages and not self.paused:
            number, attempt = self.broker.queue.popleft()
            keys = self.broker.keys
            delivery = Delivery(
                (number, attempt),
                "t",
                str(number).encode(),
                key=None if keys is None else str(number % keys),
                attempt=attempt if self.broker.counts else None,
            )
            self.held[delivery] = None
            taken.append(delivery)
        return taken

    async def settle(self, settled: Sequence[Settled]) -> None:
        assert not self.closed
        await _fault(self.broker.settle_faults)
        self.broker.settle_batches.append(len(settled))
        for item in settled:
            number, attempt = item.delivery.handle
            if item.delivery not in self.held:
                continue
            del self.held[item.delivery]
            if item.settlement is Settlement.ACK:
                self.broker.acked.append(number)
                self.broker.replies.append(item.reply)
            elif item.settlement is Settlement.DEAD_LETTER:
                self.broker.dead.append(number)
            else:
                self.broker.retried.append((number, item.delay))
                asyncio.get_running_loop().call_later(item.delay, self.broker.put_back, number, attempt + 1)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        await _fault(self.broker.extend_faults)
        self.broker.extended.append((now(), [item.handle[0] for item in deliveries]))
        return [item for item in deliveries if item.handle[0] in self.broker.lost]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery in self.held:
                del self.held[delivery]
                self.broker.released.append(delivery.handle[0])
                self.broker.put_back(*delivery.handle)

    async def pause(self) -> None:
        self.paused = True

    async def resume(self) -> None:
        self.paused = False
        self.wake()

    async def lag(self) -> int:
        return len(self.broker.queue)

    async def close(self) -> None:
        self.closed = True
        for delivery in list(self.held):
            number, attempt = delivery.handle
            self.broker.put_back(number, attempt + 1)
        self.held.clear()
        self.wake()


Handler = Callable[[int], Awaitable[Any]]


def number_of(held: Held) -> int:
    return int(held.delivery.data)


class Rig:
    """A broker, a dispatcher and a supervisor together; `async with` arms and closes them."""

    def __init__(
        self,
        broker: Broker,
        handler: Callable[[Held], Awaitable[Any]],
        *,
        dispatcher: Callable[[DispatchPolicy], Dispatcher] | None = None,
        dead_letter: Callable[[Held, str], Awaitable[None]] | None = None,
        **policy: Any,
    ) -> None:
        self.broker = broker
        terms = DispatchPolicy(**policy)
        self.dispatcher = (
            dispatcher(terms)
            if dispatcher is not None
            else Dispatcher(handler, terms, name="test", logger=LOGGER, owner=self, dead_letter=dead_letter)
        )
        self.supervisor = Supervisor(broker.subscribe, self.dispatcher, arm_timeout=5.0)

    async def __aenter__(self) -> Rig:
        await self.supervisor.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.supervisor.aclose()


async def until(condition: Callable[[], bool], seconds: float = 3600.0) -> None:
    """Wait in virtual time until something is true."""
    end = now() + seconds
    while not condition():
        assert now() < end, "it did not come true"
        await asyncio.sleep(0.01)


class Odd(BaseException):
    """What no handler should raise."""


class Unequal:
    """A value that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]  # on purpose


async def cancel_myself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
