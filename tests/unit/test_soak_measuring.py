"""The soak test can fail: whatever grows is named."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.soak.measuring import MOST_FILES, Sample, growth, sample

FLAT = [Sample(operations=number * 1000, objects=50_000, bytes=100_000_000, tasks=2, files=20) for number in range(12)]


def test_what_stays_the_same_has_not_grown() -> None:
    assert growth(FLAT) == []


@pytest.mark.parametrize(
    ("what", "each"), [("objects", 200), ("bytes", 1_000_000), ("tasks", 1), ("files", MOST_FILES // 3)]
)
def test_what_grows_is_named(what: str, each: int) -> None:
    growing = [replace(one, **{what: getattr(one, what) + number * each}) for number, one in enumerate(FLAT)]
    (line,) = growth(growing)
    assert f"more {what} behind" in line


def test_what_grows_while_warming_up_is_left_out() -> None:
    assert growth([replace(FLAT[0], objects=1, files=3), *FLAT[1:]]) == []


async def test_a_sample_sees_tasks_files_and_objects() -> None:
    before = await sample(0)
    kept = [[number] for number in range(5000)]
    forgotten = asyncio.create_task(asyncio.Event().wait())
    with open("/dev/null", "rb"):  # nothing is read
        after = await sample(1)
    assert after.tasks == before.tasks + 1
    assert after.files >= before.files + 1
    assert after.objects >= before.objects + len(kept)
    forgotten.cancel()
