"""What the synchronous facade must not leave behind: threads and open files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.blocking_support import until


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.lower().startswith("lapel")}


def files() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = files()
    assert threads() == set()
    yield
    until(lambda: threads() == set() and files() <= before)
