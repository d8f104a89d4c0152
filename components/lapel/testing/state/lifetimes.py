"""Lifetimes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import EtagMismatchError, InvalidArgumentError, UnsupportedError
from ...state import SetOperation, StateStore
from ..lifecycle import wait_until
from ..marks import contract, lacks, needs, row
from .base import TRANSACTIONS, StateBase, found

__all__ = ["LifetimeTests"]

HOUR = 3600
EXPIRY = timedelta(seconds=HOUR)
SLACK = timedelta(minutes=10)
"""How far the clocks of backend and test may be apart."""


class LifetimeTests(StateBase):
    """Items that end by themselves."""

    @row("ST-50", "stricter-016")
    @needs(Capability.TTL)
    @pytest.mark.parametrize("text", ["foo", "-2", "1.5", " 2", "2147483648", "1e3", "0x10", "٣", "+", "--1"])
    async def test_a_malformed_wire_lifetime_is_refused_and_the_key_untouched(
        self, store: StateStore, base: str, text: str
    ) -> None:
        await store.set(base, b"kept")
        with pytest.raises(InvalidArgumentError):
            await store.set(base, b"x", metadata={"ttlInSeconds": text})
        item = await found(store, base)
        assert (item.data, item.expires_at) == (b"kept", None)

    @row("stricter-016")
    @needs(Capability.TTL)
    async def test_a_lifetime_that_is_none_is_refused_as_an_argument(self, store: StateStore, base: str) -> None:
        wrong: list[Any] = [0, -2, 2**31, 1.5, "10", True, timedelta(seconds=0.5), timedelta(0), timedelta(seconds=-5)]
        for ttl in wrong:
            with pytest.raises(InvalidArgumentError):
                await store.set(base, b"x", ttl=ttl)
        assert await store.get(base) is None

    @row("ST-51", "ST-52")
    @needs(Capability.TTL)
    @contract
    async def test_a_key_lives_and_then_is_gone(self, store: StateStore, base: str) -> None:
        await store.set(base, "⏱️", ttl=2)
        assert (await found(store, base)).json() == "⏱️"
        await _expired(store, base)

    @row("ST-53")
    @lacks(Capability.TTL)
    async def test_an_undeclared_lifetime_is_refused(self, store: StateStore, base: str) -> None:
        await store.set(base, b"kept")
        spellings: list[dict[str, Any]] = [
            {"ttl": 1},
            {"ttl": timedelta(seconds=1)},
            {"metadata": {"ttlInSeconds": "1"}},
        ]
        for fields in spellings:
            with pytest.raises(UnsupportedError):
                await store.set(base, b"x", **fields)
        assert isinstance((await store.bulk_set([SetOperation(base, b"x", ttl=1)]))[0].error, UnsupportedError)
        assert (await found(store, base)).data == b"kept"

    @row("ST-54")
    @contract
    async def test_without_a_lifetime_there_is_no_time_of_expiry(self, store: StateStore, base: str) -> None:
        await store.set(base, b"v")
        assert (await found(store, base)).expires_at is None

    @row("ST-55", "stricter-015")
    @needs(Capability.TTL)
    @contract
    @pytest.mark.parametrize("how", ["argument", "timedelta", "wire"])
    async def test_the_time_of_expiry_comes_back(self, store: StateStore, base: str, how: str) -> None:
        fields: dict[str, dict[str, Any]] = {
            "argument": {"ttl": HOUR},
            "timedelta": {"ttl": EXPIRY},
            "wire": {"metadata": {"ttlInSeconds": str(HOUR)}},
        }
        await store.set(base, b"v", **fields[how])
        _near((await found(store, base)).expires_at, HOUR)

    @row("ST-56", "stricter-015")
    @needs(Capability.TTL)
    @contract
    async def test_a_lifetime_is_extended_shortened_and_removed(self, store: StateStore, base: str) -> None:
        writes: list[tuple[dict[str, Any], int | None]] = [
            ({"ttl": HOUR}, HOUR),
            ({"ttl": 3 * HOUR}, 3 * HOUR),
            ({"ttl": HOUR}, HOUR),
            ({"ttl": -1}, None),
            ({"ttl": HOUR}, HOUR),
            ({}, None),
            ({"ttl": HOUR}, HOUR),
            ({"metadata": {"ttlInSeconds": "-1"}}, None),
            ({"ttl": HOUR}, HOUR),
            ({"metadata": {"ttlInSeconds": "0"}}, None),
            ({"ttl": HOUR}, HOUR),
            ({"metadata": {"ttlInSeconds": ""}}, None),
        ]
        for number, (fields, expected) in enumerate(writes):
            await store.set(base, number, **fields)
            item = await found(store, base)
            assert item.json() == number
            _near(item.expires_at, expected)

    @row("ST-56")
    @needs(Capability.TTL)
    @contract
    async def test_a_key_whose_lifetime_was_removed_outlives_it(self, store: StateStore, base: str) -> None:
        removed, omitted, short = f"{base}removed", f"{base}omitted", f"{base}short"
        for key in (removed, omitted, short):
            await store.set(key, b"v", ttl=1)
        await store.set(removed, b"w", ttl=-1)
        await store.set(omitted, b"w")
        await _expired(store, short)
        assert (await found(store, removed)).data == b"w"
        assert (await found(store, omitted)).data == b"w"

    @row("ST-57", "stricter-015")
    @needs(Capability.TTL)
    @contract
    async def test_bulk_get_returns_values_exactly_with_their_times(self, store: StateStore, base: str) -> None:
        await store.set(f"{base}1", "123", ttl=HOUR)
        await store.set(f"{base}2", "234", ttl=HOUR)
        await store.set(f"{base}3", "345")
        rows = await store.bulk_get([f"{base}1", f"{base}2", f"{base}3"])
        assert [row.item and row.item.data for row in rows] == [b'"123"', b'"234"', b'"345"']
        for answer, expected in zip(rows, (HOUR, HOUR, None), strict=True):
            assert answer.item is not None
            _near(answer.item.expires_at, expected)

    @row("stricter-015")
    @needs(Capability.TTL)
    @contract
    async def test_lifetimes_work_in_bulk_sets(self, store: StateStore, base: str) -> None:
        await store.set(f"{base}kept", b"v", ttl=HOUR)
        outcomes = await store.bulk_set(
            [
                SetOperation(f"{base}new", b"v", ttl=HOUR),
                SetOperation(f"{base}kept", b"w"),
                SetOperation(f"{base}wire", b"v", metadata={"ttlInSeconds": "3600"}),
            ]
        )
        assert all(outcome.error is None for outcome in outcomes)
        _near((await found(store, f"{base}new")).expires_at, HOUR)
        _near((await found(store, f"{base}kept")).expires_at, None)
        _near((await found(store, f"{base}wire")).expires_at, HOUR)

    @row("stricter-015")
    @needs(Capability.TTL)
    @needs(TRANSACTIONS)
    @needs(Capability.ETAG)
    @contract
    async def test_lifetimes_work_in_transactions_with_etags(self, store: StateStore, base: str) -> None:
        etag = await store.set(f"{base}kept", b"v", ttl=HOUR)
        await store.transaction(
            [SetOperation(f"{base}new", b"v", ttl=HOUR), SetOperation(f"{base}kept", b"w", etag=etag, ttl=-1)]
        )
        _near((await found(store, f"{base}new")).expires_at, HOUR)
        _near((await found(store, f"{base}kept")).expires_at, None)

    @row("stricter-010")
    @needs(Capability.TTL)
    @needs(Capability.ETAG)
    @contract
    async def test_first_write_succeeds_as_soon_as_the_key_has_expired(self, store: StateStore, base: str) -> None:
        await store.set(base, b"old", ttl=1)
        with pytest.raises(EtagMismatchError):
            await store.set(base, b"early", concurrency="first-write")
        await _expired(store, f"{base}-clock", start=True)
        await store.set(base, b"new", concurrency="first-write")
        item = await found(store, base)
        assert (item.data, item.expires_at) == (b"new", None)

    @row("stricter-017", "ST-79")
    @needs(Capability.TTL)
    @contract
    async def test_an_expired_key_is_invisible_to_every_operation(self, store: StateStore, base: str) -> None:
        flags = store.capabilities
        # Looking at a key may remove it, so each operation has expired keys of its own.
        groups = [f"{base}{group}" for group in ("prefix", "keys", "query", "bulk", "set", "delete", "transaction")]
        etags: dict[str, str | None] = {}
        for group in groups:
            etags[group] = await store.set(f"{group}||short", {"message": group}, ttl=1)
            await store.set(f"{group}||shorter", {"message": group}, ttl=1)
            await store.set(f"{group}||long", {"message": group})
        prefix, keys, query, bulk, set_, delete, transaction = groups
        await _expired(store, f"{base}-clock", start=True)
        if Capability.DELETE_WITH_PREFIX in flags:
            assert await store.delete_with_prefix(prefix) == 1
        if Capability.KEYS_LIKE in flags:
            page = await store.keys(f"{keys}||%")
            assert (list(page.keys), page.token) == ([f"{keys}||long"], None)
        if Capability.QUERY_API in flags:
            hits = await store.query({"filter": {"EQ": {"message": query}}})
            assert [hit.key for hit in hits.items] == [f"{query}||long"]
        rows = await store.bulk_get([f"{bulk}||short", f"{bulk}||long", f"{bulk}||shorter"])
        assert [answer.item is None for answer in rows] == [True, False, True]
        if Capability.ETAG in flags:
            with pytest.raises(EtagMismatchError):
                await store.set(f"{set_}||short", b"x", etag=etags[set_])
            with pytest.raises(EtagMismatchError):
                await store.delete(f"{delete}||short", etag=etags[delete])
        if flags & TRANSACTIONS and Capability.ETAG in flags:
            with pytest.raises(EtagMismatchError):
                await store.transaction([SetOperation(f"{transaction}||short", b"x", etag=etags[transaction])])

    @row("stricter-015")
    @needs(Capability.TTL)
    async def test_the_longest_lifetime_is_taken_or_over_a_stated_limit(self, store: StateStore, base: str) -> None:
        longest = store.limits.ttl_seconds
        await store.set(base, b"v", ttl=longest)
        _near((await found(store, base)).expires_at, longest)
        if longest < 2**31 - 1:
            with pytest.raises(InvalidArgumentError):
                await store.set(base, b"v", ttl=longest + 1)


async def _expired(store: StateStore, key: str, *, start: bool = False) -> None:
    """Wait until a key with a lifetime of seconds is gone; with `start` write one that expires after all before it."""
    if start:
        await store.set(key, b"clock", ttl=1)
    begin = time.monotonic()

    async def gone() -> bool:
        return await store.get(key) is None

    await wait_until(gone, lambda: f"{key} outlived its lifetime by {time.monotonic() - begin:.1f} s")


def _near(found_at: datetime | None, seconds: int | None) -> None:
    if seconds is None:
        assert found_at is None
        return
    assert found_at is not None
    assert found_at.tzinfo is UTC or found_at.utcoffset() == timedelta(0)
    assert abs(found_at - datetime.now(UTC) - timedelta(seconds=seconds)) < SLACK
