"""A bulk read is repeated like any other, also when the driver reports the loss item by item."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lapel.driver import DriverContext
from lapel.errors import LapelError, UnavailableError
from lapel.state import GetRequest, SetOperation, SetRequest, StateItem, StateStore
from lapel_contrib.memory.settings import MemoryStateSettings
from lapel_contrib.memory.state import MemoryState


class Flaky(MemoryState):
    """Fails each item of the first `failures` bulk calls."""

    failures = 0
    calls = 0

    async def bulk_get(self, requests: Sequence[GetRequest]) -> Sequence[StateItem | LapelError | None]:
        self.calls += 1
        found = await super().bulk_get(requests)
        return [found[0], UnavailableError("gone")] if self.calls <= self.failures else found

    async def bulk_set(self, requests: Sequence[SetRequest]) -> Sequence[str | LapelError | None]:
        self.calls += 1
        return [UnavailableError("gone") for _ in requests]


def build(failures: int) -> tuple[Flaky, StateStore]:
    driver = Flaky(MemoryStateSettings.parse({}), DriverContext(component="store"))
    driver.failures = failures
    return driver, StateStore(driver)


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_read_is_repeated(failures: int) -> None:
    driver, store = build(failures)
    async with store:
        await store.set("a", b"1")
        found = await store.bulk_get(["a", "b"])
    assert [outcome.error for outcome in found] == [None, None]
    assert driver.calls == failures + 1


async def test_good_answers_stay_when_others_keep_failing() -> None:
    driver, store = build(9)
    async with store:
        await store.set("a", b"1")
        first, second = await store.bulk_get(["a", "b"])
    assert first.item is not None
    assert isinstance(second.error, UnavailableError)
    assert driver.calls == 3


async def test_a_write_is_not_repeated() -> None:
    driver, store = build(0)
    async with store:
        (outcome,) = await store.bulk_set([SetOperation("a", b"1")])
    assert isinstance(outcome.error, UnavailableError)
    assert driver.calls == 1
