"""Which keys there can be."""

from __future__ import annotations

import asyncio

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError
from ...state import DeleteOperation, SetOperation, StateStore
from ..marks import contract, needs, row
from .base import TRANSACTIONS, StateBase, found

__all__ = ["KeyTests"]

UNUSUAL = [
    "with space",
    " leading",
    "trailing ",
    "trailing",
    "a/b/../c",
    "100%",
    "under_score",
    "under-score",
    "two||bars",
    "'single'",
    '"double"',
    "`back`",
    "new\nline",
    "tab\t",
    "Case",
    "case",
    "CASE",
    "é",
    "e\u0301",
    "ﬁ",
    "fi",
    "ß",
    "ss",
    "日本語",
    "🙂",
    "\\",
    "\\\\",
    "*",
    "?",
    "[a]",
    "{b}",
    ":",
    "#",
    "\u200b",
    "\x01",
]
HOSTILE = [
    "'; DROP TABLE state; --",
    '" OR ""="',
    "%' OR 1=1 --",
    "\r\nFLUSHALL\r\n",
    "$(touch /tmp/x)",
    "{{7*7}}",
    "../../etc/passwd",
    "%",
    "_",
    "*",
]


class KeyTests(StateBase):
    """Keys are text, distinct by code point."""

    @row("stricter-021")
    @contract
    async def test_unusual_keys_work_and_stay_distinct(self, store: StateStore, base: str) -> None:
        keys = [f"{base}{name}" for name in UNUSUAL]
        for number, key in enumerate(keys):
            await store.set(key, number)
        for number, key in enumerate(keys):
            assert (await found(store, key)).json() == number, repr(key)
        assert [row.item and row.item.json() for row in await store.bulk_get(keys)] == list(range(len(keys)))
        for key in keys[::2]:
            await store.delete(key)
        left = [row.item is not None for row in await store.bulk_get(keys)]
        assert left == [number % 2 == 1 for number in range(len(keys))]

    @row("stricter-021")
    @pytest.mark.parametrize("length", [255, 512, 1024])
    async def test_a_long_key_works_or_is_refused_whole(self, store: StateStore, base: str, length: int) -> None:
        key = base.ljust(length, "k")
        limit = store.limits.key_bytes
        if limit is not None and limit < length:
            with pytest.raises(InvalidArgumentError):
                await store.set(key, b"long")
            with pytest.raises(InvalidArgumentError):
                await store.get(key)
        else:
            await store.set(key, b"long")
            await store.set(key[:-1], b"shorter")
            assert (await found(store, key)).data == b"long"
            assert (await found(store, key[:-1])).data == b"shorter"

    @row("stricter-022")
    @pytest.mark.parametrize(
        "key", ["", "nul\x00inside", "\x00", "lone\ud800"], ids=["empty", "nul", "only-nul", "lone"]
    )
    async def test_a_key_that_cannot_be_is_the_same_error_everywhere(self, store: StateStore, key: str) -> None:
        for attempt in (store.get(key), store.set(key, b"x"), store.delete(key)):
            with pytest.raises(InvalidArgumentError):
                await attempt
        errors = [row.error for row in await store.bulk_get([key])]
        errors += [one.error for one in await store.bulk_set([SetOperation(key, b"x")])]
        errors += [one.error for one in await store.bulk_delete([key])]
        assert all(isinstance(error, InvalidArgumentError) for error in errors)
        flags = store.capabilities
        if flags & TRANSACTIONS:
            for operation in (SetOperation(key, b"x"), DeleteOperation(key)):
                with pytest.raises(InvalidArgumentError):
                    await store.transaction([operation])
        if Capability.ETAG in flags:
            with pytest.raises(InvalidArgumentError):
                await store.update(key, lambda _: b"x")

    @row("stricter-023")
    @contract
    async def test_hostile_text_is_data(self, store: StateStore, base: str) -> None:
        await store.set(f"{base}bystander", b"safe")
        for number, text in enumerate(HOSTILE):
            key = f"{base}{text}"
            await store.set(key, text, metadata={"comment": text})
            item = await found(store, key)
            assert item.json() == text
            await store.set(f"{base}-value-{number}", text.encode(), content_type="text/plain")
            assert (await found(store, f"{base}-value-{number}")).data == text.encode()
            await store.delete(key)
            assert await store.get(key) is None
        assert (await found(store, f"{base}bystander")).data == b"safe"

    @row("stricter-023")
    @needs(Capability.DELETE_WITH_PREFIX)
    @contract
    async def test_a_hostile_prefix_touches_no_other_key(self, store: StateStore, base: str) -> None:
        await store.set(f"{base}bystander||key", b"safe")
        for text in HOSTILE:
            await store.set(f"{base}{text}||key", b"below")
            assert await store.delete_with_prefix(f"{base}{text}") == 1
        assert (await found(store, f"{base}bystander||key")).data == b"safe"

    @row("stricter-023")
    @needs(Capability.QUERY_API)
    async def test_a_hostile_query_finds_only_what_equals_it(self, store: StateStore, base: str) -> None:
        for number, text in enumerate(HOSTILE):
            await store.set(f"{base}{number}", {"base": base, "text": text})
        for number, text in enumerate(HOSTILE):
            hits = await store.query({"filter": {"AND": [{"EQ": {"base": base}}, {"EQ": {"text": text}}]}})
            assert [hit.key for hit in hits.items] == [f"{base}{number}"]

    @row("stricter-134")
    async def test_neighbours_are_not_confused_under_load(self, store: StateStore, base: str) -> None:
        async def life(number: int) -> None:
            key = f"{base}{number}"
            for round_ in range(5):
                await store.set(key, [number, round_])
                assert (await found(store, key)).json() == [number, round_]
            await store.delete(key)
            assert await store.get(key) is None

        await asyncio.gather(*(life(number) for number in range(100)))
