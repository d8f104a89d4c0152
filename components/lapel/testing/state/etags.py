"""Etags and first-write."""

from __future__ import annotations

from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import EtagError, EtagMismatchError, InvalidArgumentError, UnsupportedError
from ...state import DeleteOperation, SetOperation, StateStore
from ..marks import contract, lacks, needs, row
from .base import TRANSACTIONS, StateBase, found

__all__ = ["EtagTests"]

FIRST = "first-write"


class EtagTests(StateBase):
    """Preconditions of single and bulk writes."""

    @row("ST-30")
    @needs(Capability.ETAG)
    @contract
    async def test_reads_return_an_etag(self, store: StateStore, base: str) -> None:
        outcomes = await store.bulk_set([SetOperation(f"{base}{number}", "first-value") for number in range(4)])
        assert all(outcome.error is None and outcome.etag for outcome in outcomes)
        item = await found(store, f"{base}0")
        assert item.etag
        assert item.etag == outcomes[0].etag
        rows = await store.bulk_get([f"{base}{number}" for number in range(1, 4)])
        assert [row.item and row.item.etag for row in rows] == [outcome.etag for outcome in outcomes[1:]]
        assert [row.item and row.item.json() for row in rows] == ["first-value"] * 3

    @row("ST-31")
    @needs(Capability.ETAG)
    @contract
    async def test_a_set_with_a_wrong_etag_is_a_mismatch(self, store: StateStore, base: str, bad_etag: str) -> None:
        etag = await store.set(base, "first-value")
        with pytest.raises(EtagMismatchError):
            await store.set(base, "second-value", etag=bad_etag)
        item = await found(store, base)
        assert (item.json(), item.etag) == ("first-value", etag)

    @row("ST-32")
    @needs(Capability.ETAG)
    @contract
    async def test_a_set_with_the_current_etag_changes_it(self, store: StateStore, base: str) -> None:
        await store.set(base, "first-value")
        before = await found(store, base)
        returned = await store.set(base, "second-value", etag=before.etag)
        after = await found(store, base)
        assert after.json() == "second-value"
        assert after.etag == returned
        assert after.etag != before.etag
        with pytest.raises(EtagMismatchError):
            await store.set(base, "third-value", etag=before.etag)

    @row("ST-33", "ST-34")
    @needs(Capability.ETAG)
    @contract
    async def test_in_a_bulk_set_only_the_wrong_etag_fails(self, store: StateStore, base: str, bad_etag: str) -> None:
        wrong, right = f"{base}wrong", f"{base}right"
        etags = [await store.set(key, "first-value") for key in (wrong, right)]
        outcomes = await store.bulk_set(
            [
                SetOperation(wrong, "second-value", etag=bad_etag),
                SetOperation(right, "second-value", etag=etags[1]),
            ]
        )
        assert [outcome.key for outcome in outcomes] == [wrong, right]
        assert isinstance(outcomes[0].error, EtagMismatchError)
        assert outcomes[1].error is None
        unchanged, changed = await found(store, wrong), await found(store, right)
        assert (unchanged.json(), unchanged.etag) == ("first-value", etags[0])
        assert (changed.json(), changed.etag) == ("second-value", outcomes[1].etag)
        assert changed.etag != etags[1]

    @row("ST-35")
    @needs(Capability.ETAG)
    @contract
    async def test_a_bulk_set_with_current_etags_writes_all(self, store: StateStore, base: str) -> None:
        keys = [f"{base}{number}" for number in range(3)]
        etags = [await store.set(key, "second-value") for key in keys]
        operations = [SetOperation(key, "third-value", etag=etag) for key, etag in zip(keys, etags, strict=True)]
        assert [outcome.error for outcome in await store.bulk_set(operations)] == [None] * 3
        for answer in await store.bulk_get(keys):
            assert answer.item is not None
            assert answer.item.json() == "third-value"
            assert answer.item.etag not in (None, *etags)

    @row("ST-36", "ST-37")
    @needs(Capability.ETAG)
    @contract
    async def test_a_delete_obeys_its_etag(self, store: StateStore, base: str, bad_etag: str) -> None:
        etag = await store.set(base, "value")
        with pytest.raises(EtagError):
            await store.delete(base, etag=bad_etag)
        assert (await found(store, base)).etag == etag
        await store.delete(base, etag=etag)
        assert await store.get(base) is None

    @row("ST-38", "ST-39", "ST-40", "ST-41")
    @needs(Capability.ETAG)
    @contract
    async def test_bulk_deletes_obey_their_etags(self, store: StateStore, base: str, bad_etag: str) -> None:
        keys = [f"{base}{number}" for number in range(3)]
        etags = [await store.set(key, "value") for key in keys]
        outcomes = await store.bulk_delete([DeleteOperation(keys[0], etags[0]), DeleteOperation(keys[1], bad_etag)])
        assert [outcome.key for outcome in outcomes] == keys[:2]
        assert outcomes[0].error is None
        assert isinstance(outcomes[1].error, EtagMismatchError)
        assert await store.get(keys[0]) is None
        assert (await found(store, keys[1])).etag == etags[1]
        outcomes = await store.bulk_delete([DeleteOperation(keys[1], etags[1]), DeleteOperation(keys[2], etags[2])])
        assert [outcome.error for outcome in outcomes] == [None, None]
        rows = await store.bulk_get(keys[1:])
        assert [(row.key, row.item, row.error) for row in rows] == [(key, None, None) for key in keys[1:]]

    @row("ST-42")
    @lacks(Capability.ETAG)
    async def test_undeclared_etags_are_refused(self, store: StateStore, base: str) -> None:
        assert await store.set(base, b"v") is None
        assert (await found(store, base)).etag is None
        for refused in (
            store.set(base, b"w", etag="1"),
            store.set(base, b"w", concurrency=FIRST),
            store.delete(base, etag="1"),
            store.update(base, lambda _: b"w"),
        ):
            with pytest.raises(UnsupportedError):
                await refused
        assert (await found(store, base)).data == b"v"

    @row("ST-45", "ST-46")
    @needs(Capability.ETAG)
    @contract
    @pytest.mark.parametrize("etag", [None, ""], ids=["no-etag", "empty-etag"])
    async def test_first_write_creates_once(self, store: StateStore, base: str, etag: str | None) -> None:
        await store.delete(base, etag=etag)
        await store.set(base, b"testValue1", etag=etag, concurrency=FIRST, consistency="strong")
        assert (await found(store, base)).data == b"testValue1"
        with pytest.raises(EtagMismatchError):
            await store.set(base, b"testValue2", etag=etag, concurrency=FIRST, consistency="strong")
        assert (await found(store, base)).data == b"testValue1"
        await store.set(base, b"testValue3", etag=etag)
        assert (await found(store, base)).data == b"testValue3"

    @row("ST-47")
    @needs(Capability.ETAG)
    @contract
    async def test_first_write_with_an_etag_writes_once(self, store: StateStore, base: str) -> None:
        await store.set(base, b"v1")
        before = await found(store, base)
        await store.set(base, b"v2", etag=before.etag, concurrency=FIRST)
        after = await found(store, base)
        assert after.data == b"v2"
        assert after.etag != before.etag
        with pytest.raises(EtagMismatchError):
            await store.set(base, b"v3", etag=before.etag, concurrency=FIRST)

    @row("stricter-004")
    @needs(Capability.ETAG)
    @contract
    async def test_every_write_makes_a_new_etag(self, store: StateStore, base: str) -> None:
        etags: list[str | None] = [await store.set(base, b"same") for _ in range(20)]
        etags.append(await store.set(base, b"same", etag=etags[-1]))
        etags.append((await store.bulk_set([SetOperation(base, b"same")]))[0].etag)
        if store.capabilities & TRANSACTIONS:
            etags += await store.transaction([SetOperation(base, b"same"), SetOperation(base, b"same")])
        assert None not in etags
        assert len(set(etags)) == len(etags)
        assert (await found(store, base)).etag == etags[-1]

    @row("stricter-005")
    @needs(Capability.ETAG)
    @contract
    async def test_an_etag_from_before_a_delete_does_not_match_later(self, store: StateStore, base: str) -> None:
        old = [await store.set(base, b"first life") for _ in range(3)]
        await store.delete(base)
        for _ in range(3):
            await store.set(base, b"second life")
            for etag in old:
                with pytest.raises(EtagMismatchError):
                    await store.set(base, b"overwritten", etag=etag)
                with pytest.raises(EtagMismatchError):
                    await store.delete(base, etag=etag)
        assert (await found(store, base)).data == b"second life"

    @row("stricter-006")
    @needs(Capability.ETAG)
    @contract
    async def test_an_etag_for_a_missing_key_is_a_mismatch(self, store: StateStore, base: str, bad_etag: str) -> None:
        stale = await store.set(base, b"gone")
        await store.delete(base)
        for etag in (bad_etag, stale):
            with pytest.raises(EtagMismatchError):
                await store.set(base, b"created", etag=etag)
            with pytest.raises(EtagMismatchError):
                await store.delete(base, etag=etag)
        assert await store.get(base) is None

    @row("stricter-007")
    @needs(Capability.ETAG)
    @contract
    async def test_a_malformed_etag_is_one_typed_error_everywhere(self, store: StateStore, base: str) -> None:
        etag = await store.set(base, b"kept")
        for malformed in ("not an etag", "' OR '1'='1", "é☃", "-1", "1.5", "9" * 400):
            errors: list[BaseException | None] = []
            for attempt in (store.set(base, b"x", etag=malformed), store.delete(base, etag=malformed)):
                with pytest.raises(EtagError) as caught:
                    await attempt
                errors.append(caught.value)
            errors += [one.error for one in await store.bulk_set([SetOperation(base, b"x", etag=malformed)])]
            errors += [one.error for one in await store.bulk_delete([DeleteOperation(base, malformed)])]
            if store.capabilities & TRANSACTIONS:
                with pytest.raises(EtagError) as caught:
                    await store.transaction([SetOperation(base, b"x", etag=malformed)])
                errors.append(caught.value)
            assert len({type(error) for error in errors}) == 1, f"{malformed!r}: {errors}"
        item = await found(store, base)
        assert (item.data, item.etag) == (b"kept", etag)

    @row("stricter-008")
    @needs(Capability.ETAG)
    @contract
    async def test_last_write_does_not_switch_off_an_etag(self, store: StateStore, base: str) -> None:
        stale = await store.set(base, b"one")
        await store.set(base, b"two")
        with pytest.raises(EtagMismatchError):
            await store.set(base, b"three", etag=stale, concurrency="last-write")
        with pytest.raises(EtagMismatchError):
            await store.delete(base, etag=stale, concurrency="last-write")
        assert (await found(store, base)).data == b"two"

    @row("stricter-008")
    @needs(Capability.ETAG)
    async def test_first_write_delete_without_an_etag_is_a_plain_delete(self, store: StateStore, base: str) -> None:
        await store.set(base, b"present")
        await store.delete(base, concurrency=FIRST)
        assert await store.get(base) is None
        await store.delete(base, concurrency=FIRST)

    @row("stricter-009")
    @needs(Capability.ETAG)
    @contract
    async def test_a_plain_set_after_a_first_write_succeeds(self, store: StateStore, base: str) -> None:
        await store.set(base, b"created", concurrency=FIRST)
        await store.set(base, b"replaced")
        await store.set(base, b"replaced again", concurrency="last-write")
        assert (await found(store, base)).data == b"replaced again"

    @row("stricter-027")
    async def test_unknown_words_are_refused_everywhere(self, store: StateStore, base: str) -> None:
        await store.set(base, b"kept")
        wrong: list[dict[str, Any]] = [
            {"concurrency": "maybe"},
            {"consistency": "sometimes"},
            {"consistency": "STRONG"},
        ]
        for fields in wrong:
            with pytest.raises(InvalidArgumentError):
                await store.set(base, b"x", **fields)
            with pytest.raises(InvalidArgumentError):
                await store.delete(base, **fields)
            errors = [one.error for one in await store.bulk_set([SetOperation(base, b"x", **fields)])]
            errors += [one.error for one in await store.bulk_delete([DeleteOperation(base, **fields)])]
            assert all(isinstance(error, InvalidArgumentError) for error in errors)
            if store.capabilities & TRANSACTIONS:
                for operation in (SetOperation(base, b"x", **fields), DeleteOperation(base, **fields)):
                    with pytest.raises(InvalidArgumentError):
                        await store.transaction([operation])
        with pytest.raises(InvalidArgumentError):
            await store.get(base, consistency="sometimes")
        assert (await found(store, base)).data == b"kept"

    @row("stricter-008")
    async def test_every_known_word_is_taken(self, store: StateStore, base: str) -> None:
        for consistency in (None, "strong", "eventual"):
            await store.set(base, b"v", consistency=consistency, concurrency="last-write")
            assert await store.get(base, consistency=consistency) is not None
            await store.delete(base, consistency=consistency, concurrency="last-write")
