"""Writers that meet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

from ...descriptor import Capability
from ...errors import EtagMismatchError
from ...state import StateStore
from ..marks import contract, needs, row
from .base import StateBase, found

__all__ = ["RaceTests"]


class RaceTests(StateBase):
    """Compare and set under concurrency."""

    @row("stricter-001")
    @needs(Capability.ETAG)
    @contract
    async def test_of_fifty_writers_with_one_etag_one_wins(self, store: StateStore, base: str) -> None:
        etag = await store.set(base, -1)
        outcomes = await _gather(store.set(base, number, etag=etag) for number in range(50))
        winners = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, EtagMismatchError)]
        assert (len(winners), len(losers)) == (1, 49), outcomes
        item = await found(store, base)
        assert item.json() == winners[0]
        assert item.etag == outcomes[winners[0]]

    @row("stricter-001")
    @needs(Capability.ETAG)
    async def test_no_increment_is_lost(self, store: StateStore, base: str) -> None:
        await store.set(base, 0)

        async def increment() -> None:
            for _ in range(50):
                while True:
                    item = await found(store, base)
                    # Others run between the read and the write, also on a store that answers at once.
                    await asyncio.sleep(0)
                    try:
                        await store.set(base, item.json() + 1, etag=item.etag)
                    except EtagMismatchError:
                        continue
                    break

        await asyncio.gather(*(increment() for _ in range(20)))
        assert (await found(store, base)).json() == 1000

    @row("stricter-001")
    @needs(Capability.ETAG)
    async def test_update_retries_until_nobody_was_faster(self, store: StateStore, base: str) -> None:
        async def add(number: int) -> None:
            await store.update(base, lambda item: [*(item.json() if item else []), number], tries=1000)

        await asyncio.gather(*(add(number) for number in range(20)))
        assert sorted((await found(store, base)).json()) == list(range(20))

    @row("stricter-002")
    @needs(Capability.ETAG)
    @contract
    async def test_of_fifty_creators_one_wins(self, store: StateStore, base: str) -> None:
        outcomes = await _gather(store.set(base, number, concurrency="first-write") for number in range(50))
        winners = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, EtagMismatchError) for outcome in outcomes) == 49
        assert (await found(store, base)).json() == winners[0]

    @row("stricter-003")
    @needs(Capability.ETAG)
    @contract
    async def test_of_a_set_and_a_delete_one_wins(self, store: StateStore, base: str) -> None:
        for number in range(20):
            key = f"{base}{number}"
            etag = await store.set(key, b"old")
            set_, delete = store.set(key, b"new", etag=etag), store.delete(key, etag=etag)
            if number % 2:
                was_set, was_deleted = await _gather([set_, delete])
            else:
                was_deleted, was_set = await _gather([delete, set_])
            item = await store.get(key)
            if isinstance(was_set, BaseException):
                assert isinstance(was_set, EtagMismatchError)
                assert was_deleted is None
                assert item is None
            else:
                assert isinstance(was_deleted, EtagMismatchError)
                assert item is not None
                assert item.data == b"new"


async def _gather(calls: Iterable[Awaitable[object]]) -> list[object]:
    return await asyncio.gather(*calls, return_exceptions=True)
