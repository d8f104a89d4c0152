"""Wrong variants of lock.redis, configuration.redis and bindings.redis: each is killed by the row it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import pytest
from tests.backends.redis import RedisBackend
from tests.conformance.mutants.wrong_scripts import changed, with_scripts
from tests.conformance.redis_subject import COMPONENTS
from tests.conformance.redis_writer import RedisWriter

from lapel.bindings import BindingResponse, InvokeRequest
from lapel.configuration import ConfigurationItem, GetConfigurationRequest, Watcher, WatchRequest
from lapel.errors import NotFoundError
from lapel.testing import (
    BindingSuite,
    ConfigurationSuite,
    LockSuite,
    Mutant,
    assert_killed,
    judge,
    row,
)
from lapel.testing.configuration import base as configuration_base
from lapel.testing.lock import base as lock_base
from lapel.testing.report import ComponentReport
from lapel.testing.subject import Pins, read_components
from lapel_contrib.redis import lock
from lapel_contrib.redis.binding import RedisBinding
from lapel_contrib.redis.client import RedisClient
from lapel_contrib.redis.component_settings import (
    RedisBindingSettings,
    RedisConfigurationSettings,
    RedisLockSettings,
)
from lapel_contrib.redis.configuration import RedisConfiguration
from lapel_contrib.redis.lock import RedisLock
from lapel_contrib.redis.scripts import Script
from lapel_contrib.redis.watching import RedisWatcher

TAKE, FREE, EXTEND = lock._TAKE, lock._FREE, lock._EXTEND
OWNER_CHECK = "if owner ~= ARGV[1] then return 2 end"


class OtherScripts(RedisLock):
    """Runs other scripts."""

    scripts: ClassVar[Mapping[Script, Script]]

    def _opened(self) -> RedisClient:
        return with_scripts(super()._opened(), self.scripts)


class LetsTheOwnerInAgain(OtherScripts):
    scripts: ClassVar = {
        TAKE: changed(TAKE, "KEYS[1]) == 1 then", "KEYS[1]) == 1 and redis.call('GET', KEYS[1]) ~= ARGV[1] then")
    }


class LetsEverybodyIn(OtherScripts):
    scripts: ClassVar = {TAKE: changed(TAKE, "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end", "")}


class LetsEverybodyUnlock(OtherScripts):
    scripts: ClassVar = {FREE: changed(FREE, OWNER_CHECK, "")}


class LetsEverybodyRenew(OtherScripts):
    scripts: ClassVar = {EXTEND: changed(EXTEND, OWNER_CHECK, "")}


class NeverExpires(OtherScripts):
    scripts: ClassVar = {TAKE: changed(TAKE, "ARGV[1], 'EX', ARGV[2])", "ARGV[1])")}


class GivesOneTokenToAll(OtherScripts):
    scripts: ClassVar = {TAKE: changed(TAKE, "return token", "return 1")}


class RenewsWithoutEffect(OtherScripts):
    scripts: ClassVar = {EXTEND: changed(EXTEND, "redis.call('EXPIRE', KEYS[1], ARGV[2])", "")}


class LosesVersions(RedisConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        found = await super().get(request)
        return {key: ConfigurationItem(item.value, "", item.metadata) for key, item in found.items()}


class KeepsWhatWasDeleted(RedisConfiguration):
    last: ClassVar[dict[str, ConfigurationItem]] = {}

    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        self.last.update(await super().get(request))
        return {key: item for key, item in self.last.items() if not request.keys or key in request.keys}


class ReadsKeysAsPatterns(RedisConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        found = await super().get(request)
        return {key.lower(): item for key, item in found.items()}


class _Deaf(RedisWatcher):
    async def _subscribe(self, connection: Any, place: str) -> str:
        return ""


class IsDeaf(RedisConfiguration):
    async def watch(self, request: WatchRequest) -> Watcher:
        watcher = _Deaf(self._opened(), request.keys)
        await watcher.arm()
        return watcher


class AnswersWhatIsMissing(RedisBinding):
    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        try:
            return await super().invoke(request)
        except NotFoundError:
            return BindingResponse(b"")


class DeletesNothing(RedisBinding):
    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        return BindingResponse() if request.operation == "delete" else await super().invoke(request)


class StoresText(RedisBinding):
    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        if isinstance(request.data, bytes):
            request = msgspec.structs.replace(request, data=request.data.decode("utf-8", "replace").encode())
        return await super().invoke(request)


# The module's fixtures run many suites, and locks expire in real time.
pytestmark = pytest.mark.timeout(300)

LOCKS = [
    Mutant(LetsTheOwnerInAgain, "LK-03"),
    Mutant(LetsEverybodyIn, "stricter-095"),
    Mutant(LetsEverybodyUnlock, "LK-05"),
    Mutant(LetsEverybodyRenew, "stricter-104"),
    Mutant(NeverExpires, "LK-07"),
    Mutant(GivesOneTokenToAll, "stricter-104"),
    Mutant(RenewsWithoutEffect, "stricter-104"),
]
CONFIGURATIONS = [
    Mutant(LosesVersions, "CF-02"),
    Mutant(KeepsWhatWasDeleted, "CF-07"),
    Mutant(ReadsKeysAsPatterns, "stricter-092"),
    Mutant(IsDeaf, "stricter-085"),
]
BINDINGS = [
    Mutant(AnswersWhatIsMissing, "BD-08"),
    Mutant(DeletesNothing, "BD-08"),
    Mutant(StoresText, "stricter-063"),
]


def _of_file(name: str, server: RedisBackend) -> tuple[dict[str, str], Pins]:
    ((manifest, pins),) = read_components(COMPONENTS / f"{name}.yaml")
    return {**{item.name: str(item.value) for item in manifest.metadata}, **server.properties}, pins


@pytest.fixture(scope="module")
def locks(redis_server: RedisBackend) -> Mapping[str, ComponentReport]:
    fields, pins = _of_file("lock.redis", redis_server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_base, "PATIENCE", 2.5)
        return judge(LockSuite, RedisLock, RedisLockSettings.parse(fields), LOCKS, pins=pins)


@pytest.fixture(scope="module")
def configurations(redis_server: RedisBackend) -> Mapping[str, ComponentReport]:
    fields, pins = _of_file("configuration.redis", redis_server)
    settings = RedisConfigurationSettings.parse(fields)
    RedisWriter(settings).put({configuration_base.SEED: ConfigurationItem("seeded")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration_base, "PATIENCE", 3.0)
        return judge(ConfigurationSuite, RedisConfiguration, settings, CONFIGURATIONS, pins=pins)


@pytest.fixture(scope="module")
def bindings(redis_server: RedisBackend) -> Mapping[str, ComponentReport]:
    fields, pins = _of_file("bindings.redis", redis_server)
    return judge(BindingSuite, RedisBinding, RedisBindingSettings.parse(fields), BINDINGS, pins=pins)


@row("stricter-140")
@pytest.mark.parametrize("mutant", LOCKS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_redis_lock_is_caught(locks: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(locks, mutant)


@row("stricter-140")
@pytest.mark.parametrize("mutant", CONFIGURATIONS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_redis_configuration_is_caught(configurations: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(configurations, mutant)


@row("stricter-140")
@pytest.mark.parametrize("mutant", BINDINGS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_redis_binding_is_caught(bindings: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(bindings, mutant)
