"""YAML: text stays text, lines are known, hostile files are cheap."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lapel import _yaml
from lapel._yaml import MAX_DEPTH, MAX_NODES, YamlMap, parse_yaml

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(autouse=True, params=LOADERS, ids=lambda loader: loader.__name__, scope="module")
def loader(request: pytest.FixtureRequest) -> Any:
    before = _yaml._LOADER
    _yaml._LOADER = request.param
    yield request.param
    _yaml._LOADER = before


def data(text: str) -> list[Any]:
    documents, problems = parse_yaml(text)
    assert not problems
    return [document.data() for document in documents]


def problem(text: str) -> tuple[int | None, str]:
    documents, problems = parse_yaml(text)
    assert (documents, len(problems)) == ([], 1)
    return problems[0].line, problems[0].message


@pytest.mark.parametrize(
    "text",
    [
        *(
            "0644",
            "1.0",
            "2.10",
            "yes",
            "on",
            "y",
            "no",
            "12:30",
            "2024-01-31",
            "0x10",
            "1_000",
            "08",
            "1e3",
            ".5",
            "1e21",
        ),
        *(".inf", "=", "True", "0o17", "+1", "2001-12-14t21:59:43.10-05:00", "NULLs", "a b", "http://x:1/?a=b#c"),
    ],
)
def test_scalars_stay_as_written(text: str) -> None:
    assert data(f"a: {text}") == [{"a": text}]


@given(st.from_regex(r"[0-9a-zA-Z_.+-][0-9a-zA-Z_.+:-]{0,12}[0-9a-zA-Z]", fullmatch=True))
def test_any_plain_scalar_stays_as_written(text: str) -> None:
    if text.lower() != "null" and not text.startswith("---"):
        assert data(f"a:\n  - {text}" if not text.startswith("-") else f"a:\n  - '{text}'") == [{"a": [text]}]


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_null_is_no_value_and_quoted_it_is_text(text: str) -> None:
    assert data(f"a: {text}") == [{"a": None}]
    assert data(f"a: '{text}'") == [{"a": text}]
    assert data(f"a: !!str {text or 'null'}") == [{"a": text or "null"}]


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=20))
def test_quoted_text_is_itself(text: str) -> None:
    assert data(f"a: {json.dumps(text, ensure_ascii=False)}") == [{"a": text}]


def test_maps_and_lists_become_compact_json() -> None:
    documents, _ = parse_yaml("{b: [1, 1.0, 0644, true, yes, '2', null], a: {x: ü}}")
    assert documents[0].json() == '{"a":{"x":"ü"},"b":[1,1.0,"0644",true,"yes","2",null]}'


def test_lines_count_from_the_start_of_the_file() -> None:
    documents, _ = parse_yaml("# c\n---\na: 1\n---\n\nb: |\n  x\nc: 1\n")
    second = documents[1]
    assert isinstance(second, YamlMap)
    assert second.lines == {"b": 6, "c": 8}


def test_a_broken_document_leaves_its_neighbours_alone() -> None:
    documents, problems = parse_yaml("a: 1\n---\nb: [\n---\nc: 3\n---\n'd\n", "f.yaml")
    assert [document.data() for document in documents] == [{"a": "1"}, {"c": "3"}]
    assert [found.file for found in problems] == ["f.yaml", "f.yaml"]
    assert [found.line for found in problems] == [3, 7]


def test_directives_comments_and_markers_are_understood() -> None:
    assert data("%YAML 1.1\n# c\n---\na: 1\n...\n---\n---\n--- {b: 2}\n--- # c\nc: ----\n") == [
        {"a": "1"},
        {"b": "2"},
        {"c": "----"},
    ]
    assert data("") == data("# c\n") == data("---\n---\n") == []
    assert data("a: 1\r\n---\r\nb: 2\r\n") == [{"a": "1"}, {"b": "2"}]


def test_anchors_and_merge_keys_are_followed() -> None:
    assert data("a: &x {p: 1, q: 2}\nb: *x\nc:\n  <<: *x\n  q: 3\nd: {'<<': 1}") == [
        {"a": {"p": "1", "q": "2"}, "b": {"p": "1", "q": "2"}, "c": {"q": "3", "p": "1"}, "d": {"<<": "1"}}
    ]


def test_a_key_that_stands_twice_is_a_warning() -> None:
    documents, problems = parse_yaml("a: 1\nb: 1\na: 2\n")
    assert documents[0].data() == {"a": "2", "b": "1"}
    assert [(found.line, found.warning) for found in problems] == [(3, True)]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: *kanarie", 2, "no anchor"),
        ("a: &x [*x]", 1, "inside what it refers to"),
        ("a: !kanarie x", 1, "tag"),
        ("a: !!binary kanarie", 1, "tag"),
        ("a: !!set {b}", 1, "tag"),
        ("a: !kanarie!b c", 1, "not valid YAML"),
        ("a: @kanarie", 1, "not valid YAML"),
        ("a: 1\nkanarie", 2, "not valid YAML"),
        ("a: 'kanarie", 1, "not valid YAML"),
        ("\ta: 1", 1, "not valid YAML"),
        ("a: 1\nb: \x01", 2, "control character"),
        ("? [a]\n: b", 1, "keys must be text"),
        ("<<: [1]", 1, "not a map"),
        ("[" * 100_000, 1, f"deeper than {MAX_DEPTH}"),
        ("- " * 100_000, 1, f"deeper than {MAX_DEPTH}"),
        ("{a: " * 1000, 1, f"deeper than {MAX_DEPTH}"),
        ("[" + "a," * (MAX_NODES + 1) + "]", 1, f"more than {MAX_NODES} nodes"),
    ],
)
def test_what_cannot_be_read_is_reported_without_text_from_the_file(text: str, line: int, words: str) -> None:
    found_line, message = problem(text)
    assert found_line == line
    assert words in message
    assert "kanarie" not in message


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert f"more than {MAX_NODES} nodes" in problem("\n".join(lines))[1]
    merges = ["m0: &m0 {" + ",".join(f"k{i}: 1" for i in range(1000)) + "}"]
    merges += [f"m{i}: {{<<: *m0}}" for i in range(1, 100)]
    assert f"more than {MAX_NODES} nodes" in problem("\n".join(merges))[1]


def test_no_node_shows_text_in_its_repr() -> None:
    documents, _ = parse_yaml("a: [kanarie]")
    assert "kanarie" not in repr(documents)
