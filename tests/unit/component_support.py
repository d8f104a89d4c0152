"""What the tests of a component's life share: a call that answers, waiting, and what goes on in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.plain_component import Clock


@pytest.fixture
async def clock() -> Clock:
    return Clock()


async def answer() -> str:
    return "answer"


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


def lapel_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("lapel")]
