"""The table of rows: each is carried by a test or waived, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapel.testing import row
from lapel.testing.rows import ROWS, carriers, page, problems

ROOT = Path(__file__).parents[2]


def test_the_table_has_every_row() -> None:
    assert [f"stricter-{number:03}" for number in range(1, 144)] == sorted(id_ for id_ in ROWS if id_ > "s")
    assert len(ROWS) == 264
    assert all(one.title for one in ROWS.values())


def test_an_unknown_row_cannot_be_carried() -> None:
    with pytest.raises(ValueError, match=r"no such row: ST-99"):
        row("ST-01", "ST-99")


def test_a_row_without_test_and_waiver_is_a_problem() -> None:
    found = carriers(ROOT)
    assert "ST-31" in found
    del found["ST-31"]
    assert "ST-31 has neither a test nor a waiver: set with a wrong etag is a mismatch" in problems(found)


def test_a_test_of_an_unknown_row_and_a_waived_row_with_a_test_are_problems() -> None:
    waived = next(one.id for one in ROWS.values() if one.waiver)
    lines = problems({"ST-99": ["x::test"], waived: ["y::test"]})
    assert "x::test: no such row: ST-99" in lines
    assert f"{waived} is waived and has a test: y::test" in lines


def test_the_page_names_the_tests_of_a_row() -> None:
    text = page(carriers(ROOT))
    line = next(line for line in text.splitlines() if line.startswith("| ST-31 |"))
    assert "`lapel/testing/state/etags.py::test_a_set_with_a_wrong_etag_is_a_mismatch`" in line
