"""Reading items."""

from __future__ import annotations

from typing import Any

import pytest

from ...configuration import ConfigurationItem, ConfigurationStore
from ...descriptor import Capability
from ...errors import InvalidArgumentError, UnsupportedError
from ..marks import contract, lacks, row
from ..subject import Subject
from .base import ConfigurationBase, Inbox
from .writers import ConfigurationWriter

__all__ = ["ReadingTests", "block"]

TEXTS = {
    "bars": "a||b||",
    "lines": "first\nsecond\r\n\tthird\n",
    "unicode": "ünïcode ☃ 日本 😀",
    "large": "x" * 65536,
    "number": "0644",
    "truth": "yes",
    "json": '{"a": [1, "two"]}',
    "quotes": "\"double\" 'single' \\ # : %",
    "spaces": "  around  ",
}


class ReadingTests(ConfigurationBase):
    """Get."""

    @row("CF-01", "CF-02")
    @contract
    async def test_named_items_are_read_with_version_and_metadata(
        self, subject: Subject, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        first, second = block(base, 1), block(base, 2)
        metadata = self.metadata(subject, owner="ops", reason="a test")
        extra = {f"{base}-extra": ConfigurationItem("value", "2", metadata)}
        writer.put({**first, **second, **extra})
        assert await store.get(first) == first
        assert await store.get(extra) == extra
        writer.remove([*first, *second, *extra])

    @row("CF-03")
    @contract
    async def test_without_names_all_items_are_read(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        before = set(await store.get())
        items = {**block(base, 1), **block(base, 2)}
        writer.put(items)
        found = await store.get()
        assert {key: item for key, item in found.items() if key not in before} == items
        assert before <= set(found)
        writer.remove(items)

    @row("CF-04")
    @contract
    async def test_unknown_names_are_left_out(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        assert await store.get(block(base, 3)) == {}
        item = {f"{base}-key": ConfigurationItem("there")}
        writer.put(item)
        assert await store.get([f"{base}-ke", *item, f"{base}-key2", f"{base}-KEY"]) == item
        writer.remove(item)

    @row("stricter-086")
    @contract
    async def test_an_empty_value_is_there(
        self, subject: Subject, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        if self.option(subject, "emptyValues") != "true":
            pytest.skip("the store cannot hold empty values")
        item = {base: ConfigurationItem("")}
        writer.put(item)
        assert await store.get([base]) == item
        writer.remove(item)
        assert await store.get([base]) == {}

    @row("stricter-092")
    @contract
    @pytest.mark.parametrize("kind", TEXTS)
    async def test_values_come_back_exactly(
        self, subject: Subject, store: ConfigurationStore, writer: ConfigurationWriter, base: str, kind: str
    ) -> None:
        short = TEXTS[kind][:100]
        version = "" if kind == "bars" and self.option(subject, "versionBars") != "true" else short
        item = {base: ConfigurationItem(TEXTS[kind], version, self.metadata(subject, note=short))}
        writer.put(item)
        assert await store.get([base]) == item
        writer.remove(item)

    @row("stricter-092")
    @contract
    async def test_odd_keys_are_told_apart(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        names = (
            "a||b",
            "line\nbreak",
            "ünïcode ☃",
            "with space ",
            "'quotes\"",
            "k" * 1000,
            "UPPER",
            "upper",
            "a.b/c:d",
        )
        items = {f"{base}{name}": ConfigurationItem(name) for name in names}
        writer.put(items)
        assert await store.get(items) == items
        writer.remove(items)

    @row("stricter-094")
    @contract
    async def test_duplicate_and_very_many_keys_give_one_item_each(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        items = {f"{base}-{number}": ConfigurationItem(str(number)) for number in range(1000)}
        writer.put(items)
        assert await store.get([*items, *items, f"{base}-none"]) == items
        writer.remove(items)

    @row("stricter-094")
    async def test_keys_that_are_no_texts_are_refused(self, store: ConfigurationStore) -> None:
        wrong: list[Any] = ["key", [""], ["a\0b"], ["\ud800"], [5]]
        for keys in wrong:
            with pytest.raises(InvalidArgumentError):
                await store.get(keys)

    @row("stricter-137")
    @contract
    async def test_what_is_returned_belongs_to_the_caller(
        self, subject: Subject, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        item = {base: ConfigurationItem("value", "1", self.metadata(subject, owner="ops"))}
        writer.put(item)
        found: Any = await store.get([base])
        found[base].metadata["owner"] = "me"
        found.clear()
        assert await store.get([base]) == item
        writer.remove(item)

    @row("CF-05")
    @lacks(Capability.WATCH)
    async def test_an_undeclared_subscription_is_refused(self, store: ConfigurationStore) -> None:
        with pytest.raises(UnsupportedError):
            await store.subscribe([], Inbox())


def block(base: str, number: int, value: str = "val") -> dict[str, ConfigurationItem]:
    """Return ten items, as the reference suite has them."""
    return {
        f"{base}_key_{number * 10 + one}": ConfigurationItem(f"{base}_{value}_{number * 10 + one}", "1.0.0")
        for one in range(10)
    }
