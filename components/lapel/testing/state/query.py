"""Queries."""

from __future__ import annotations

from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError, UnsupportedError
from ...state import SetOperation, StateStore
from ..marks import contract, lacks, needs, row
from .base import StateBase, found

__all__ = ["QueryTests"]

QUERY = Capability.QUERY_API
METADATA = {"contentType": "application/json", "queryIndexName": "qIndx"}


class QueryTests(StateBase):
    """Dapr's query document. Hits without a sort are compared as a set."""

    @row("ST-06")
    @needs(QUERY)
    @contract
    async def test_the_queries_of_the_reference(self, store: StateStore, base: str) -> None:
        await _fill(store, base)
        message = f"{base}message"
        either = [f"test{base}", "dummy"]
        active = [{"EQ": {"message": message}}, {"GTE": {"product.value": 10}}, {"LT": {"product.value": 20}}]
        inactive = [{"EQ": {"message": message}}, {"GT": {"product.value": 11.1}}, {"EQ": {"status": "INACTIVE"}}]
        cheap = [{"EQ": {"message": message}}, {"LTE": {"product.value": 0.5}}, {"EQ": {"status": "ACTIVE"}}]
        cases: list[tuple[dict[str, Any], set[str]]] = [
            ({"OR": [{"EQ": {"message": "dummy"}}, {"IN": {"message": either}}]}, {"struct"}),
            ({"AND": [*active, {"NEQ": {"status": "INACTIVE"}}]}, {"struct-operations"}),
            ({"OR": [{"AND": inactive}, {"AND": cheap}]}, {"struct-operations-inactive"}),
            ({"OR": [{"EQ": {"message": f"{base}test"}}, {"IN": {"message": either}}]}, {"struct", "struct-2"}),
        ]
        for filter_, expected in cases:
            keys = await _keys(store, base, {"filter": filter_})
            assert len(keys) == len(set(keys))
            assert set(keys) == expected

    @row("ST-06")
    @needs(QUERY)
    @needs(Capability.PARTITION_KEY)
    async def test_a_query_is_limited_to_a_partition(self, store: StateStore, base: str) -> None:
        await _fill(store, base)
        filter_ = {"IN": {"message": [f"test{base}", f"{base}test"]}}
        result = await store.query({"filter": filter_}, metadata={**METADATA, "partitionKey": f"{base}-struct-2"})
        assert [hit.key for hit in result.items] == [f"{base}-struct-2"]

    @row("ST-06")
    @needs(QUERY)
    @contract
    async def test_hits_carry_key_data_and_etag(self, store: StateStore, base: str) -> None:
        await _fill(store, base)
        result = await store.query({"filter": {"EQ": {"message": f"{base}test"}}}, metadata=METADATA)
        stored = await found(store, f"{base}-struct-2")
        assert [hit.key for hit in result.items] == [f"{base}-struct-2"]
        assert result.items[0].item.json() == {"message": f"{base}test"}
        assert result.items[0].item.etag == stored.etag
        assert result.token is None

    @row("ST-07")
    @lacks(QUERY)
    async def test_undeclared_query_is_refused(self, store: StateStore) -> None:
        with pytest.raises(UnsupportedError):
            await store.query({"filter": {"EQ": {"a": 1}}})

    @row("stricter-031")
    @needs(QUERY)
    @contract
    async def test_several_sort_keys_and_paging_to_the_end(self, store: StateStore, base: str) -> None:
        operations = [
            SetOperation(f"{base}-{number:02}", {"base": base, "group": number % 3, "number": number})
            for number in range(20)
        ]
        await store.bulk_set(operations)
        query: dict[str, Any] = {
            "filter": {"EQ": {"base": base}},
            "sort": [{"key": "group"}, {"key": "number", "order": "DESC"}],
        }
        expected = [f"{number:02}" for number in sorted(range(20), key=lambda number: (number % 3, -number))]
        assert await _keys(store, base, query) == expected
        keys: list[str] = []
        token: str | None = None
        for _ in range(20):
            page = {"limit": 6} if token is None else {"limit": 6, "token": token}
            result = await store.query({**query, "page": page}, metadata=METADATA)
            assert len(result.items) <= 6
            keys += [hit.key.removeprefix(f"{base}-") for hit in result.items]
            token = result.token
            if token is None:
                break
        assert keys == expected

    @row("stricter-031")
    @needs(QUERY)
    @contract
    async def test_an_empty_filter_selects_every_document(self, store: StateStore, base: str) -> None:
        await _fill(store, base)
        names = {"struct", "struct-operations", "struct-operations-inactive", "struct-2"}
        queries: list[dict[str, Any]] = [{}, {"filter": {}}]
        for query in queries:
            keys = await _keys(store, base, query)
            assert {key for key in keys if key.startswith(("struct", "bytes"))} == names

    @row("stricter-031")
    @needs(QUERY)
    @contract
    async def test_quotes_types_and_absent_members(self, store: StateStore, base: str) -> None:
        texts = ["it's", 'say "hi"', "back\\slash", "a.b", "", "Ünï", "1", "null"]
        for number, text in enumerate(texts):
            await store.set(f"{base}-{number}", {"base": base, "text": text})
        await store.set(f"{base}-number", {"base": base, "text": 1, "flag": True})
        await store.set(f"{base}-null", {"base": base, "text": None})
        await store.set(f"{base}-absent", {"base": base})

        async def keys(filter_: dict[str, Any]) -> set[str]:
            return set(await _keys(store, base, {"filter": {"AND": [{"EQ": {"base": base}}, filter_]}}))

        for number, text in enumerate(texts):
            assert await keys({"EQ": {"text": text}}) == {str(number)}
            assert await keys({"IN": {"text": [text]}}) == {str(number)}
        assert await keys({"EQ": {"text": 1}}) == {"number"}
        assert await keys({"EQ": {"flag": True}}) == {"number"}
        assert await keys({"EQ": {"flag": 1}}) == set()
        assert await keys({"EQ": {"text": None}}) == {"null"}
        assert await keys({"NEQ": {"text": "it's"}}) == {*map(str, range(1, len(texts))), "number", "null"}
        assert await keys({"GT": {"text": 0}}) == {"number"}

    @row("stricter-031")
    @needs(QUERY)
    async def test_a_document_that_is_no_query_is_refused(self, store: StateStore) -> None:
        wrong: list[Any] = [
            "no json",
            [],
            {"filter": {"LIKE": {"a": "b"}}},
            {"filter": {"EQ": {"a": 1, "b": 2}}},
            {"filter": {"EQ": {}}},
            {"filter": {"AND": [{"EQ": {"a": 1}}]}},
            {"filter": {"IN": {"a": []}}},
            {"filter": {"GT": {"a": "text"}}},
            {"sort": [{"key": "a", "order": "sideways"}]},
            {"page": {"limit": -1}},
            {"page": {"token": "made up", "limit": 1}},
            {"limit": 1},
        ]
        for query in wrong:
            with pytest.raises(InvalidArgumentError):
                await store.query(query)


async def _fill(store: StateStore, base: str) -> None:
    documents = {
        "struct": {"message": f"test{base}"},
        "struct-operations": {"product": {"value": 15}, "status": "ACTIVE", "message": f"{base}message"},
        "struct-operations-inactive": {"product": {"value": 12}, "status": "INACTIVE", "message": f"{base}message"},
        "struct-2": {"message": f"{base}test"},
    }
    await store.bulk_set([SetOperation(f"{base}-{name}", value) for name, value in documents.items()])
    # What is not JSON is never found.
    await store.set(f"{base}-bytes", b"\xff\x00", content_type="application/octet-stream")


async def _keys(store: StateStore, base: str, query: dict[str, Any]) -> list[str]:
    result = await store.query(query, metadata=METADATA)
    return [hit.key.removeprefix(f"{base}-") for hit in result.items]
