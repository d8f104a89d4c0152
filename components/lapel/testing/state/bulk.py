"""Bulk calls."""

from __future__ import annotations

from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import EtagMismatchError, InvalidArgumentError, LapelError
from ...state import DeleteRequest, GetRequest, SetOperation, SetRequest, StateItem, StateStore
from ..marks import contract, needs, row
from .base import StateBase, found

__all__ = ["BulkTests"]

VALUES: dict[str, Any] = {"int": 123, "bool": True, "string": "hello world", "struct": {"message": "test"}}


class BulkTests(StateBase):
    """One outcome for each request, in request order."""

    @row("ST-08", "ST-09")
    @contract
    async def test_bulk_set_and_bulk_get(self, store: StateStore, base: str) -> None:
        outcomes = await store.bulk_set([SetOperation(f"{base}-{name}", value) for name, value in VALUES.items()])
        assert [outcome.error for outcome in outcomes] == [None] * len(VALUES)
        for name, value in VALUES.items():
            assert (await found(store, f"{base}-{name}")).json() == value
        rows = await store.bulk_get([f"{base}-{name}" for name in VALUES])
        assert [row.key for row in rows] == [f"{base}-{name}" for name in VALUES]
        assert [row.item and row.item.json() for row in rows] == list(VALUES.values())

    @row("ST-10")
    @contract
    async def test_a_missing_key_is_an_answer(self, store: StateStore, base: str) -> None:
        await store.set(base, b"there")
        rows = await store.bulk_get([f"{base}doesnotexist", base])
        assert [(row.item and row.item.data, row.error) for row in rows] == [(None, None), (b"there", None)]

    @row("ST-11")
    @contract
    async def test_bulk_delete(self, store: StateStore, base: str) -> None:
        keys = [f"{base}-to-be-deleted", f"{base}-to-be-deleted-too"]
        await store.bulk_set([SetOperation(key, "to be deleted") for key in keys])
        outcomes = await store.bulk_delete([*keys, f"{base}-never"])
        assert [(outcome.key, outcome.error) for outcome in outcomes] == [
            *((key, None) for key in keys),
            (f"{base}-never", None),
        ]
        assert [await store.get(key) for key in keys] == [None, None]

    @row("stricter-024")
    @contract
    @pytest.mark.parametrize("count", [0, 1, 1000, 5000])
    async def test_any_number_of_keys(self, store: StateStore, base: str, count: int) -> None:
        keys = [f"{base}{number}" for number in range(count)]
        written = await store.bulk_set([SetOperation(key, number) for number, key in enumerate(keys)])
        assert [outcome.error for outcome in written] == [None] * count
        rows = await store.bulk_get(keys[::-1])
        assert [row.key for row in rows] == keys[::-1]
        assert [row.item and row.item.json() for row in rows] == list(range(count))[::-1]
        removed = await store.bulk_delete(keys)
        assert [outcome.error for outcome in removed] == [None] * count
        assert [row.item for row in await store.bulk_get(keys[:50])] == [None] * min(count, 50)

    @row("stricter-024")
    @contract
    async def test_duplicates_are_answered_each(self, store: StateStore, base: str) -> None:
        await store.set(f"{base}a", b"A")
        await store.set(f"{base}b", b"B")
        names = ["a", "b", "a", "missing", "a", "missing", "b"]
        rows = await store.bulk_get([f"{base}{name}" for name in names])
        assert [row.key for row in rows] == [f"{base}{name}" for name in names]
        assert [row.item and row.item.data for row in rows] == [b"A", b"B", b"A", None, b"A", None, b"B"]

    @row("stricter-024", "stricter-025")
    @contract
    async def test_writes_of_one_key_are_applied_in_request_order(self, store: StateStore, base: str) -> None:
        other = f"{base}other"
        operations = [SetOperation(base if number % 3 else other, number) for number in range(61)]
        outcomes = await store.bulk_set(operations)
        assert [outcome.error for outcome in outcomes] == [None] * 61
        assert (await found(store, base)).json() == 59
        assert (await found(store, other)).json() == 60
        if Capability.ETAG in store.capabilities:
            assert (await found(store, base)).etag == outcomes[59].etag

    @row("stricter-025")
    @needs(Capability.ETAG)
    @contract
    @pytest.mark.parametrize("parallelism", [1, 4, 0])
    async def test_every_bad_item_is_reported_once_and_the_good_are_applied(
        self, store: StateStore, base: str, bad_etag: str, parallelism: int
    ) -> None:
        bad = {3, 4, 9}
        keys = [f"{base}{number}" for number in range(12)]
        await store.bulk_set([SetOperation(key, b"old") for key in keys])
        operations = [
            SetOperation(key, b"new", etag=bad_etag if number in bad else None) for number, key in enumerate(keys)
        ]
        outcomes = await store.bulk_set(operations, parallelism=parallelism)
        assert [outcome.key for outcome in outcomes] == keys
        assert {number for number, one in enumerate(outcomes) if isinstance(one.error, EtagMismatchError)} == bad
        assert sum(one.error is not None for one in outcomes) == len(bad)
        rows = await store.bulk_get(keys)
        values = [row.item and row.item.data for row in rows]
        assert values == [b"old" if number in bad else b"new" for number in range(12)]

    @row("ST-09", "stricter-024")
    @needs(Capability.BULK_STATE)
    async def test_native_bulk_calls_answer_each_request_in_order(self, store: StateStore, base: str) -> None:
        driver = store.driver
        keys = [f"{base}{name}" for name in "abab"]
        written = await driver.bulk_set([SetRequest(key, str(number).encode()) for number, key in enumerate(keys)])
        assert len(written) == 4
        assert not [answer for answer in written if isinstance(answer, LapelError)]
        read = await driver.bulk_get([GetRequest(key) for key in [*keys, f"{base}missing"]])
        values = [answer.data if isinstance(answer, StateItem) else answer for answer in read]
        assert values == [b"2", b"3", b"2", b"3", None]
        assert list(await driver.bulk_delete([DeleteRequest(key) for key in keys])) == [None] * 4
        assert await store.get(keys[0]) is None
        for empty in (driver.bulk_get([]), driver.bulk_set([]), driver.bulk_delete([])):
            assert list(await empty) == []

    @row("stricter-025")
    async def test_an_item_that_cannot_be_sent_fails_alone(self, store: StateStore, base: str) -> None:
        outcomes = await store.bulk_set(
            [
                SetOperation(f"{base}1", b"v"),
                SetOperation("", b"v"),
                SetOperation(f"{base}2", object()),
                SetOperation(f"{base}3", b"v"),
            ]
        )
        assert [type(outcome.error) for outcome in outcomes] == [
            type(None),
            InvalidArgumentError,
            InvalidArgumentError,
            type(None),
        ]
        rows = await store.bulk_get([f"{base}1", "", f"{base}2", f"{base}3"])
        assert [row.item is not None for row in rows] == [True, False, False, True]
        assert [row.error is not None for row in rows] == [False, True, False, False]
