from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError
from lapel.state import QueryRequest, StateDriver, StateItem, StateStore
from lapel.state.like import compile_like
from lapel.state.query import decode_token, encode_token, matches, parse_query, select
from lapel_contrib.memory.settings import MemoryStateSettings
from lapel_contrib.memory.state import MemoryState
from lapel_contrib.sqlite.settings import SqliteStateSettings
from lapel_contrib.sqlite.state import SqliteState

DRIVERS: dict[str, Callable[[], StateDriver[Any]]] = {
    "memory": lambda: MemoryState(MemoryStateSettings(), DriverContext(component="store")),
    "sqlite": lambda: SqliteState(SqliteStateSettings(connection_string=":memory:"), DriverContext(component="store")),
}
VALUE = {
    "text": "x",
    "number": 1,
    "real": 1.5,
    "zero": 0,
    "yes": True,
    "none": None,
    "list": [1],
    "deep": {"er": {"é": "ü"}},
    "big": 2**53 + 1,
    "odd name": 1,
}
CASES: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"EQ": {"text": "x"}}, True),
    ({"EQ": {"text": "X"}}, False),
    ({"EQ": {"number": 1.0}}, True),
    ({"EQ": {"number": True}}, False),
    ({"EQ": {"number": "1"}}, False),
    ({"EQ": {"yes": True}}, True),
    ({"EQ": {"yes": 1}}, False),
    ({"EQ": {"none": None}}, True),
    ({"EQ": {"missing": None}}, False),
    ({"EQ": {"deep.er.é": "ü"}}, True),
    ({"EQ": {"odd name": 1}}, True),
    ({"EQ": {"list": "[1]"}}, False),
    ({"EQ": {"list.0": 1}}, False),
    ({"EQ": {"big": 2**53}}, False),
    ({"EQ": {"big": 2**53 + 1}}, True),
    ({"EQ": {"text": 'x" OR 1=1 --'}}, False),
    ({"NEQ": {"text": "y"}}, True),
    ({"NEQ": {"text": "x"}}, False),
    ({"NEQ": {"number": "1"}}, True),
    ({"NEQ": {"none": "x"}}, True),
    ({"NEQ": {"list": 1}}, True),
    ({"NEQ": {"missing": "x"}}, False),
    ({"GT": {"number": 0.5}}, True),
    ({"GT": {"number": 1}}, False),
    ({"GTE": {"number": 1}}, True),
    ({"LT": {"real": 1.5}}, False),
    ({"LTE": {"real": 1.5}}, True),
    ({"LT": {"text": 9}}, False),
    ({"LT": {"yes": 9}}, False),
    ({"LT": {"number": 10**400}}, True),
    ({"GT": {"number": -(10**30)}}, True),
    ({"GTE": {"missing": 0}}, False),
    ({"IN": {"text": ["x"]}}, True),
    ({"IN": {"number": ["x", 2, True, None, 1]}}, True),
    ({"IN": {"number": ["1", 2, True, None]}}, False),
    ({"IN": {"none": [1, None]}}, True),
    ({"AND": [{"EQ": {"number": 1}}, {"EQ": {"text": "x"}}]}, True),
    ({"AND": [{"EQ": {"number": 1}}, {"NEQ": {"text": "x"}}]}, False),
    ({"OR": [{"EQ": {"missing": 1}}, {"AND": [{"GT": {"real": 1}}, {"LT": {"real": 2}}]}]}, True),
]
BAD: list[Any] = [
    "no JSON",
    b"\xff",
    "[]",
    {"filters": {}},
    {"filter": []},
    {"filter": {"EQ": {"a": 1}, "NEQ": {"b": 1}}},
    {"filter": {"LIKE": {"a": "x%"}}},
    {"filter": {"eq": {"a": 1}}},
    {"filter": {"EQ": {}}},
    {"filter": {"EQ": {"a": 1, "b": 1}}},
    {"filter": {"EQ": {"a": [1]}}},
    {"filter": {"EQ": {"a": float("nan")}}},
    {"filter": {"EQ": {"a": "\ud800"}}},
    {"filter": {"EQ": {"": 1}}},
    {"filter": {"EQ": {"a..b": 1}}},
    {"filter": {"GT": {"a": "1"}}},
    {"filter": {"GT": {"a": True}}},
    {"filter": {"IN": {"a": []}}},
    {"filter": {"IN": {"a": "x"}}},
    {"filter": {"AND": [{"EQ": {"a": 1}}]}},
    {"filter": {"OR": {}}},
    {"sort": {"key": "a"}},
    {"sort": [{"key": "a", "order": "UP"}]},
    {"sort": [{"order": "ASC"}]},
    {"page": {"limit": -1}},
    {"page": {"limit": "10"}},
    {"page": {"token": 5}},
    {"page": {"size": 5}},
]


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"EQ": {"a": 1}}
    for _ in range(depth - 1):
        found = {"OR": [found, {"EQ": {"a": 1}}]}
    return {"filter": found}


