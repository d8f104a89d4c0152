"""Wrong variants of state.redis: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from tests.backends.redis import RedisBackend
from tests.conformance.mutants.wrong_scripts import changed, with_scripts
from tests.conformance.redis_subject import COMPONENTS

from lapel.errors import LapelError
from lapel.state import GetRequest, KeysPage, KeysRequest, StateItem
from lapel.testing import Mutant, StateSuite, assert_killed, judge, row
from lapel.testing.report import ComponentReport
from lapel.testing.subject import read_components
from lapel_contrib.redis.scripts import Script
from lapel_contrib.redis.settings import RedisStateSettings
from lapel_contrib.redis.state import RedisState
from lapel_contrib.redis.state_scripts import DELETE, SET, TRANSACTION


class OtherScripts(RedisState):
    """Runs other scripts."""

    scripts: ClassVar[Mapping[Script, Script]]

    async def open(self) -> None:
        await super().open()
        assert self._client is not None
        self._client = with_scripts(self._client, self.scripts)
        self._submit = self._client.submit


class DoesNotCompareEtags(OtherScripts):
    scripts: ClassVar = {SET: changed(SET, "return version ~= expected and -2 or nil", "return nil")}


class CreatesWhatIsThere(OtherScripts):
    scripts: ClassVar = {SET: changed(SET, "return kind and -3 end", "return nil end")}


class WritesWhatIsMissing(OtherScripts):
    scripts: ClassVar = {SET: changed(SET, "if not kind then return -1 end", "if not kind then return nil end")}


class DeletesWithAnyEtag(OtherScripts):
    scripts: ClassVar = {DELETE: changed(DELETE, "if expected ~= '' then", "if false then")}


class KeepsTheOldLifetime(OtherScripts):
    scripts: ClassVar = {SET: changed(SET, "elseif not fresh then redis.call('PERSIST', k) end", "end")}


class KeepsTheEtag(OtherScripts):
    scripts: ClassVar = {SET: changed(SET, "string.format('%.0f', n + 1)", "string.format('%.0f', n)")}


class CountsFromOne(OtherScripts):
    scripts: ClassVar = {SET: changed(SET, "return seed(extra)\nend", "return '1'\nend")}


class WritesBeforeItHasChecked(OtherScripts):
    scripts: ClassVar = {
        TRANSACTION: changed(
            TRANSACTION,
            "if op == 'D' then\n    kinds[k], versions[k] = false, false",
            "if op == 'S' then redis.call('HSET', k, 'data', ARGV[4 * i - 2]) end\n"
            "  if op == 'D' then\n    kinds[k], versions[k] = false, false",
        )
    }


class ChecksAgainstTheBeginning(OtherScripts):
    scripts: ClassVar = {
        TRANSACTION: changed(
            TRANSACTION,
            "if kinds[k] == nil then kinds[k], versions[k] = look(k) end",
            "kinds[k], versions[k] = look(k)",
        )
    }


class ForgetsLifetimesInTransactions(OtherScripts):
    scripts: ClassVar = {TRANSACTION: changed(TRANSACTION, "lifetime(k, ttl, false)", "")}


class HidesTheTimeOfExpiry(RedisState):
    async def get(self, request: GetRequest) -> StateItem | None:
        item = await super().get(request)
        return None if item is None else msgspec.structs.replace(item, expires_at=None)


class AnswersInAnotherOrder(RedisState):
    async def bulk_get(self, requests: Sequence[GetRequest]) -> Sequence[StateItem | LapelError | None]:
        return list(reversed(await super().bulk_get(requests)))


class ListsOneStepOfTheScan(RedisState):
    async def keys(self, request: KeysRequest) -> KeysPage:
        page = await super().keys(request)
        return page if len(page.keys) < 1000 else KeysPage(keys=page.keys[:1000])


class PagesByNumber(RedisState):
    """Goes on after so many keys, which are others when keys came and went."""

    async def keys(self, request: KeysRequest) -> KeysPage:
        start = int(request.token or 0)
        whole = await super().keys(msgspec.structs.replace(request, token=None, page_size=None))
        size = request.page_size or len(whole.keys)
        more = len(whole.keys) > start + size
        return KeysPage(keys=whole.keys[start : start + size], token=str(start + size) if more else None)


class ListsByItsOwnPattern(RedisState):
    async def keys(self, request: KeysRequest) -> KeysPage:
        return await super().keys(msgspec.structs.replace(request, pattern=request.pattern.replace("\\", "")))


# The module's fixture runs many suites.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(DoesNotCompareEtags, "ST-31"),
    Mutant(CreatesWhatIsThere, "ST-45"),
    Mutant(WritesWhatIsMissing, "stricter-006"),
    Mutant(DeletesWithAnyEtag, "ST-36"),
    Mutant(KeepsTheOldLifetime, "ST-56"),
    Mutant(KeepsTheEtag, "stricter-004"),
    Mutant(CountsFromOne, "stricter-005"),
    Mutant(WritesBeforeItHasChecked, "stricter-011"),
    Mutant(ChecksAgainstTheBeginning, "stricter-012"),
    Mutant(ForgetsLifetimesInTransactions, "stricter-015"),
    Mutant(HidesTheTimeOfExpiry, "ST-55"),
    Mutant(AnswersInAnotherOrder, "stricter-024"),
    Mutant(ListsOneStepOfTheScan, "ST-75"),
    Mutant(PagesByNumber, "ST-77"),
    Mutant(ListsByItsOwnPattern, "ST-76"),
]


@pytest.fixture(scope="module")
def outcomes(redis_server: RedisBackend) -> Mapping[str, ComponentReport]:
    ((_, pins),) = read_components(COMPONENTS / "state.redis.yaml")
    settings: Any = RedisStateSettings.parse(redis_server.properties)
    return judge(StateSuite, RedisState, settings, MUTANTS, pins=pins)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_redis_store_is_caught(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
