"""Rows of every kind: the connection is cut, silent, slow or refused, and the backend restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from ...component import CLOSE_SECONDS, Component, ComponentOptions
from ...errors import DeadlineExceededError, LapelError, OutcomeUnknownError, UnavailableError
from ...policy import Effect
from ..marks import row
from ..proxy import FaultProxy, Sightings, Trap
from ..subject import Subject
from .backend import FaultBackend
from .base import FaultBase, Request, new_name, until

__all__ = ["ConnectionTests"]

FROZEN_SECONDS = 10.0
BOUND_SECONDS = 8.0
"""When a call must have ended that has a second, with all that it may do besides."""
WORKERS = 8
_FAILURES = (OutcomeUnknownError, UnavailableError, DeadlineExceededError)


class ConnectionTests(FaultBase):
    """Faults between driver and backend."""

    @row("stricter-141")
    async def test_a_write_whose_reply_is_lost_is_unknown_and_sent_once(
        self, opened: Component[Any], behind: Component[Any], proxy: FaultProxy
    ) -> None:
        for kind in await self._kinds(opened, behind):
            request, trap, sent, usual = await self._struck(opened, behind, proxy, kind, forward=True)
            outcome = await _outcome(request)
            await _hit(trap, request)
            assert proxy.counters.dropped_reply_bytes > 0, f"{request.name}: the proxy dropped no reply"
            self._judge(request, outcome, may_be_undone=False)
            if request.effect is Effect.UNSAFE and sent is not None and not self.resends:
                assert 0 < sent.count <= usual, f"{request.name} was sent {sent.count / usual:g} times"
            if request.done is not None:
                count = await request.done()
                assert count == 1, f"{request.name} was answered by the backend, which has done it {count} times"
            await self.works_again(opened)
        await self.replies(opened, new_name())

    @row("stricter-142")
    async def test_a_request_that_never_arrived_is_not_taken_for_done(
        self, opened: Component[Any], behind: Component[Any], proxy: FaultProxy
    ) -> None:
        for kind in await self._kinds(opened, behind):
            request, trap, _, _ = await self._struck(opened, behind, proxy, kind, forward=False)
            outcome = await _outcome(request)
            await _hit(trap, request)
            assert proxy.counters.dropped_request_bytes > 0, f"{request.name}: the proxy dropped no request"
            self._judge(request, outcome, may_be_undone=True)
            if request.done is not None:
                count, expected = await request.done(), 0 if isinstance(outcome, Exception) else 1
                assert count == expected, f"{request.name} ended with {outcome!r}, and was done {count} times"
            await self.works_again(opened)
        await self.replies(opened, new_name())

    @row("stricter-131")
    async def test_a_backend_that_freezes_for_ten_seconds_holds_nobody_up(
        self, impatient: Component[Any], behind: Component[Any], proxy: FaultProxy
    ) -> None:
        loop = asyncio.get_running_loop()
        requests = await self._prepared(impatient, behind)
        seen = proxy.counters.request_bytes
        proxy.freeze()
        began = loop.time()
        outcomes = await _bounded(requests)
        assert proxy.counters.request_bytes > seen, "nothing was sent into the frozen connection"
        again = await self._prepared(impatient, behind)
        more = await _bounded(again)
        await asyncio.sleep(max(0.0, began + FROZEN_SECONDS - loop.time()))
        proxy.heal()
        await self.works_again(impatient)
        await self._nothing_was_wrong([*requests, *again], [*outcomes, *more])
        await self.replies(impatient, new_name())

    @row("stricter-133")
    async def test_a_half_open_connection_is_left(
        self, impatient: Component[Any], behind: Component[Any], proxy: FaultProxy
    ) -> None:
        requests = await self._prepared(impatient, behind)
        proxy.black_hole()
        outcomes = await _bounded(requests)
        assert proxy.counters.dropped_request_bytes > 0, "nothing was sent into the black hole"
        proxy.heal()
        await self.works_again(impatient)
        await self._nothing_was_wrong(requests, outcomes)
        await self.replies(impatient, new_name())

    @row("stricter-133")
    async def test_a_slow_backend_only_takes_longer(self, opened: Component[Any], proxy: FaultProxy) -> None:
        await self.works_again(opened)
        proxy.delay(0.03)
        await self.replies(opened, new_name(), 10)
        assert proxy.counters.delayed_chunks > 0

    @row("stricter-133")
    async def test_bytes_that_trickle_in_are_put_together(self, opened: Component[Any], proxy: FaultProxy) -> None:
        await self.works_again(opened)
        proxy.trickle(16)
        await self.replies(opened, new_name(), 10)
        assert proxy.counters.trickled_pieces > 0

    @row("stricter-133")
    async def test_a_refused_connection_is_said_and_made_again_when_it_can_be(
        self, impatient: Component[Any], behind: Component[Any], proxy: FaultProxy, subject: Subject
    ) -> None:
        requests = await self._prepared(impatient, behind)
        proxy.refuse()
        proxy.cut()
        outcomes = await _bounded(requests)
        late = self.build(subject, ComponentOptions(init_timeout=timedelta(seconds=2)))
        async with asyncio.timeout(2 + 2 * CLOSE_SECONDS):
            with pytest.raises(UnavailableError):
                await late.open()
        assert proxy.counters.refused > 0
        proxy.heal()
        await self.works_again(impatient)
        await self._nothing_was_wrong(requests, outcomes)
        await self.replies(impatient, new_name())

    @row("stricter-132")
    async def test_a_restart_under_load_is_survived(
        self, opened: Component[Any], backend: FaultBackend, proxy: FaultProxy
    ) -> None:
        if backend.restart is None:
            pytest.skip("the backend cannot be restarted")
        await self.works_again(opened)
        failures: list[LapelError] = []
        progress = [0] * WORKERS
        stop = asyncio.Event()

        async def worker(number: int) -> None:
            while not stop.is_set():
                try:
                    await self.load(opened, new_name())
                    progress[number] += 1
                except LapelError as exc:
                    failures.append(exc)
                    await asyncio.sleep(0.02)

        links = proxy.counters.accepted + proxy.counters.refused
        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                tasks.create_task(worker(number))
            await until(lambda: all(progress), "nothing works before the restart")
            await asyncio.to_thread(backend.restart)
            await self.works_again(opened)
            progress[:] = [0] * WORKERS
            await until(lambda: all(progress), "not everything works after the restart")
            stop.set()
        assert proxy.counters.accepted + proxy.counters.refused > links, "the restart ended no connection"
        strangers = [exc for exc in failures if not isinstance(exc, _FAILURES)]
        assert not strangers, strangers[0]
        await self.replies(opened, new_name())

    # inside

    async def _kinds(self, component: Component[Any], behind: Component[Any]) -> range:
        """Return a number for each request, once all of them were made, so that nothing is made for the first time."""
        requests = await self._prepared(component, behind)
        for request in requests:
            await request.send()
        return range(len(requests))

    async def _prepared(self, component: Component[Any], behind: Component[Any]) -> Sequence[Request]:
        requests = self.requests(component, behind, new_name())
        for request in requests:
            if request.prepare is not None:
                await request.prepare()
        return requests

    async def _struck(
        self, component: Component[Any], behind: Component[Any], proxy: FaultProxy, kind: int, *, forward: bool
    ) -> tuple[Request, Trap, Sightings | None, int]:
        """Arm a trap for one request; return it, and how often its mark is sent: now, and in the usual course."""
        usual = 1
        request = await self._one(component, behind, kind)
        if request.mark:
            sent = proxy.sightings(request.mark.encode())
            await request.send()
            usual = sent.count
            assert usual, f"{request.name} does not put its mark on the wire"
        request = await self._one(component, behind, kind)
        mark = request.mark.encode()
        arm = proxy.drop_reply if forward else proxy.cut_request
        return request, arm(mark), proxy.sightings(mark) if mark else None, usual

    async def _one(self, component: Component[Any], behind: Component[Any], kind: int) -> Request:
        request = self.requests(component, behind, new_name())[kind]
        if request.prepare is not None:
            await request.prepare()
        return request

    def _judge(self, request: Request, outcome: object, *, may_be_undone: bool) -> None:
        if request.effect is Effect.SAFE:
            assert not isinstance(outcome, Exception), f"{request.name} only reads, is repeated, and ended {outcome!r}"
        elif request.effect is Effect.CONDITIONAL or self.resends:
            if isinstance(outcome, Exception):
                assert isinstance(outcome, OutcomeUnknownError), f"{request.name} ended with {outcome!r}"
        else:
            allowed = (OutcomeUnknownError, UnavailableError) if may_be_undone or request.reads else OutcomeUnknownError
            assert isinstance(outcome, allowed), f"{request.name} ended with {outcome!r}"

    async def _nothing_was_wrong(self, requests: Sequence[Request], outcomes: Sequence[object]) -> None:
        """See that every failure is one of those that may be, and that what is said to be undone is undone."""
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, Exception):
                assert isinstance(outcome, _FAILURES), f"{request.name} ended with {outcome!r}"
            if request.done is not None:
                count = await request.done()
                if isinstance(outcome, OutcomeUnknownError):
                    assert count <= 1, f"{request.name} was done {count} times"
                else:
                    expected = 0 if isinstance(outcome, Exception) else 1
                    assert count == expected, f"{request.name} ended with {outcome!r}, and was done {count} times"


async def _outcome(request: Request) -> object:
    try:
        return await request.send()
    except LapelError as exc:
        return exc


async def _bounded(requests: Sequence[Request]) -> list[object]:
    async with asyncio.timeout(BOUND_SECONDS):
        return await asyncio.gather(*map(_outcome, requests))


async def _hit(trap: Trap, request: Request) -> None:
    try:
        await trap.wait()
    except TimeoutError:
        pytest.fail(f"the fault did not hit {request.name}")
