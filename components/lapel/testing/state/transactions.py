"""Transactions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from ...descriptor import Capability
from ...errors import EtagMismatchError, InvalidArgumentError, LapelError, UnsupportedError
from ...state import DeleteOperation, SetOperation, StateItem, StateStore
from ..marks import contract, lacks, needs, row
from ..subject import Subject
from .base import TRANSACTIONS, StateBase, found

__all__ = ["TransactionTests"]

Operation = SetOperation | DeleteOperation


class TransactionTests(StateBase):
    """All or nothing, in order. The keys of a test fall into one hash slot."""

    @row("ST-20")
    @needs(TRANSACTIONS)
    @contract
    async def test_groups_of_sets_and_deletes(self, store: StateStore, base: str) -> None:
        metadata = {"partitionKey": "myPartition"}
        values = {"int": 123, "bool": True, "string": "hello world", "to-be-deleted": "to be deleted"}
        etags = await store.transaction(
            [SetOperation(f"{base}-{name}", value) for name, value in values.items()], metadata=metadata
        )
        for (name, value), etag in zip(values.items(), etags, strict=True):
            item = await found(store, f"{base}-{name}")
            assert (item.json(), item.etag) == (value, etag)
        etags = await store.transaction(
            [SetOperation(f"{base}-struct", {"message": "test"}), DeleteOperation(f"{base}-to-be-deleted")],
            metadata=metadata,
        )
        assert len(etags) == 2
        assert etags[1] is None
        assert (await found(store, f"{base}-struct")).json() == {"message": "test"}
        assert await store.get(f"{base}-to-be-deleted") is None

    @row("ST-21")
    @needs(TRANSACTIONS)
    @contract
    async def test_deleting_a_missing_key_is_no_error(self, store: StateStore, base: str) -> None:
        assert await store.transaction([DeleteOperation(f"{base}non-existent-key")]) == [None]

    @row("ST-22")
    @needs(TRANSACTIONS)
    @contract
    async def test_operations_take_effect_in_order(self, store: StateStore, base: str) -> None:
        one, two, three = (f"{base}{number}" for number in range(3))
        await store.set(one, "value1")
        await store.transaction(
            [DeleteOperation(one), SetOperation(two, "value2"), DeleteOperation(two), SetOperation(three, "value3")]
        )
        assert await store.get(one) is None
        assert await store.get(two) is None
        assert (await found(store, three)).data == b'"value3"'

    @row("ST-23")
    @needs(TRANSACTIONS)
    @contract
    async def test_json_bytes_survive(self, store: StateStore, base: str) -> None:
        data = b'{"id":1223,"name":"test"}'
        await store.transaction(
            [SetOperation(f"{base}1", data, content_type="application/json"), SetOperation(f"{base}2", data)]
        )
        assert json.loads((await found(store, f"{base}1")).data) == json.loads(data)
        assert (await found(store, f"{base}2")).data == data

    @row("ST-25", "ST-26")
    @lacks(TRANSACTIONS)
    async def test_undeclared_transactions_are_refused(self, store: StateStore, base: str) -> None:
        for operations in ([SetOperation(base, b"x")], []):
            with pytest.raises(UnsupportedError):
                await store.transaction(operations)
        assert await store.get(base) is None

    @row("stricter-011")
    @needs(TRANSACTIONS)
    @needs(Capability.ETAG)
    @contract
    @pytest.mark.parametrize("place", [0, 1, 2, 3])
    async def test_a_refused_operation_leaves_everything_as_it_was(
        self, store: StateStore, base: str, bad_etag: str, place: int
    ) -> None:
        keys = [f"{base}set", f"{base}delete", f"{base}refused", f"{base}new"]
        await store.bulk_set([SetOperation(key, "before") for key in keys[:3]])
        before = await _snapshot(store, keys)
        good: list[Operation] = [
            SetOperation(keys[0], "after"),
            DeleteOperation(keys[1]),
            SetOperation(keys[3], "after"),
        ]
        for refused in (
            SetOperation(keys[2], "after", etag=bad_etag),
            DeleteOperation(keys[2], bad_etag),
            SetOperation(keys[2], "after", concurrency="first-write"),
        ):
            with pytest.raises(EtagMismatchError):
                await store.transaction([*good[:place], refused, *good[place:]])
            assert await _snapshot(store, keys) == before

    @row("stricter-011")
    @needs(TRANSACTIONS)
    @pytest.mark.parametrize("place", [0, 1, 2])
    async def test_an_operation_that_cannot_be_sent_leaves_everything_as_it_was(
        self, store: StateStore, base: str, place: int
    ) -> None:
        keys = [f"{base}set", f"{base}delete"]
        await store.bulk_set([SetOperation(key, "before") for key in keys])
        before = await _snapshot(store, keys)
        good: list[Operation] = [SetOperation(keys[0], "after"), DeleteOperation(keys[1])]
        for refused in (SetOperation("", b"x"), SetOperation(f"{base}nan", float("nan")), DeleteOperation("\x00")):
            with pytest.raises(InvalidArgumentError):
                await store.transaction([*good[:place], refused, *good[place:]])
        assert await _snapshot(store, keys) == before

    @row("stricter-011")
    @needs(TRANSACTIONS)
    @needs(Capability.TTL)
    @needs(Capability.ETAG)
    @contract
    async def test_a_refused_transaction_keeps_lifetimes(self, store: StateStore, base: str, bad_etag: str) -> None:
        await store.set(f"{base}short", b"v", ttl=3600)
        await store.set(f"{base}long", b"v")
        before = await _snapshot(store, [f"{base}short", f"{base}long"])
        with pytest.raises(EtagMismatchError):
            await store.transaction(
                [
                    SetOperation(f"{base}short", b"w"),
                    SetOperation(f"{base}long", b"w", ttl=3600),
                    DeleteOperation(f"{base}short", bad_etag),
                ]
            )
        assert await _snapshot(store, [f"{base}short", f"{base}long"]) == before

    @row("stricter-012")
    @needs(TRANSACTIONS)
    @contract
    async def test_the_same_key_twice_takes_the_last(self, store: StateStore, base: str) -> None:
        for first in (SetOperation(base, "first"), DeleteOperation(base)):
            await store.set(base, "before")
            etags = await store.transaction([first, SetOperation(base, "last")])
            item = await found(store, base)
            assert (item.json(), item.etag) == ("last", etags[1])
        await store.transaction([SetOperation(base, "first"), DeleteOperation(base)])
        assert await store.get(base) is None

    @row("stricter-012")
    @needs(TRANSACTIONS)
    @needs(Capability.ETAG)
    @contract
    async def test_each_operation_sees_what_the_earlier_ones_left(self, store: StateStore, base: str) -> None:
        etag = await store.set(base, "before")
        await store.transaction([SetOperation(base, "one", etag=etag), SetOperation(base, "two")])
        current = (await found(store, base)).etag
        refused: list[Sequence[Operation]] = [
            [SetOperation(base, "x"), SetOperation(base, "y", etag=current)],
            [DeleteOperation(base), SetOperation(base, "y", etag=current)],
            [SetOperation(base, "x"), DeleteOperation(base, current)],
            [SetOperation(f"{base}new", "x"), SetOperation(f"{base}new", "y", concurrency="first-write")],
        ]
        for operations in refused:
            with pytest.raises(EtagMismatchError):
                await store.transaction(operations)
        item = await found(store, base)
        assert (item.json(), item.etag) == ("two", current)
        assert await store.get(f"{base}new") is None
        await store.transaction([DeleteOperation(base, current), SetOperation(base, "z", concurrency="first-write")])
        assert (await found(store, base)).json() == "z"

    @row("stricter-013")
    @needs(TRANSACTIONS)
    async def test_an_empty_transaction_does_nothing(self, store: StateStore) -> None:
        assert await store.transaction([]) == []

    @row("stricter-013")
    @needs(TRANSACTIONS)
    @contract
    async def test_a_transaction_at_the_limit_works_and_one_over_it_is_refused(
        self, store: StateStore, base: str
    ) -> None:
        limit = store.limits.transaction_operations
        count = 500 if limit is None else limit
        operations = [SetOperation(f"{base}{number}", number) for number in range(count)]
        etags = await store.transaction(operations)
        assert len(etags) == count
        assert (await found(store, f"{base}{count - 1}")).json() == count - 1
        if limit is not None:
            with pytest.raises(InvalidArgumentError):
                await store.transaction([SetOperation(f"{base}over{number}", b"x") for number in range(limit + 1)])
            assert await store.get(f"{base}over0") is None

    @row("stricter-014")
    @needs(TRANSACTIONS)
    async def test_readers_never_see_half_a_transaction(self, store: StateStore, subject: Subject, base: str) -> None:
        keys = [f"{base}a", f"{base}b"]
        await store.transaction([SetOperation(key, 0) for key in keys])
        done = asyncio.Event()

        async def write(writer: StateStore, offset: int) -> None:
            for number in range(30):
                value = 2 * number + offset
                while True:
                    try:
                        await writer.transaction([SetOperation(key, value) for key in keys])
                    except EtagMismatchError:
                        continue
                    break
                await asyncio.sleep(0)

        async def read() -> int:
            rounds = 0
            while not done.is_set() or not rounds:
                # A bulk get is no snapshot, so only reads between which nothing changed are compared.
                first, second, again = [(await found(store, key)) for key in (*keys, keys[0])]
                if first.etag == again.etag and first.json() == again.json():
                    assert first.json() == second.json()
                rounds += 1
                await asyncio.sleep(0)
            return rounds

        shared = self.option(subject, "shared") == "true"
        async with self.build(subject) as other:
            assert isinstance(other, StateStore)
            reader = asyncio.create_task(read())
            await asyncio.gather(write(store, 0), write(other if shared else store, 1))
            done.set()
            assert await reader > 0
        values = [(await found(store, key)).json() for key in keys]
        assert values[0] == values[1]

    @row("stricter-014")
    @needs(TRANSACTIONS)
    @needs(Capability.ETAG)
    @contract
    async def test_of_overlapping_conditional_transactions_one_wins(self, store: StateStore, base: str) -> None:
        keys = [f"{base}a", f"{base}b"]
        for _ in range(10):
            etags = await store.transaction([SetOperation(key, "before") for key in keys])

            async def attempt(name: int, etags: Sequence[str | None] = etags) -> object:
                order = list(zip(keys, etags, strict=True))[:: 1 if name % 2 else -1]
                return await store.transaction([SetOperation(key, name, etag=etag) for key, etag in order])

            outcomes = await asyncio.gather(*(attempt(name) for name in range(8)), return_exceptions=True)
            winners = [name for name, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
            assert len(winners) == 1
            losers = [outcome for outcome in outcomes if isinstance(outcome, LapelError)]
            assert len(losers) == 7
            assert all(isinstance(loser, EtagMismatchError) for loser in losers)
            assert [(await found(store, key)).json() for key in keys] == winners * 2


async def _snapshot(store: StateStore, keys: Sequence[str]) -> list[StateItem | None]:
    return [await store.get(key) for key in keys]
