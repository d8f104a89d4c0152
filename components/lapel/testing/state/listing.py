"""Key listing and prefix delete."""

from __future__ import annotations

import asyncio

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError, UnsupportedError
from ...state import SetOperation, StateStore
from ..marks import contract, lacks, needs, row
from .base import StateBase, found

__all__ = ["ListingTests"]

NAMES = [
    *("prefix||key1", "prefix||key2", "prefix||prefix2||key3", "other-prefix||key1", "no-prefix"),
    *("abc1", "abc2", "abc3", "abc33", "xyz1", "xyz2", "xyz3"),
]
AWKWARD = [
    *("%", "hello%%wor.kflow", "%%wor.kflow", "hello%%", "_", "hello_workflow", "_workflow", "hello_"),
    "%hello_workflow%_yoyo",
]
KEYS = Capability.KEYS_LIKE
PREFIX = Capability.DELETE_WITH_PREFIX


class ListingTests(StateBase):
    """LIKE patterns. Every pattern begins with the base of its test, so other keys do not matter."""

    @row("ST-70", "ST-72")
    @needs(KEYS)
    @contract
    async def test_all_keys_are_listed_in_code_point_order(self, store: StateStore, base: str) -> None:
        names = [*NAMES, "Z", "a", "é", "\ue000", "🙂", "0"]
        await _fill(store, base, names)
        assert await _list(store, base, "%") == sorted(names)

    @row("ST-71")
    @needs(KEYS)
    async def test_an_empty_pattern_is_refused(self, store: StateStore) -> None:
        with pytest.raises(InvalidArgumentError):
            await store.keys("")

    @row("ST-73")
    @needs(KEYS)
    @contract
    async def test_the_wildcards(self, store: StateStore, base: str) -> None:
        await _fill(store, base, NAMES)
        assert len(await _list(store, base, "%")) == 12
        assert await _list(store, base, "prefix||%") == ["prefix||key1", "prefix||key2", "prefix||prefix2||key3"]
        assert await _list(store, base, "%key1") == ["other-prefix||key1", "prefix||key1"]
        assert len(await _list(store, base, "%||%")) == 4
        assert await _list(store, base, "%||%||%") == ["prefix||prefix2||key3"]
        assert await _list(store, base, "abc_") == ["abc1", "abc2", "abc3"]
        assert await _list(store, base, "abc") == []
        assert await _list(store, base, "abc1") == ["abc1"]

    @row("ST-74", "stricter-028")
    @needs(KEYS)
    @contract
    async def test_pages_add_up_to_the_whole(self, store: StateStore, base: str) -> None:
        await _fill(store, base, NAMES)
        first = await store.keys(f"{base}%", page_size=6)
        assert first.token is not None
        second = await store.keys(f"{base}%", page_size=5, token=first.token)
        assert second.token is not None
        third = await store.keys(f"{base}%", page_size=100, token=second.token)
        assert third.token is None
        assert [len(page.keys) for page in (first, second, third)] == [6, 5, 1]
        assert [*first.keys, *second.keys, *third.keys] == sorted(base + name for name in NAMES)

    @row("stricter-028")
    @needs(KEYS)
    @contract
    async def test_a_last_page_that_is_full_has_no_token(self, store: StateStore, base: str) -> None:
        await _fill(store, base, NAMES)
        whole = await store.keys(f"{base}%", page_size=12)
        assert (len(whole.keys), whole.token) == (12, None)
        first = await store.keys(f"{base}%", page_size=6)
        second = await store.keys(f"{base}%", page_size=6, token=first.token)
        assert (len(second.keys), second.token) == (6, None)
        nothing = await store.keys(f"{base}nothing%", page_size=6)
        assert (list(nothing.keys), nothing.token) == ([], None)

    @row("ST-75")
    @needs(KEYS)
    @contract
    async def test_without_a_page_size_all_keys_come_at_once(self, store: StateStore, base: str) -> None:
        await _fill(store, base, [str(number) for number in range(1025)])
        for size in (None, 100000):
            page = await store.keys(f"{base}%", page_size=size)
            assert (len(page.keys), page.token) == (1025, None)
        assert (await found(store, f"{base}7")).json() is None

    @row("ST-76")
    @needs(KEYS)
    @contract
    async def test_a_backslash_makes_a_wildcard_literal(self, store: StateStore, base: str) -> None:
        await _fill(store, base, AWKWARD)
        expected = {
            "%": sorted(AWKWARD),
            "hello%": ["hello%%", "hello%%wor.kflow", "hello_", "hello_workflow"],
            "hello_": ["hello_"],
            "hello_workflo_": ["hello_workflow"],
            r"hello\_workflow": ["hello_workflow"],
            r"hello\_": ["hello_"],
            "hello%%": ["hello%%", "hello%%wor.kflow", "hello_", "hello_workflow"],
            r"hello\%\%": ["hello%%"],
            r"hello%\%": ["hello%%"],
            r"hello\%\%%wor.kflow": ["hello%%wor.kflow"],
            r"\%hello\_workflow\%\_yoyo": ["%hello_workflow%_yoyo"],
            "%wor_kflow": ["%%wor.kflow", "hello%%wor.kflow"],
            "%wor.k%": ["%%wor.kflow", "hello%%wor.kflow"],
            r"h\ello%": ["hello%%", "hello%%wor.kflow", "hello_", "hello_workflow"],
        }
        for pattern, names in expected.items():
            assert await _list(store, base, pattern) == names, pattern

    @row("ST-77", "ST-78")
    @needs(KEYS)
    @contract
    async def test_paging_goes_on_while_keys_change(self, store: StateStore, base: str) -> None:
        await _fill(store, base, ["key1", "key2", "key3", "key4"])
        first = await store.keys(f"{base}%", page_size=3)
        assert [len(first.keys), first.token is None] == [3, False]
        await store.delete(f"{base}key1")
        await store.delete(f"{base}key3")
        await _fill(store, base, ["key5", "key0"])
        rest = await store.keys(f"{base}%", token=first.token)
        assert rest.token is None
        assert f"{base}key4" in rest.keys
        again = await store.keys(f"{base}%", page_size=3)
        assert (len(again.keys), again.token is None) == (3, False)
        two = await store.keys(f"{base}%", page_size=2)
        assert (len(two.keys), two.token is None) == (2, False)
        whole = await store.keys(f"{base}%")
        assert (list(whole.keys), whole.token) == ([f"{base}key{number}" for number in (0, 2, 4, 5)], None)

    @row("stricter-029")
    @needs(KEYS)
    @contract
    async def test_keys_present_throughout_appear_exactly_once(self, store: StateStore, base: str) -> None:
        stable = [f"{base}stable{number:03}" for number in range(100)]
        await _fill(store, "", stable)
        for size in (7, 30):
            seen: list[str] = []
            token: str | None = None
            turn = 0
            while True:
                page = await store.keys(f"{base}%", page_size=size, token=token)
                assert len(page.keys) <= size
                seen += page.keys
                token = page.token
                if token is None:
                    break
                turn += 1
                assert turn < 200
                await store.bulk_set([SetOperation(key, turn) for key in stable[turn % 3 :: 3]])
                await store.bulk_set([SetOperation(f"{base}come{turn}{letter}", b"") for letter in "az"])
                await store.bulk_delete([f"{base}come{turn - 1}{letter}" for letter in "az"])
            assert [key for key in seen if key in stable] == stable
            assert len(seen) == len(set(seen))

    @row("stricter-030")
    @needs(KEYS)
    @contract
    async def test_case_and_line_breaks_count(self, store: StateStore, base: str) -> None:
        await _fill(store, base, ["Upper", "upper", "line\nbreak", "É", "é", "日本"])
        assert await _list(store, base, "upper") == ["upper"]
        assert await _list(store, base, "U%") == ["Upper"]
        assert await _list(store, base, "line%") == ["line\nbreak"]
        assert await _list(store, base, "line_break") == ["line\nbreak"]
        assert await _list(store, base, "é") == ["é"]
        assert await _list(store, base, "日_") == ["日本"]

    @row("stricter-030")
    @needs(KEYS)
    async def test_arguments_that_make_no_sense_are_refused(self, store: StateStore, base: str) -> None:
        await _fill(store, base, ["a", "b"])
        for size in (0, -1):
            with pytest.raises(InvalidArgumentError):
                await store.keys(f"{base}%", page_size=size)
        for pattern in (f"{base}\\", f"{base}%\\", f"{base}\x00%"):
            with pytest.raises(InvalidArgumentError):
                await store.keys(pattern)
        # A token is a place in the order of keys, so that of a key long gone still works.
        page = await store.keys(f"{base}%", token=f"{base}a\U0010ffff")
        assert list(page.keys) == [f"{base}b"]

    @row("stricter-029")
    @needs(KEYS)
    async def test_listings_at_once_do_not_disturb_each_other(self, store: StateStore, base: str) -> None:
        await _fill(store, base, NAMES)

        async def walk(size: int) -> list[str]:
            keys: list[str] = []
            token = None
            while True:
                page = await store.keys(f"{base}%", page_size=size, token=token)
                keys += page.keys
                token = page.token
                if token is None:
                    return keys

        walks = await asyncio.gather(*(walk(size) for size in range(1, 14)))
        assert all(keys == sorted(base + name for name in NAMES) for keys in walks)

    @row("ST-80")
    @lacks(KEYS)
    async def test_undeclared_listing_is_refused(self, store: StateStore) -> None:
        with pytest.raises(UnsupportedError):
            await store.keys("%")

    @row("ST-60", "ST-61", "ST-62", "ST-63")
    @needs(PREFIX)
    @contract
    async def test_prefix_delete_removes_what_is_directly_below(self, store: StateStore, base: str) -> None:
        names = ["prefix||key1", "prefix||key2", "prefix||prefix2||key3", "other-prefix||key1", "no-prefix"]
        names += ["prefix||", "prefix", "Prefix||key1", "prefix|key1", "pre%fix||key", "pre_fix||key", "preXfix||key"]
        await store.bulk_set([SetOperation(base + name, name.encode()) for name in names])

        async def left() -> list[str]:
            rows = await store.bulk_get([base + name for name in names])
            return [name for name, row in zip(names, rows, strict=True) if row.item is not None]

        assert await left() == names
        assert await store.delete_with_prefix(f"{base}prefix||") == 3
        assert await left() == names[2:5] + names[6:]
        assert await store.delete_with_prefix(f"{base}other-prefix") == 1
        assert await store.delete_with_prefix(f"{base}pre_fix") == 1
        assert await store.delete_with_prefix(f"{base}pre%fix||") == 1
        assert await left() == [
            "prefix||prefix2||key3",
            "no-prefix",
            "prefix",
            "Prefix||key1",
            "prefix|key1",
            "preXfix||key",
        ]
        assert await store.delete_with_prefix(f"{base}prefix") == 0

    @row("ST-64", "ST-65")
    @needs(PREFIX)
    @pytest.mark.parametrize("prefix", ["", "||"])
    async def test_an_empty_prefix_is_refused(self, store: StateStore, prefix: str) -> None:
        with pytest.raises(InvalidArgumentError, match="prefix is required"):
            await store.delete_with_prefix(prefix)

    @row("ST-66")
    @lacks(PREFIX)
    async def test_undeclared_prefix_delete_is_refused(self, store: StateStore, base: str) -> None:
        await store.set(f"{base}||key", b"kept")
        with pytest.raises(UnsupportedError):
            await store.delete_with_prefix(base)
        assert (await found(store, f"{base}||key")).data == b"kept"


async def _fill(store: StateStore, base: str, names: list[str]) -> None:
    outcomes = await store.bulk_set([SetOperation(base + name, None) for name in names])
    assert [outcome.error for outcome in outcomes] == [None] * len(names)


async def _list(store: StateStore, base: str, pattern: str) -> list[str]:
    page = await store.keys(base + pattern)
    assert page.token is None
    return [key.removeprefix(base) for key in page.keys]
