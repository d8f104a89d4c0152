"""Settings: names, fields of every type, problems, secrets."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from pathlib import Path
from pprint import pformat
from typing import Any, Literal

import pytest

from lapel.errors import Problem, SettingsError
from lapel.settings import UNRESOLVED, ByteSize, Property, Secret, Settings, setting

CANARY = "kanarienvogel-7f3a"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Base(Settings):
    key_prefix: str = setting("keyPrefix", default="appid", doc="How keys are prefixed.")


class Sample(Base):
    url: str = setting("connectionString", aliases=("url", "dsn"), doc="Where the data is.", example="data.db")
    timeout: timedelta = setting(
        "timeout",
        aliases=("timeoutInSeconds",),
        default=timedelta(seconds=20),
        minimum=timedelta(seconds=1),
        maximum=timedelta(hours=1),
        doc="Longest wait.",
    )
    poll: timedelta = setting("pollInterval", default=timedelta(), unit="ms", doc="Pause between polls.")
    disable_wal: bool = setting("disableWAL", default=False, doc="No write-ahead log.")
    max_size: ByteSize = setting("maxSize", default=ByteSize(4096), doc="Largest value.")
    workers: int = setting("workers", default=4, minimum=1, maximum=64, doc="Threads.")
    ratio: float = setting("ratio", default=0.5, doc="Share.")
    password: Secret | None = setting("password", default=None, pattern="[a-z0-9-]+", doc="Password.")
    mode: Literal["fast", "safe"] = setting("mode", default="safe", doc="Mode.")
    colour: Colour | None = setting("colour", default=None, doc="Colour.")
    level: str = setting("level", default="low", choices=("low", "high"), ignore_case=False, doc="Level.")
    table: str = setting("tableName", default="state", pattern="[a-z]+", example="state", doc="Table.")
    topics: tuple[str, ...] = setting("topics", default=(), doc="Topics.")
    steps: tuple[timedelta, ...] = setting("steps", default=(), doc="Steps.")
    headers: dict[str, str] | None = setting("headers", default=None, doc="Headers.")
    options: Any = setting("options", default=None, doc="Options.")
    root: Path | None = setting("rootPath", default=None, doc="Folder.")
    outbox: str | None = setting("outboxPublishTopic", refused="there is no outbox")
    pool: str | None = setting("poolSize", ignored="one connection is shared")
    old: str | None = setting("oldName", default=None, deprecated="use keyPrefix", doc="Old.")

    def check(self) -> Iterable[str | tuple[str, str]]:
        if self.poll > self.timeout:
            yield "poll", "must not be longer than timeout"
        if self.workers == 13:
            yield "thirteen workers are unlucky"


def parse(*pairs: tuple[str, object], **options: Any) -> Sample:
    """Parse properties at lines 1, 2, ... of f.yaml, with a connection string unless one is among them."""
    if not any(name.lower() in ("connectionstring", "url", "dsn") for name, _ in pairs):
        pairs = (*pairs, ("connectionString", "data.db"))
    items = [Property(name, value, "f.yaml", line) for line, (name, value) in enumerate(pairs, 1)]
    return Sample.parse(items, **options)


def problem_of(*pairs: tuple[str, object]) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(*pairs)
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", ["disableWAL", "disablewal", "DISABLEWAL", "disable_wal"])
def test_names_match_in_any_case_and_as_python_names(name: str) -> None:
    assert parse((name, "true")).disable_wal


def test_base_class_fields_are_inherited() -> None:
    assert parse(("keyprefix", "none")).key_prefix == "none"
    assert Sample.fields()[0].name == "keyPrefix"


@pytest.mark.parametrize(
    ("name", "text", "attribute", "expected"),
    [
        ("timeout", "30", "timeout", timedelta(seconds=30)),
        ("pollInterval", "30", "poll", timedelta(milliseconds=30)),
        ("maxSize", "10Ki", "max_size", 10240),
        ("workers", "0x10", "workers", 16),
        ("ratio", "1e-1", "ratio", 0.1),
        ("mode", "FAST", "mode", "fast"),
        ("colour", "Blue", "colour", Colour.BLUE),
        ("topics", " a, b,,c ", "topics", ("a", "b", "c")),
        ("topics", '["a","b,c"]', "topics", ("a", "b,c")),
        ("topics", "[::1]:1,[::2]:2", "topics", ("[::1]:1", "[::2]:2")),
        ("steps", "1s, 2", "steps", (timedelta(seconds=1), timedelta(seconds=2))),
        ("headers", '{"a":"b"}', "headers", {"a": "b"}),
        ("options", "[1]", "options", [1]),
        ("rootPath", "/tmp", "root", Path("/tmp")),
        ("keyPrefix", " kept as written ", "key_prefix", " kept as written "),
        ("password", CANARY, "password", Secret(CANARY)),
    ],
)
def test_text_becomes_the_type_of_the_field(name: str, text: str, attribute: str, expected: object) -> None:
    assert getattr(parse((name, text)), attribute) == expected


@pytest.mark.parametrize(
    ("name", "value", "attribute"),
    [
        ("timeout", timedelta(seconds=3), "timeout"),
        ("disable_wal", True, "disable_wal"),
        ("workers", 7, "workers"),
        ("password", Secret("x"), "password"),
        ("topics", ("a",), "topics"),
        ("colour", Colour.RED, "colour"),
        ("options", {"a": 1}, "options"),
    ],
)
def test_typed_values_from_code_are_taken_as_they_are(name: str, value: object, attribute: str) -> None:
    assert getattr(Sample.parse({"url": "x", name: value}), attribute) == value


def test_construction_by_keyword_checks_like_parse() -> None:
    assert Sample(url="x", timeout=timedelta(seconds=2)) == Sample.parse({"dsn": "x", "timeout": "2s"})
    with pytest.raises(SettingsError, match="at least 1s"):
        Sample(url="x", timeout=timedelta())


@pytest.mark.parametrize("empty", ["", "  ", None, Secret("")])
def test_an_empty_value_counts_as_not_given(empty: object) -> None:
    assert parse(("timeout", empty)).timeout == timedelta(seconds=20)
    assert "is required (or url, dsn): Where the data is." in problem_of(("connectionString", empty))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("disableWAL", "yep", "expected true or false"),
        ("timeout", "1d", "a day as 24h"),
        ("timeout", "500ms", "must be at least 1s, not '500ms'"),
        ("timeout", "2h", "must be at most 1h"),
        ("pollInterval", "-1", "must be at least 0s"),
        ("pollInterval", "x", "means milliseconds"),
        ("maxSize", "10KB", "k is 1000, Ki is 1024"),
        ("maxSize", "1.0001k", "whole number of bytes"),
        ("workers", "08", "a leading 0 means octal"),
        ("workers", "65", "must be at most 64"),
        ("ratio", "nan", "decimal number"),
        ("mode", "slow", "expected one of fast, safe, not 'slow'"),
        ("level", "LOW", "expected one of low, high"),
        ("tableName", "a b", "for example 'state'"),
        ("headers", "[]", "expected a JSON object"),
        ("headers", '{"a":1}', "valid string"),
        ("options", "{", "expected JSON"),
        ("outboxPublishTopic", "x", "is not supported: there is no outbox"),
        ("timeouts", "1s", "is not a known field; did you mean 'timeout'?"),
        ("zzz", "1s", "is not a known field"),
        ("workers", "13", "thirteen workers are unlucky"),
        ("keyPrefix", "x" * 500, ""),
    ],
)
def test_a_bad_value_says_what_is_allowed(name: str, text: str, message: str) -> None:
    if not message:
        parse((name, text))
        return
    assert message in problem_of((name, text))


def test_all_problems_come_in_one_error_with_file_line_and_field() -> None:
    with pytest.raises(SettingsError) as caught:
        Sample.parse(
            [Property("TimeOut", "soon", "f.yaml", 7), Property("nmae", "x", "f.yaml", 9)],
            component="store",
            driver="state.sample",
            file="f.yaml",
            line=1,
        )
    found = {(problem.field, problem.file, problem.line) for problem in caught.value.problems}
    assert found == {("TimeOut", "f.yaml", 7), ("nmae", "f.yaml", 9), ("connectionString", "f.yaml", 1)}
    assert {problem.component for problem in caught.value.problems} == {"store"}
    text = str(caught.value)
    assert text.startswith("component 'store' (state.sample): 3 settings are wrong:")
    assert "\n  f.yaml:7: field 'TimeOut': expected a duration" in text


def test_cross_field_problems_carry_the_line_of_their_field() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(("pollinterval", "1m"))
    assert (caught.value.problems[0].field, caught.value.problems[0].line) == ("pollinterval", 1)


def test_long_values_are_shortened_in_errors() -> None:
    text = problem_of(("workers", "9" * 5000))
    assert "5002 characters" in text
    assert len(text) < 300


def test_the_main_name_wins_over_aliases_and_the_first_alias_over_later_ones() -> None:
    warnings: list[Problem] = []
    assert parse(("dsn", "c"), ("url", "b"), ("connectionString", "a"), warnings=warnings).url == "a"
    assert parse(("dsn", "c"), ("url", "b"), warnings=warnings).url == "b"
    assert [problem.field for problem in warnings] == ["dsn", "url", "dsn"]
    assert all(problem.warning for problem in warnings)
    assert parse(("dsn", "c"), ("url", ""), ("connectionString", "")).url == "c"


def test_the_same_spelling_twice_lets_the_last_win_but_two_spellings_are_an_error() -> None:
    warnings: list[Problem] = []
    assert parse(("workers", "1"), ("workers", "2"), warnings=warnings).workers == 2
    assert len(warnings) == 1
    assert "is given twice, also as 'Workers'" in problem_of(("workers", "1"), ("Workers", "2"))


def test_lenient_parsing_turns_only_unknown_names_into_warnings() -> None:
    warnings: list[Problem] = []
    parse(("zzz", "1"), unknown="warn", warnings=warnings)
    assert [problem.message for problem in warnings] == ["is not a known field"]
    with pytest.raises(SettingsError) as caught:
        parse(("zzz", "1"), ("workers", "x"), unknown="warn")
    assert [problem.field for problem in caught.value.problems] == ["workers"]


def test_tuning_knobs_without_meaning_and_deprecated_names_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert parse(("poolSize", "junk"), ("oldName", "x")).pool is None
    assert "has no effect: one connection is shared" in caplog.text
    assert "is deprecated: use keyPrefix" in caplog.text


def test_examine_reports_everything_and_accepts_values_that_come_later() -> None:
    problems = Sample.examine([Property("url", UNRESOLVED), Property("timeout", "x"), Property("poolSize", "1")])
    assert [(problem.field, problem.warning) for problem in problems] == [("timeout", False), ("poolSize", True)]
    assert Sample.examine({"url": UNRESOLVED}) == []
    assert "needs a secret that was not read" in problem_of(("url", UNRESOLVED))


def test_settings_are_immutable_and_compared_by_value() -> None:
    settings = Sample.parse({"url": "x"})
    with pytest.raises(ValueError, match="frozen"):
        settings.url = "y"
    assert settings == Sample.parse({"url": Secret("x")})
    assert hash(settings) == hash(Sample.parse({"url": Secret("x")}))
    assert settings != Sample.parse({"url": "y"})


def test_a_class_whose_names_collide_or_lack_a_declaration_is_refused() -> None:
    class Colliding(Settings):
        one: str = setting("name", default="", doc="One.")
        two: str = setting("other", aliases=("NAME",), default="", doc="Two.")

    class Bare(Settings):
        one: str = ""

    class Odd(Settings):
        one: complex = setting("one", default=0j, doc="One.")

    for cls, message in ((Colliding, "names both"), (Bare, "setting()"), (Odd, "complex")):
        with pytest.raises(TypeError) as caught:
            cls.parse({})
        assert message in str(caught.value)


def test_fields_describe_the_class() -> None:
    fields = {info.name: info for info in Sample.fields()}
    assert [info.type for info in fields.values()] == [
        *("string", "string", "duration", "duration", "bool", "bytesize", "int", "float", "string", "string"),
        *("string", "string", "string", "list", "list of duration", "json", "json", "string", "json", "json", "string"),
    ]
    timeout = fields["timeout"]
    assert (timeout.default, timeout.minimum, timeout.unit, timeout.required) == ("20s", "1s", "s", False)
    assert fields["connectionString"].required
    assert fields["connectionString"].aliases == ("url", "dsn")
    assert fields["password"].secret
    assert fields["mode"].choices == ("fast", "safe")
    assert fields["outboxPublishTopic"].refused == "there is no outbox"


def test_json_schema_has_the_names_of_component_files() -> None:
    schema = Sample.json_schema()
    assert schema["properties"]["disableWAL"]["type"] == ["boolean", "string"]
    assert schema["properties"]["password"]["writeOnly"]
    assert "outboxPublishTopic" not in schema["properties"]
    assert schema["additionalProperties"] is False


# Secrets


def everything_in(error: BaseException) -> str:
    """Return all text an error can show: itself, its traceback, its chain and everything hanging from it."""
    seen: list[str] = []
    current: BaseException | None = error
    while current is not None:
        seen += [repr(current), str(current), repr(current.args), repr(vars(current))]
        seen += traceback.format_exception(current)
        if callable(errors := getattr(current, "errors", None)):
            seen.append(repr(errors()))
        current = current.__cause__ or current.__context__
    return "\n".join(seen)


@pytest.mark.parametrize(
    "properties",
    [
        {"password": CANARY.upper()},
        {"password": Secret(CANARY.upper())},
        {"url": "x", "workers": Secret(CANARY)},
        {"url": "x", "timeout": Secret(CANARY)},
        {"url": "x", "headers": Secret(f'{{"{CANARY}": 1')},
        {"url": "x", "headers": Secret(f'{{"a": ["{CANARY}"]}}')},
        {"url": "x", "tableName": Secret(CANARY)},
        {"url": "x", "mode": Secret(CANARY)},
        {"url": "x", "zzz": CANARY},
        {"url": "x", "pasword": CANARY},
        {"url": "x", "outboxPublishTopic": CANARY},
        {"url": "x", "password": [CANARY]},
        {"url": "x", "password": {CANARY: 1}},
    ],
)
def test_no_error_shows_a_secret(properties: dict[str, object]) -> None:
    for attempt in (Sample.parse, lambda values: Sample(**values)):
        with pytest.raises(SettingsError) as caught:
            attempt(properties)
        assert CANARY not in everything_in(caught.value).lower()


def test_settings_show_no_secret() -> None:
    settings = Sample.parse([Property("url", Secret(CANARY)), Property("password", CANARY)])
    assert (settings.url, settings.password and settings.password.reveal()) == (CANARY, CANARY)
    for text in (repr(settings), str(settings), f"{settings}", f"{settings!r}", pformat(settings)):
        assert CANARY not in text
    assert CANARY not in repr(Property("password", CANARY))
    with pytest.raises(TypeError):
        pickle.dumps(settings)
    with pytest.raises(TypeError):
        pickle.dumps(Sample.parse({"url": Secret(CANARY)}))


def test_a_secret_hides_its_text_and_its_length() -> None:
    secret = Secret(CANARY)
    shown = {
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>40}",
        f"{secret!r}",
        format(secret, "s"),
        f"{Secret('')}",
    }
    assert shown == {"Secret(***)"}
    assert secret == Secret(CANARY)
    assert hash(secret) == hash(Secret(CANARY))
    assert secret != Secret("other")
    assert secret != CANARY
    assert hash(secret) != hash(CANARY)
    assert copy.deepcopy({"a": secret}) == {"a": secret}
    assert (bool(secret), bool(Secret(""))) == (True, False)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(secret, protocol)
