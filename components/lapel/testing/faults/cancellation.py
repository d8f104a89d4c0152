"""Every operation is cancelled at every await, and every reply after that is right."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

from ...component import Component
from ..marks import row
from ..proxy import FaultProxy
from .base import FaultBase, new_name

__all__ = ["CancellationTests"]

MOST_AWAITS = 200
OPERATION_SECONDS = 6.0
"""How long one operation is cancelled, at most; slow ones are not cancelled at every await, but at the first ones."""
REPLY_SECONDS = 0.004
"""How long the proxy holds back what it gets, so that there is a while in which a reply is under way."""


class CancellationTests(FaultBase):
    """Callers that go away."""

    @row("stricter-143")
    async def test_operations_cancelled_at_every_await_are_followed_by_correct_replies(
        self, opened: Component[Any]
    ) -> None:
        loop = asyncio.get_running_loop()
        await self.works_again(opened)
        for name, operation in self.operations(opened, new_name()).items():
            end = loop.time() + OPERATION_SECONDS
            for at in range(MOST_AWAITS):
                reached, outcome = await _cancelled_at(at, operation())
                if not reached:
                    assert not isinstance(outcome, BaseException), f"{name} raised {outcome!r}"
                    break
                assert isinstance(outcome, asyncio.CancelledError), f"{name}, cancelled at await {at}: {outcome!r}"
                if loop.time() > end:
                    break
            await self.replies(opened, new_name())

    @row("stricter-143")
    async def test_operations_cancelled_while_their_reply_is_under_way_are_followed_by_correct_replies(
        self, opened: Component[Any], proxy: FaultProxy
    ) -> None:
        await self.works_again(opened)
        abandoned = 0
        for _ in range(5):
            proxy.delay(REPLY_SECONDS)
            for name, operation in self.operations(opened, new_name()).items():
                seen = proxy.counters.request_bytes
                task = asyncio.ensure_future(operation())
                # Step by step, so that the operation is cancelled before its reply has come back through the delay.
                while proxy.counters.request_bytes == seen and not task.done():  # noqa: ASYNC110
                    await asyncio.sleep(0)
                if not task.done():
                    task.cancel()
                    abandoned += 1
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                assert outcome is None or not isinstance(outcome, Exception), f"{name} raised {outcome!r}"
            proxy.delay(0)
            await self.replies(opened, new_name())
        assert abandoned, "no operation was cancelled after its request had been sent"


async def _cancelled_at(at: int, operation: Awaitable[object]) -> tuple[bool, object]:
    """Run an operation as a task that is cancelled when it waits for the time number `at`, counted from 0.

    Returns whether it came to that, and its result or what it raised.
    """
    stepper = _Stepper(at)

    async def whole() -> object:
        return await operation

    async def stepped() -> object:
        return await stepper.run(whole())

    outcome = (await asyncio.gather(asyncio.create_task(stepped()), return_exceptions=True))[0]
    return stepper.reached, outcome


class _Stepper:
    def __init__(self, at: int) -> None:
        self.reached = False
        self._left = at

    @types.coroutine
    def run(self, coroutine: Coroutine[Any, Any, object]) -> Generator[Any, Any, object]:
        """Hand on what the coroutine waits for; cancel the task with it when its turn has come."""
        error: BaseException | None = None
        while True:
            try:
                waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            if not self._left and not self.reached:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            self._left -= 1
            error = None
            try:
                yield waits_for
            except BaseException as exc:
                error = exc
