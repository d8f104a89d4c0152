"""What the dispatcher promises to handlers of batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.unit.delivery_support import (
    LOGGER,
    QUICK,
    Broker,
    Rig,
    now,
    number_of,
    until,
    virtual,
)

from lapel.delivery import (
    BatchDispatcher,
    Dispatcher,
    DispatchPolicy,
    Held,
    Ordering,
    Outcome,
)


def _batches(
    handler: Callable[[Sequence[Held]], Awaitable[Any]], most: int, wait: float, **rest: Any
) -> Callable[[DispatchPolicy], Dispatcher]:
    def make(policy: DispatchPolicy) -> Dispatcher:
        return BatchDispatcher(handler, policy, max_messages=most, max_wait=wait, name="t", logger=LOGGER, **rest)

    return make


@virtual
async def test_batches_are_full_or_at_most_max_wait_old() -> None:
    sizes: list[tuple[int, float]] = []

    async def handle(batch: Sequence[Held]) -> None:
        sizes.append((len(batch), now() - began))

    broker = Broker()
    async with Rig(broker, _unused, dispatcher=_batches(handle, 5, 1.0), concurrency=1):
        began = now()
        broker.put(*range(23))
        await until(lambda: len(broker.acked) == 23)
        assert [size for size, _ in sizes] == [5, 5, 5, 5, 3]
        assert sizes[3][1] < 0.5
        assert sizes[4][1] == pytest.approx(1.0, abs=0.1)


@virtual
async def test_the_wait_of_a_batch_starts_with_its_own_first_message() -> None:
    times: list[float] = []

    async def handle(batch: Sequence[Held]) -> None:
        times.append(now() - began)

    broker = Broker()
    async with Rig(broker, _unused, dispatcher=_batches(handle, 5, 1.0), concurrency=1):
        began = now()
        broker.put(0, 1, 2)
        await asyncio.sleep(0.5)
        broker.put(3, 4)
        await asyncio.sleep(0.1)
        broker.put(5)
        await until(lambda: len(broker.acked) == 6)
    assert times == [pytest.approx(0.5, abs=0.05), pytest.approx(1.6, abs=0.05)]


@virtual
async def test_only_failed_entries_of_a_batch_come_again() -> None:
    seen: list[list[int]] = []
    letters: list[int] = []

    async def handle(batch: Sequence[Held]) -> Any:
        seen.append([number_of(held) for held in batch])
        outcomes = {1: Outcome.RETRY if batch[0].attempt == 1 else None, 2: Outcome.DROP}
        return [outcomes.get(number_of(held)) for held in batch]

    async def dead_letter(held: Held, reason: str) -> None:
        letters.append(number_of(held))

    broker = Broker(range(4))
    make = _batches(handle, 4, 0.5, dead_letter=dead_letter)
    async with Rig(broker, _unused, dispatcher=make, concurrency=1, backoff=QUICK):
        await until(lambda: len(broker.acked) == 4)
    assert seen == [[0, 1, 2, 3], [1]]
    assert letters == [2]


@pytest.mark.parametrize("answer", [[None], [None] * 3, 17, "SUCCESS", ValueError("x")])
@virtual
async def test_a_wrong_answer_fails_the_whole_batch(answer: Any) -> None:
    calls = 0

    async def handle(batch: Sequence[Held]) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    broker = Broker([0, 1])
    async with Rig(broker, _unused, dispatcher=_batches(handle, 2, 0.5), concurrency=1, backoff=QUICK):
        await until(lambda: len(broker.acked) == 2)
    assert calls == 2


@virtual
async def test_an_ordered_batch_holds_one_message_of_each_key() -> None:
    seen: list[list[int]] = []

    async def handle(batch: Sequence[Held]) -> None:
        seen.append([number_of(held) for held in batch])

    broker = Broker(range(6), keys=2)
    async with Rig(broker, _unused, dispatcher=_batches(handle, 4, 0.5), concurrency=2, ordering=Ordering.KEY):
        await until(lambda: len(broker.acked) == 6)
    assert seen == [[0, 1], [2, 3], [4, 5]]


@virtual
async def test_a_batch_that_is_cancelled_at_the_stop_is_not_settled() -> None:
    async def handle(batch: Sequence[Held]) -> None:
        await asyncio.sleep(1000)

    broker = Broker(range(4))
    async with Rig(broker, _unused, dispatcher=_batches(handle, 2, 0.1), concurrency=1, drain_timeout=1.0):
        await asyncio.sleep(1)
    assert broker.acked == []
    assert broker.released == [2, 3]
    assert sorted(number for number, _ in broker.queue) == [0, 1, 2, 3]


async def _unused(held: Held) -> None:
    raise AssertionError
