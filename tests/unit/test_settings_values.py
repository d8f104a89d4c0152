"""Durations, sizes, numbers and truth values are read from text in all their forms, and nothing else is."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lapel.errors import InvalidArgumentError
from lapel.settings import format_duration, format_size, parse_bool, parse_duration, parse_float, parse_int, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("0", 0),
        ("-2s", -2),
        ("+2s", 2),
        ("1us", 0.000001),
        ("1µs", 0.000001),
        ("1ns", 0.000001),
        ("1500ns", 0.000002),
        (".5s", 0.5),
        ("10", 10),
        ("1.5", 1.5),
        ("PT10S", 10),
        ("P1D", 86400),
        ("P1W", 604800),
        ("P1DT2H3M4.5S", 93784.5),
        ("-PT1M", -60),
        ("pt1,5s", 1.5),
        (" 5s ", 5),
    ],
)
def test_durations_are_read_in_all_forms(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "1d", "P", "PT", "P1M", "P1Y", "1h 30m", "1e3", "--1s", "1s-", "٣s", "9" * 63, "9" * 30 + "h"]
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="expected a duration"):
        parse_duration(text)


@given(st.timedeltas())
@example(timedelta.max)
@example(timedelta.min)
def test_every_duration_survives_being_written(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_a_typed_refusal(text: str) -> None:
    for parser in (parse_duration, parse_size, parse_int, parse_float, parse_bool):
        with contextlib.suppress(InvalidArgumentError):
            parser(text)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_every_size_survives_being_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("100", 100), ("1k", 1000), ("10Ki", 10240), ("1.5Ki", 1536), ("1e3", 1000), ("1E", 10**18), ("2000m", 2)],
        *[(bad, None) for bad in ("500m", "1K", "1KB", "1ki", "9Ei", "", "1e999", "1.3", "٣")],
    ],
)
def test_sizes_are_kubernetes_quantities(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(InvalidArgumentError):
            parse_size(text)
    else:
        assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("0644", 420), ("0o17", 15), ("0b11", 3), ("0x1F", 31), ("1_000", 1000), ("-5", -5), ("0", 0), ("00", 0)],
        *[(bad, None) for bad in ("08", "1.0", "", "_1", str(2**63), "٣")],
    ],
)
def test_whole_numbers_are_read_as_go_reads_them(text: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(InvalidArgumentError):
            parse_int(text)
    else:
        assert parse_int(text) == number


def test_truth_values_are_never_guessed() -> None:
    assert all(parse_bool(text) for text in ("y", "YES", "True", "t", "on", " 1 "))
    assert not any(parse_bool(text) for text in ("n", "No", "FALSE", "f", "off", "0"))
    for text in ("", "2", "yep", "truee", "nil"):
        with pytest.raises(InvalidArgumentError):
            parse_bool(text)
