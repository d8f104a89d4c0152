"""Values: what is stored comes back."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from ...component import Component
from ...descriptor import Capability
from ...errors import InvalidArgumentError, LapelError
from ...state import SetOperation, StateStore
from ..marks import contract, needs, row
from ..subject import Subject
from .base import StateBase, found

__all__ = ["BasicTests"]

JSON_TYPE = "application/json"
# An int32 field of -1 is ten bytes on the wire: a tag and a varint that is not UTF-8.
PROTOBUF = b"\x08" + b"\xff" * 9 + b"\x01"


def _deep(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


class BasicTests(StateBase):
    """Get, set and delete of every kind of value."""

    @row("ST-02", "ST-03")
    @contract
    async def test_values_of_every_type_come_back(self, store: StateStore, base: str) -> None:
        values = {
            "int": 123,
            "bool": True,
            "string-with-json": '{"a":"b"}',
            "string": "hello world",
            "empty-string": "",
            "struct": {"message": f"test{base}"},
            "nested": {"product": {"value": 15}, "status": "ACTIVE", "message": f"{base}message"},
            "struct-with-int": {"message": 42},
        }
        for name, value in values.items():
            await store.set(f"{base}-{name}", value)
        for name, value in values.items():
            item = await found(store, f"{base}-{name}")
            assert item.json() == value
            assert type(item.json()) is type(value)
        assert (await found(store, f"{base}-string")).data == b'"hello world"'
        assert (await found(store, f"{base}-string")).text() == "hello world"
        assert (await found(store, f"{base}-empty-string")).data == b'""'
        await store.set(f"{base}-bytes", b"\x01")
        assert (await found(store, f"{base}-bytes")).data == b"\x01"

    @row("ST-03")
    async def test_the_last_write_wins(self, store: StateStore, base: str) -> None:
        for number in range(5):
            await store.set(base, number)
        assert (await found(store, base)).json() == 4

    @row("ST-04")
    @contract
    async def test_a_deleted_key_is_gone_and_a_missing_one_can_be_deleted(self, store: StateStore, base: str) -> None:
        await store.set(f"{base}-kept", b"kept")
        await store.set(base, b"to be deleted")
        await store.delete(base)
        await store.delete(base)
        await store.delete(f"{base}-never")
        assert await store.get(base) is None
        assert await store.get(f"{base}-never") is None
        assert (await found(store, f"{base}-kept")).data == b"kept"

    @row("ST-05")
    @contract
    async def test_bytes_that_are_not_text_come_back_unchanged(self, store: StateStore, base: str) -> None:
        await store.set(base, PROTOBUF)
        assert (await found(store, base)).data == PROTOBUF

    @row("stricter-018")
    @contract
    async def test_every_byte_comes_back(self, store: StateStore, base: str) -> None:
        await store.set(base, bytes(range(256)))
        assert (await found(store, base)).data == bytes(range(256))

    @row("stricter-018")
    @contract
    async def test_an_empty_value_is_not_a_missing_one(self, store: StateStore, base: str) -> None:
        await store.set(base, b"full")
        await store.set(base, b"")
        assert (await found(store, base)).data == b""
        assert (await store.bulk_get([base]))[0].item is not None
        assert await store.get(f"{base}-missing") is None

    @row("stricter-018")
    @pytest.mark.parametrize(
        "text",
        [
            "⏱️👩‍👩‍👧",
            "שלום מרחבא",
            "nul \x00 inside",
            "\"quotes\" and 'more'",
            "back\\slash \\u0041",
            "line\r\nbreak\u2028",
        ],
        ids=["emoji", "right-to-left", "nul", "quotes", "backslashes", "line-breaks"],
    )
    async def test_awkward_text_comes_back(self, store: StateStore, base: str, text: str) -> None:
        await store.set(base, {"text": text, "list": [text]})
        await store.set(f"{base}-plain", text)
        await store.set(f"{base}-bytes", text.encode())
        assert (await found(store, base)).json() == {"text": text, "list": [text]}
        assert (await found(store, f"{base}-plain")).text() == text
        assert (await found(store, f"{base}-bytes")).data == text.encode()

    @row("stricter-018", "stricter-019")
    async def test_values_that_json_cannot_hold_are_refused_and_nothing_is_stored(
        self, store: StateStore, base: str
    ) -> None:
        for value in (math.nan, math.inf, -math.inf, [math.nan], "lone \ud800 surrogate", object(), {(1, 2): 3}):
            with pytest.raises(InvalidArgumentError):
                await store.set(base, value)
        assert await store.get(base) is None

    @row("stricter-019")
    async def test_json_survives_exactly(self, store: StateStore, base: str) -> None:
        values = [2**53 + 1, -(2**63), 1e308, 5e-324, 10**30, None, [], {}, [1, [2, [3]]], "", 0.1, _deep(100)]
        for number, value in enumerate(values):
            await store.set(f"{base}-{number}", value)
        for number, value in enumerate(values):
            got = (await found(store, f"{base}-{number}")).json()
            assert got == value
            assert type(got) is type(value)
        await store.set(base, -0.0)
        assert math.copysign(1, (await found(store, base)).json()) == -1

    @row("stricter-019", "ST-23")
    @contract
    async def test_json_given_as_bytes_stays_json(self, store: StateStore, base: str) -> None:
        data = b'{"id": 1223, "name": "test", "name2": "\\u00e9 \xc3\xa9", "big": 123456789012345678901234567890}'
        await store.set(base, data, content_type=JSON_TYPE)
        await store.set(f"{base}-untyped", data)
        assert json.loads((await found(store, base)).data) == json.loads(data)
        assert (await found(store, f"{base}-untyped")).data == data

    @row("stricter-020")
    @pytest.mark.parametrize("mebibytes", [1, 5])
    async def test_a_large_value_comes_back_exactly(self, store: StateStore, base: str, mebibytes: int) -> None:
        value = bytes(range(251)) * (mebibytes * 1048576 // 251 + 1)
        limit = store.limits.value_bytes
        if limit is not None and limit < len(value):
            with pytest.raises(InvalidArgumentError):
                await store.set(base, value)
            assert await store.get(base) is None
        else:
            await store.set(base, value)
            assert (await found(store, base)).data == value

    @row("stricter-020")
    async def test_a_value_at_the_limit_is_taken_and_one_byte_more_is_refused(
        self, store: StateStore, base: str
    ) -> None:
        limit = store.limits.value_bytes
        if limit is None or limit > 64 << 20:
            pytest.skip("the store states no limit, or one too large to try")
        await store.set(base, b"x" * limit)
        assert len((await found(store, base)).data) == limit
        with pytest.raises(InvalidArgumentError):
            await store.set(base, b"y" * (limit + 1))
        assert (await found(store, base)).data[:1] == b"x"

    @row("stricter-033")
    @needs(Capability.CONTENT_TYPE)
    @contract
    async def test_the_content_type_comes_back(self, store: StateStore, base: str) -> None:
        await store.set(base, b"<p>", content_type="text/html; charset=utf-8")
        await store.set(f"{base}-none", b"raw")
        await store.set(f"{base}-json", {"a": 1})
        assert (await found(store, base)).content_type == "text/html; charset=utf-8"
        assert (await found(store, f"{base}-none")).content_type is None
        assert (await found(store, f"{base}-json")).content_type == JSON_TYPE
        rows = await store.bulk_get([base, f"{base}-json"])
        assert [row.item and row.item.content_type for row in rows] == ["text/html; charset=utf-8", JSON_TYPE]
        await store.set(base, b"raw")
        assert (await found(store, base)).content_type is None

    @row("stricter-137")
    async def test_what_the_caller_keeps_is_not_shared_with_the_store(self, store: StateStore, base: str) -> None:
        data, document = bytearray(b"before"), {"list": [1]}
        await store.set(base, data)
        await store.set(f"{base}-json", document)
        data[:] = b"after!"
        document["list"].append(2)
        assert (await found(store, base)).data == b"before"
        got = (await found(store, f"{base}-json")).json()
        assert got == {"list": [1]}
        got["list"].append(3)
        assert (await found(store, f"{base}-json")).json() == {"list": [1]}
        assert type((await found(store, base)).data) is bytes

    @row("stricter-026", "stricter-137")
    async def test_arguments_are_the_same_before_and_after(self, store: StateStore, base: str) -> None:
        metadata = {"partitionKey": base}
        operations = [SetOperation(f"{base}-{number}", {"n": [number]}, metadata=metadata) for number in range(3)]
        before = [(one.key, json.dumps(one.value), one.etag, dict(one.metadata)) for one in operations]
        await store.bulk_set(operations)
        await store.set(base, b"x", metadata=metadata)
        await store.get(base, metadata=metadata)
        await store.delete(base, metadata=metadata)
        assert [(one.key, json.dumps(one.value), one.etag, dict(one.metadata)) for one in operations] == before
        assert len(operations) == 3
        assert metadata == {"partitionKey": base}

    @row("stricter-135")
    async def test_two_components_share_data_only_as_pinned(
        self, subject: Subject, store: StateStore, base: str
    ) -> None:
        shared = self.option(subject, "shared") == "true"
        async with self.build(subject) as other:
            assert isinstance(other, StateStore)
            await store.set(base, b"mine")
            item = await other.get(base)
            assert (item is not None) == shared, "set `shared` in the options of the Conformance document"
            await other.set(f"{base}-theirs", b"theirs")
        assert (await store.get(f"{base}-theirs") is not None) == shared
        assert (await found(store, base)).data == b"mine"

    @row("stricter-032")
    async def test_many_components_open_one_backend_at_once(self, subject: Subject, base: str) -> None:
        components = [self.build(subject) for _ in range(4)]
        try:
            opened = await _open_all(components)
            for number, component in enumerate(opened):
                await self.exercise(component, f"{base}-{number}")
        finally:
            for component in components:
                await component.aclose()

    @row("stricter-136")
    async def test_a_refusal_does_not_show_the_value(self, store: StateStore, base: str) -> None:
        value = f"canary{base}"
        attempts: list[tuple[str, dict[str, Any]]] = [
            ("", {}),
            ("nul\x00", {}),
            (base, {"ttl": -7}),
            (base, {"consistency": "weird"}),
            (base, {"metadata": {"ttlInSeconds": "soon"}}),
        ]
        for key, fields in attempts:
            with pytest.raises(LapelError) as caught:
                await store.set(key, value, **fields)
            assert value not in str(caught.value)
            assert value not in repr(caught.value)


async def _open_all(components: list[Component[Any]]) -> list[Component[Any]]:
    return list(await asyncio.gather(*(component.open() for component in components)))