@pytest.mark.parametrize(("filter", "expected"), CASES, ids=lambda case: json.dumps(case)[:60])
def test_filter_decides_by_the_documented_rules(filter: dict[str, Any], expected: bool) -> None:
    assert matches(parse_query({"filter": filter}).filter, VALUE) is expected


@pytest.mark.parametrize("name", DRIVERS)
async def test_every_driver_decides_alike(name: str) -> None:
    async with StateStore(DRIVERS[name]()) as store:
        await store.set("key", VALUE)
        for condition, expected in CASES:
            found = await store.query(json.dumps({"filter": condition}))
            assert [hit.key for hit in found.items] == ["key"] * expected, condition


@pytest.mark.parametrize("document", BAD, ids=repr)
def test_what_is_not_a_query_is_refused(document: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_query(document)


def test_filters_nest_to_a_bound() -> None:
    parse_query(nested(50))
    with pytest.raises(InvalidArgumentError, match="nested"):
        parse_query(nested(51))


def test_absent_parts_have_their_defaults() -> None:
    query = parse_query(b'{"sort": [{"key": "a.b"}, {"key": "c", "order": "DESC"}], "page": {"limit": 0, "token": ""}}')
    assert (query.filter, query.limit, query.token) == (None, None, None)
    assert query.sort == (("a.b", False), ("c", True))


@pytest.mark.parametrize("name", DRIVERS)
async def test_values_of_different_types_have_one_order(name: str) -> None:
    values: list[Any] = [{}, {"v": None}, {"v": False}, {"v": True}, {"v": -1}, {"v": 0.5}, {"v": 2**60}]
    values += [{"v": "B"}, {"v": "a"}, {"v": "\uffff"}, {"v": "\U0001f600"}]
    async with StateStore(DRIVERS[name]()) as store:
        for index, value in enumerate(reversed(values)):
            await store.set(f"{index:02}", value)
        for order, expected in (("ASC", values), ("DESC", values[::-1])):
            found = await store.query({"sort": [{"key": "v", "order": order}]})
            assert [hit.item.json() for hit in found.items] == expected


@pytest.mark.parametrize("name", DRIVERS)
async def test_paging_meets_every_hit_once_while_others_come_and_go(name: str) -> None:
    sort = [{"key": "group", "order": "DESC"}, {"key": "number"}]
    async with StateStore(DRIVERS[name]()) as store:
        for index in range(20):
            await store.set(f"k{index:02}", {"group": index % 3, "number": index % 4 / 3})
        whole = [hit.key for hit in (await store.query({"sort": sort})).items]
        paged: list[str] = []
        token, round_ = "", 0
        while True:
            page = await store.query({"sort": sort, "page": {"limit": 3, "token": token}})
            paged += [hit.key for hit in page.items]
            if page.token is None:
                break
            token, round_ = page.token, round_ + 1
            await store.set(f"a{round_}", {"group": 9, "number": 0})
            await store.delete(paged[-1])
        assert paged == whole
        page = await store.query({"filter": {"EQ": {"group": 9}}, "page": {"limit": round_}})
        assert (len(page.items), page.token) == (round_, None), "a page that is exactly full is the last one"


@pytest.mark.parametrize("name", DRIVERS)
async def test_only_live_json_below_the_prefix_is_found(name: str) -> None:
    async with StateStore(DRIVERS[name]()) as store:
        await store.set("a*||1", {"a": 1})
        await store.set("ab||1", {"a": 1})
        await store.set("a*||2", b'{"a":1}')
        await store.set("a*||3", b"{no JSON", content_type="application/json")
        await store.set("a*||4", "text")
        found = await store.driver.query(QueryRequest(key_prefix="a*||"))
        assert [hit.key for hit in found.items] == ["a*||1", "a*||4"]
        assert found.items[0].item.etag


@pytest.mark.parametrize("token", ["x", "=", "e30=", "W1tdLCAia2V5Il0=", encode_token([(4, 1)] * 2, "k")])
async def test_token_of_another_query_is_refused(token: str) -> None:
    for make in DRIVERS.values():
        async with StateStore(make()) as store:
            with pytest.raises(InvalidArgumentError, match=r"page\.token"):
                await store.query({"sort": [{"key": "a"}], "page": {"token": token}})


@pytest.mark.parametrize("values", [[[4, 2**70]], [[4, "x"]], [[5, "\ud800"]], [[5, 1]], [[7, 0]], [[2**70, 0]], [[1]]])
def test_token_that_no_page_ever_had_is_refused(values: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        decode_token(encode_token(values, "key"), [("a", False)])


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
documents = st.dictionaries(st.sampled_from(["a", "b"]), scalars | texts, max_size=2)
operators = st.sampled_from(["EQ", "NEQ"])


@given(st.lists(documents, max_size=6), operators, scalars | texts, st.sampled_from(["ASC", "DESC"]))
def test_sqlite_finds_what_the_evaluator_finds(
    values: list[dict[str, Any]], operator: str, operand: Any, order: str
) -> None:
    async def ask() -> list[list[str]]:
        document = {"filter": {operator: {"a": operand}}, "sort": [{"key": "b", "order": order}]}
        answers = []
        for make in DRIVERS.values():
            async with StateStore(make()) as store:
                for index, value in enumerate(values):
                    await store.set(str(index), value)
                answers.append([hit.key for hit in (await store.query(document)).items])
        return answers

    memory, sqlite = asyncio.run(ask())
    assert memory == sqlite


def test_items_that_are_not_json_are_left_out_by_the_evaluator() -> None:
    items = [("a", StateItem(data=b"NaN")), ("b", StateItem(data=b"[" * 100_000)), ("c", StateItem(data=b"1"))]
    assert [hit.key for hit in select(QueryRequest(), items).items] == ["c"]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("%", ["", "a", "a\nb"], []),
        ("abc_", ["abc1", "abc\n", "abc\U0001f600"], ["abc", "abc12", "ABC1"]),
        ("a%c%e", ["ace", "abcde", "acece"], ["ac", "aec", "acex"]),
        ("%%a%%", ["a", "xax"], ["b"]),
        (r"hello\_workflow", ["hello_workflow"], ["helloXworkflow"]),
        (r"hello%\%", ["hello%%", "hello%"], ["hello"]),
        (r"a\\%", ["a\\b"], ["ab"]),
        (".*", [".*"], ["ab"]),
    ],
)
def test_like_patterns_mean_what_sql_says(pattern: str, yes: list[str], no: list[str]) -> None:
    expression = compile_like(pattern)
    assert all(expression.fullmatch(key) for key in yes)
    assert not any(expression.fullmatch(key) for key in no)


def test_hostile_like_pattern_takes_no_time() -> None:
    assert compile_like("%a" * 200 + "b").fullmatch("a" * 2000) is None
