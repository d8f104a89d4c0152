"""Wrong configuration stores: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from lapel.configuration import ConfigurationItem, GetConfigurationRequest, Watcher, WatchRequest
from lapel.errors import ConfigurationError
from lapel.testing import ConfigurationSuite, Mutant, Pins, assert_killed, judge, row, run_conformance
from lapel.testing.configuration import base
from lapel.testing.configuration.writers import SqliteWriter
from lapel.testing.report import ComponentReport
from lapel.testing.run import run_classes
from lapel_contrib.sqlite.configuration import SqliteConfiguration
from lapel_contrib.sqlite.settings import SqliteConfigurationSettings

Items = Mapping[str, ConfigurationItem]


class SplitsAtBars(SqliteConfiguration):
    """Packs value and version into one text, as the reference's Redis driver does."""

    async def get(self, request: GetConfigurationRequest) -> Items:
        return {
            key: ConfigurationItem(item.value.split("||")[0], item.version, item.metadata)
            for key, item in (await super().get(request)).items()
        }


class ForgetsTheVersion(SqliteConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Items:
        return {
            key: ConfigurationItem(item.value, "", item.metadata) for key, item in (await super().get(request)).items()
        }


class MakesUpMissingItems(SqliteConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Items:
        return {**{key: ConfigurationItem("") for key in request.keys}, **await super().get(request)}


class IgnoresTheKeys(SqliteConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Items:
        return await super().get(GetConfigurationRequest())


class DropsEmptyValues(SqliteConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Items:
        return {key: item for key, item in (await super().get(request)).items() if item.value}


class LooksAtFirstKeysOnly(SqliteConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Items:
        return await super().get(GetConfigurationRequest(request.keys[:500]))


class Deaf(Watcher):
    """Returns once, at once, and then never."""

    def __init__(self) -> None:
        self.woken = False

    async def changed(self) -> None:
        if self.woken:
            await asyncio.Event().wait()
        self.woken = True

    async def close(self) -> None:
        pass


class MissesChanges(SqliteConfiguration):
    async def watch(self, request: WatchRequest) -> Watcher:
        return Deaf()


class ArmedLate(SqliteConfiguration):
    """Returns from `watch` before it listens, and takes what it then finds for the state at the start."""

    async def watch(self, request: WatchRequest) -> Watcher:
        class Late(Watcher):
            def __init__(self, arm: asyncio.Task[Watcher]) -> None:
                self.arm = arm

            async def changed(self) -> None:
                await (await asyncio.shield(self.arm)).changed()

            async def close(self) -> None:
                self.arm.cancel()

        async def arm() -> Watcher:
            await asyncio.sleep(0.3)
            return await super(ArmedLate, self).watch(request)

        return Late(asyncio.create_task(arm()))


# The module's fixture runs many suites, and locks expire in real time.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(ForgetsTheVersion, "CF-02"),
    Mutant(IgnoresTheKeys, "CF-02"),
    Mutant(MakesUpMissingItems, "CF-04"),
    Mutant(DropsEmptyValues, "stricter-086"),
    Mutant(SplitsAtBars, "stricter-092"),
    Mutant(LooksAtFirstKeysOnly, "stricter-094"),
    Mutant(MissesChanges, "stricter-090"),
    Mutant(ArmedLate, "stricter-085"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ComponentReport]:
    path = tmp_path_factory.mktemp("mutants") / "settings.db"
    settings = SqliteConfigurationSettings.parse({"connectionString": str(path)})
    SqliteWriter(settings).put({"conformance-seed": ConfigurationItem("seeded")})
    pins = Pins(options={"writer": "lapel.testing.configuration.writers:SqliteWriter"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "PATIENCE", 3.0)
        return judge(ConfigurationSuite, SqliteConfiguration, settings, MUTANTS, pins=pins)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_configuration_store_is_caught(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)


@row("stricter-084")
def test_a_run_that_executed_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        run_classes({})
    file = Path(__file__).parents[2] / "conformance" / "components" / "configuration.sqlite.yaml"
    report = run_conformance(file, select="no test has this name")
    assert not report.ok
    assert report.problem is not None
