"""Wrong state stores: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from lapel.errors import EtagMismatchError, LapelError
from lapel.state import (
    DeletePrefixRequest,
    DeleteRequest,
    GetRequest,
    IfMatch,
    KeysPage,
    KeysRequest,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateItem,
    TransactionRequest,
)
from lapel.testing import Mutant, StateSuite, assert_killed, judge, row
from lapel.testing.report import ComponentReport
from lapel_contrib.memory.settings import MemoryStateSettings
from lapel_contrib.memory.state import MemoryState


class LosesUpdates(MemoryState):
    """Compares the etag, is interrupted, and then writes without looking again."""

    async def set(self, request: SetRequest) -> str | None:
        item = await self.get(GetRequest(request.key))
        if isinstance(request.precondition, IfMatch) and (item is None or item.etag != request.precondition.etag):
            raise EtagMismatchError("changed")
        await asyncio.sleep(0)
        return await super().set(msgspec.structs.replace(request, precondition=None))


class CreatesTwice(MemoryState):
    async def set(self, request: SetRequest) -> str | None:
        return await super().set(msgspec.structs.replace(request, precondition=None))


class KeepsTheOldLifetime(MemoryState):
    async def set(self, request: SetRequest) -> str | None:
        end = self._ends.get(request.key)
        item = self._items.get(request.key)
        etag = await super().set(request)
        if request.ttl is None and end is not None and item is not None:
            self._items[request.key] = msgspec.structs.replace(self._items[request.key], expires_at=item.expires_at)
            self._expire(request.key, end)
        return etag


class IgnoresEtagsInTransactions(MemoryState):
    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        operations = tuple(msgspec.structs.replace(one, precondition=None) for one in request.operations)
        return await super().transaction(TransactionRequest(operations))


class AppliesHalfATransaction(MemoryState):
    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        return [
            await (self.set(one) if isinstance(one, SetRequest) else self.delete(one)) for one in request.operations
        ]


class ChecksAllEtagsFirst(MemoryState):
    """Compares every etag with the state before the transaction."""

    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        for one in request.operations:
            item = self._items.get(one.key)
            if isinstance(one.precondition, IfMatch) and (item is None or item.etag != one.precondition.etag):
                raise EtagMismatchError("changed")
        operations = tuple(
            msgspec.structs.replace(one, precondition=None) if isinstance(one.precondition, IfMatch) else one
            for one in request.operations
        )
        return await super().transaction(TransactionRequest(operations))


class ReusesEtags(MemoryState):
    """Counts versions per key and begins again after a delete."""

    def _set(self, request: SetRequest) -> str:
        before = self._items.get(request.key)
        super()._set(request)
        etag = str(int(before.etag or 0) + 1) if before else "1"
        self._items[request.key] = msgspec.structs.replace(self._items[request.key], etag=etag)
        return etag


class KeepsTheEtagOfAnEqualValue(MemoryState):
    def _set(self, request: SetRequest) -> str:
        before = self._items.get(request.key)
        etag = super()._set(request)
        if before and before.etag and before.data == request.value:
            self._items[request.key] = msgspec.structs.replace(self._items[request.key], etag=before.etag)
            return before.etag
        return etag


class IgnoresLifetimes(MemoryState):
    async def set(self, request: SetRequest) -> str | None:
        return await super().set(msgspec.structs.replace(request, ttl=None))


class DeclaresTooMuch(MemoryState):
    """Has a content type flag in its descriptor and throws the content type away."""

    async def set(self, request: SetRequest) -> str | None:
        return await super().set(msgspec.structs.replace(request, content_type=None))


class ListsWithoutRegardToCase(MemoryState):
    async def keys(self, request: KeysRequest) -> KeysPage:
        whole = await super().keys(KeysRequest("%"))
        found = {key.lower(): key for key in whole.keys}
        page = KeysPage(keys=[])
        for pattern in {request.pattern, request.pattern.lower(), request.pattern.upper()}:
            page = KeysPage(keys=sorted({*page.keys, *(await super().keys(KeysRequest(pattern))).keys}))
        lowered = [found[key] for key in found if key.startswith(request.pattern.lower().rstrip("%"))]
        return KeysPage(keys=sorted({*page.keys, *lowered}))


class GivesATokenForAFullLastPage(MemoryState):
    async def keys(self, request: KeysRequest) -> KeysPage:
        page = await super().keys(request)
        if page.keys and len(page.keys) == request.page_size:
            return KeysPage(keys=page.keys, token=page.keys[-1])
        return page


class ListsExpiredKeys(MemoryState):
    """Leaves expired keys to a cleaner that never comes."""

    def _purge(self) -> None:
        pass

    def _sweep_some(self) -> None:
        pass


class AnswersBulkInKeyOrder(MemoryState):
    async def bulk_get(self, requests: Sequence[GetRequest]) -> Sequence[StateItem | LapelError | None]:
        return await super().bulk_get(sorted(requests, key=lambda request: request.key))


class StopsBulkAtTheFirstError(MemoryState):
    async def bulk_set(self, requests: Sequence[SetRequest]) -> Sequence[str | LapelError | None]:
        outcomes: list[str | LapelError | None] = []
        for request in requests:
            if outcomes and isinstance(outcomes[-1], LapelError):
                outcomes.append(outcomes[-1])
            else:
                outcomes += await super().bulk_set([request])
        return outcomes


class CutsAtNul(MemoryState):
    async def set(self, request: SetRequest) -> str | None:
        return await super().set(msgspec.structs.replace(request, value=request.value.partition(b"\0")[0]))


class TakesEmptyForMissing(MemoryState):
    async def get(self, request: GetRequest) -> StateItem | None:
        item = await super().get(request)
        return item if item and item.data else None


class StripsKeys(MemoryState):
    async def set(self, request: SetRequest) -> str | None:
        return await super().set(msgspec.structs.replace(request, key=request.key.strip()))

    async def get(self, request: GetRequest) -> StateItem | None:
        return await super().get(GetRequest(request.key.strip()))


class DeletesBelowNestedPrefixes(MemoryState):
    async def delete_with_prefix(self, request: DeletePrefixRequest) -> int:
        doomed = [key for key in self._items if key.startswith(request.prefix)]
        for key in doomed:
            self._remove(key)
        return len(doomed)


class SwallowsAMismatchOnDelete(MemoryState):
    async def delete(self, request: DeleteRequest) -> None:
        try:
            await super().delete(request)
        except EtagMismatchError:
            return


class SortsByOneKeyOnly(MemoryState):
    async def query(self, request: QueryRequest) -> QueryResult:
        return await super().query(msgspec.structs.replace(request, sort=request.sort[:1]))


class LeaksATask(MemoryState):
    async def open(self) -> None:
        await super().open()
        self._leak = asyncio.create_task(asyncio.Event().wait())


class SwallowsCancellation(MemoryState):
    async def get(self, request: GetRequest) -> StateItem | None:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return None
        return await super().get(request)


class ConfusesReplies(MemoryState):
    """Keeps the key of the last request in a field, as if calls never overlapped."""

    _key = ""

    async def get(self, request: GetRequest) -> StateItem | None:
        self._key = request.key
        await asyncio.sleep(0)
        return await super().get(GetRequest(self._key))


class LogsValues(MemoryState):
    async def set(self, request: SetRequest) -> str | None:
        self.context.logger.info("storing %r", request)
        return await super().set(request)


class RaisesPlainErrors(MemoryState):
    async def set(self, request: SetRequest) -> str | None:
        try:
            return await super().set(request)
        except EtagMismatchError as exc:
            raise ValueError("the etag differs") from exc


# The module's fixture runs many suites, and locks expire in real time.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(LosesUpdates, "stricter-001"),
    Mutant(CreatesTwice, "stricter-002"),
    Mutant(SwallowsAMismatchOnDelete, "stricter-003"),
    Mutant(KeepsTheEtagOfAnEqualValue, "stricter-004"),
    Mutant(ReusesEtags, "stricter-005"),
    Mutant(AppliesHalfATransaction, "stricter-011"),
    Mutant(IgnoresEtagsInTransactions, "stricter-011"),
    Mutant(ChecksAllEtagsFirst, "stricter-012"),
    Mutant(KeepsTheOldLifetime, "ST-56"),
    Mutant(IgnoresLifetimes, "ST-55"),
    Mutant(ListsExpiredKeys, "stricter-017"),
    Mutant(CutsAtNul, "stricter-018"),
    Mutant(TakesEmptyForMissing, "stricter-018"),
    Mutant(StripsKeys, "stricter-021"),
    Mutant(AnswersBulkInKeyOrder, "stricter-024"),
    Mutant(StopsBulkAtTheFirstError, "stricter-025"),
    Mutant(GivesATokenForAFullLastPage, "stricter-028"),
    Mutant(ListsWithoutRegardToCase, "stricter-030"),
    Mutant(SortsByOneKeyOnly, "stricter-031"),
    Mutant(DeclaresTooMuch, "stricter-033"),
    Mutant(DeletesBelowNestedPrefixes, "ST-62"),
    Mutant(RaisesPlainErrors, "ST-31"),
    Mutant(LeaksATask, "stricter-129"),
    Mutant(SwallowsCancellation, "stricter-130"),
    Mutant(ConfusesReplies, "stricter-134"),
    Mutant(LogsValues, "stricter-136"),
]


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, ComponentReport]:
    return judge(StateSuite, MemoryState, MemoryStateSettings(), MUTANTS)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_the_suite_kills_a_wrong_store(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
