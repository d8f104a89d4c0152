"""Many lives and much work leave nothing behind. `make soak` runs it for long, `make test-faults` for seconds.

`SOAK_CYCLES` is how often each component is opened and closed, `SOAK_MINUTES` how long the load lasts.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.backends.fixtures import shared
from tests.conformance.redis_subject import COMPONENTS
from tests.soak.measuring import Sample, growth, sample
from tests.soak.subjects import SOAKED, Soaked

from lapel.component import Component
from lapel.configuration import ConfigurationItem
from lapel.testing import Subject
from lapel.testing.configuration.base import SEED, ConfigurationBase
from lapel.testing.harness import ComponentHooks
from lapel.testing.subject import read_components
from lapel.testing.suites import suite_of

CYCLES = int(os.environ.get("SOAK_CYCLES", "100"))
SECONDS = float(os.environ.get("SOAK_MINUTES", "0.1")) * 60
SAMPLES = 12
WORKERS = 8
"""For each component."""
NAMES = 50
"""How many names each worker uses, again and again: what is stored must not be what grows."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + CYCLES + SECONDS * 3)]

FILES = [(soaked, file) for soaked in SOAKED for file in soaked.files]


class Soaking:
    """One component file, and the work that its suite knows to do with it."""

    def __init__(self, config: pytest.Config, soaked: Soaked, file: str, folder: Path) -> None:
        ((manifest, pins),) = read_components(COMPONENTS / f"{file}.yaml", folder)
        self.subject = Subject.from_manifest(manifest, pins)
        if soaked.technology is not None:
            found = self.subject.variant(shared(config, soaked.technology).properties)
            assert found is not None
            self.subject = found
        hooks = suite_of(manifest.kind)()
        assert isinstance(hooks, ComponentHooks)
        self._hooks = hooks
        if isinstance(hooks, ConfigurationBase):
            hooks.writer_of(self.subject).put({SEED: ConfigurationItem("seeded")})

    def build(self) -> Component[Any]:
        """Return a new, unopened component."""
        return self._hooks.build(self.subject)

    async def work(self, component: Component[Any], name: str) -> None:
        """Make one round trip and see that it is right."""
        await self._hooks.exercise(component, name)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Provide a folder without a word of pytest in its name, for the files of components."""
    with tempfile.TemporaryDirectory(prefix="lapel-soak-") as name:
        yield Path(name)


@pytest.mark.parametrize(("soaked", "file"), FILES, ids=[file for _, file in FILES])
async def test_opening_and_closing_leaves_nothing_behind(
    pytestconfig: pytest.Config, soaked: Soaked, file: str, folder: Path
) -> None:
    soaking = await asyncio.to_thread(Soaking, pytestconfig, soaked, file, folder)
    samples: list[Sample] = []
    name = uuid.uuid4().hex
    for cycle in range(CYCLES):
        async with soaking.build() as component:
            if cycle % 10 == 0:
                await soaking.work(component, f"{name}{cycle // 10 % NAMES}")
        if (cycle + 1) % max(1, CYCLES // SAMPLES) == 0:
            samples.append(await sample(cycle + 1))
    _show(file, samples)
    assert not growth(samples, files=0)


@pytest.mark.parametrize("soaked", SOAKED, ids=lambda soaked: soaked.name)
async def test_load_leaves_nothing_behind(pytestconfig: pytest.Config, soaked: Soaked, folder: Path) -> None:
    for file in soaked.files:
        (folder / file).mkdir()
    soaking = [await asyncio.to_thread(Soaking, pytestconfig, soaked, file, folder / file) for file in soaked.files]
    samples: list[Sample] = []
    operations = 0

    async def worker(one: Soaking, component: Component[Any], name: str, until: float) -> None:
        nonlocal operations
        number = 0
        while number < NAMES or time.monotonic() < until:
            await one.work(component, f"{name}{number % NAMES}")
            number += 1
            operations += 1

    async with AsyncExitStack() as stack:
        opened = [(one, await stack.enter_async_context(one.build())) for one in soaking]
        names = [uuid.uuid4().hex for _ in range(WORKERS * len(opened))]
        for _ in range(SAMPLES):
            until = time.monotonic() + SECONDS / SAMPLES
            async with asyncio.TaskGroup() as tasks:
                for number, name in enumerate(names):
                    tasks.create_task(worker(*opened[number % len(opened)], name, until))
            samples.append(await sample(operations))
    _show(soaked.name, samples)
    assert not growth(samples)


def _show(what: str, samples: list[Sample]) -> None:
    print(f"\n{what}")
    for one in samples:
        print(f"  {one}")
