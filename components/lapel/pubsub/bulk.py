"""Publish many messages in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import InvalidArgumentError, LapelError, OperationFailedError
from .requests import check_metadata, check_text
from .types import PublishEntry, PublishOutcome, PublishRequest

__all__ = ["PARALLEL", "Bulk"]

PARALLEL = 100
"""How many publish calls are under way at once where the driver has no native bulk."""

Result = LapelError | None


class Bulk:
    """The entries of one call, checked, with an outcome for each in order.

    Raises `InvalidArgumentError` when ids are empty or not unique, and for a topic or metadata that are not text.
    """

    def __init__(self, topic: str, entries: Sequence[PublishEntry | Any], metadata: Mapping[str, str]) -> None:
        if isinstance(entries, str | bytes) or not isinstance(entries, Iterable):
            raise InvalidArgumentError(f"the entries must be a list, not {type(entries).__name__}")
        check_text(topic, "topic")
        check_metadata(metadata)
        self._metadata = metadata
        self.entries = [
            entry if isinstance(entry, PublishEntry) else PublishEntry(data=entry, entry_id=str(index))
            for index, entry in enumerate(entries)
        ]
        self.ids = [
            str(index) if entry.entry_id is None else entry.entry_id for index, entry in enumerate(self.entries)
        ]
        if len(set(self.ids)) != len(self.ids) or "" in self.ids:
            repeated = sorted({name for name in self.ids if not name or self.ids.count(name) > 1})
            raise InvalidArgumentError(f"the ids of entries must be unique and not empty; see {repeated[:5]}")
        self._results: list[Result] = [None] * len(self.entries)
        self._good: list[tuple[int, PublishRequest]] = []

    def build(self, make: Callable[[PublishEntry, Mapping[str, str]], PublishRequest]) -> None:
        """Make the request of each entry; an entry that is wrong fails alone. Its own metadata wins over the call's."""
        for index, entry in enumerate(self.entries):
            metadata = {**self._metadata, **entry.metadata} if entry.metadata else self._metadata
            try:
                self._good.append((index, make(entry, metadata)))
            except LapelError as exc:
                self._results[index] = exc

    async def send_natively(
        self, send: Callable[[Sequence[PublishRequest]], Awaitable[Sequence[Result]]], size: int | None
    ) -> None:
        """Send the requests in order, at most `size` in one call."""
        step = size or len(self._good) or 1
        for start in range(0, len(self._good), step):
            part = self._good[start : start + step]
            try:
                results = await send([request for _, request in part])
                if len(results) != len(part):
                    raise OperationFailedError(f"the driver gave {len(results)} answers to {len(part)} messages")
            except LapelError as exc:
                results = [exc] * len(part)
            for (index, _), result in zip(part, results, strict=True):
                self._results[index] = result

    async def send_singly(self, send: Callable[[PublishRequest], Awaitable[None]]) -> None:
        """Send the requests one by one, up to `PARALLEL` at once, those of one key in order."""
        groups: dict[object, list[tuple[int, PublishRequest]]] = {}
        for index, request in self._good:
            groups.setdefault(index if request.key is None else request.key, []).append((index, request))
        queue = iter(list(groups.values()))

        async def work() -> None:
            for group in queue:
                for index, request in group:
                    try:
                        await send(request)
                    except LapelError as exc:
                        self._results[index] = exc

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(PARALLEL, len(groups))):
                tasks.create_task(work())

    def outcomes(self, locate: Callable[[LapelError], None]) -> list[PublishOutcome]:
        """Return the outcome of each entry. `locate` completes the errors."""
        for result in self._results:
            if result is not None:
                locate(result)
        return [PublishOutcome(entry_id=name, error=error) for name, error in zip(self.ids, self._results, strict=True)]
