"""Calls at the wrong moment or from the wrong place: a typed error of every public method, and nothing is harmed.

Cancellation at random moments is row stricter-130 of the conformance suite; here each step of each call is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.embedded import BY_TYPE, CANARY, EMBEDDED, Embedded, prepare

from lapel.component import Component, HealthState
from lapel.crypto import SubtleCrypto
from lapel.errors import ClosedError, LapelError, NotOpenError, WrongLoopError
from lapel.state import SetOperation

LIFECYCLE = {"open", "aclose", "health", "open_or_keep_trying", "unwrap", "unsubscribe"}

every = pytest.mark.parametrize("kind", EMBEDDED, ids=lambda kind: kind.type)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("name", CANARY)
    return prepare(tmp_path)


async def refused(kind: Embedded, component: Any, error: type[LapelError], words: str) -> None:
    """Expect the error of every call, with a cure and without a secret."""
    for name, call in kind.calls(component).items():
        with pytest.raises(error) as caught:
            await call()
        text = str(caught.value)
        assert text.startswith(f"component 'thing' ({kind.type})"), name
        assert words in text, name
        assert CANARY not in "".join(traceback.format_exception(caught.value))


async def works(kind: Embedded, component: Any) -> None:
    """Make every call that needs no server."""
    if kind.type != "bindings.http":
        for call in kind.calls(component).values():
            await call()
    assert (await component.health()).state is HealthState.READY


def methods(cls: type[Any], prefix: str = "") -> set[str]:
    """Return the methods of a class that do something with a backend."""
    return {
        prefix + name
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") and name not in LIFECYCLE
    }


@every
async def test_every_public_method_is_called_here(kind: Embedded, folder: Path) -> None:
    component = await kind.made(folder)
    expected = methods(type(component))
    if kind.type.startswith("crypto"):
        expected |= methods(SubtleCrypto, "subtle.")
    assert set(kind.calls(component)) == expected


@every
async def test_calls_before_open_and_after_close_are_refused(kind: Embedded, folder: Path) -> None:
    component = await kind.made(folder)
    await refused(kind, component, NotOpenError, "use `async with` or call `open()` first")
    async with component:
        await works(kind, component)
    await refused(kind, component, ClosedError, "is closed; open a new one")
    with pytest.raises(ClosedError):
        await component.open()
    await component.aclose()


@every
async def test_calls_from_another_loop_or_thread_are_refused_and_harm_nothing(kind: Embedded, folder: Path) -> None:
    async with await kind.made(folder) as component:

        async def elsewhere() -> None:
            await refused(kind, component, WrongLoopError, "open one per loop or use lapel.blocking")
            with pytest.raises(WrongLoopError, match="must be closed by the loop that opened it"):
                await component.aclose()

        await asyncio.to_thread(asyncio.run, elsewhere())
        await works(kind, component)


@every
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the hazard that is being tested
async def test_calls_after_fork_are_refused_and_the_child_may_open_its_own(kind: Embedded, folder: Path) -> None:
    async with await kind.made(folder) as component:

        async def child() -> None:
            await refused(kind, component, WrongLoopError, "open it in the child process")
            await component.aclose()
            if not kind.type.endswith(".sqlite"):
                # A thread of the parent may have been inside SQLite when the process forked, and its locks then stay
                # taken in the child for good. Fork before anything is open.
                async with kind.build(folder) as own:
                    await works(kind, own)

        status = await asyncio.to_thread(_in_fork, child)
        assert status == 0
        await works(kind, component)


def _in_fork(work: Any) -> int:
    """Run the coroutine function in a forked child, and return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # The child inherits a thread in which no event loop runs.
            asyncio.run(work())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    timer = threading.Timer(30, os.kill, (child, 9))
    timer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        timer.cancel()


@every
async def test_a_call_cancelled_at_any_step_leaves_the_component_working(kind: Embedded, folder: Path) -> None:
    if kind.type == "bindings.http":
        pytest.skip("needs a server; its own tests cancel")
    async with await kind.made(folder) as component:
        for name, call in kind.calls(component).items():
            for steps in (0, 1, 2, 3, 5, 8):
                task = asyncio.ensure_future(call())
                for _ in range(steps):
                    await asyncio.sleep(0)
                cancelled = task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                assert isinstance(outcome, asyncio.CancelledError) == cancelled, f"{name}, {steps}: {outcome!r}"
            await call()
        await works(kind, component)


@pytest.mark.parametrize("driver", ["state.in-memory", "state.sqlite"])
async def test_a_cancelled_write_is_done_whole_or_not_at_all(driver: str, folder: Path) -> None:
    async with await BY_TYPE[driver].made(folder) as store:
        for steps in range(12):
            await store.transaction([SetOperation("a", "old"), SetOperation("b", "old")])
            both = [SetOperation("a", "new"), SetOperation("b", "new")]
            task = asyncio.ensure_future(store.transaction(both))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # Written after it, so answered after it.
            await store.set("marker", steps)
            found = [(await store.get(key)).json() for key in ("a", "b")]
            assert found in (["old", "old"], ["new", "new"])


async def test_a_cancelled_upload_leaves_no_part_of_a_file(folder: Path) -> None:
    async with await BY_TYPE["bindings.localstorage"].made(folder) as binding:
        started = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"first"
            started.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(binding.invoke("create", endless(), metadata={"fileName": "file"}))
        await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await binding.invoke("list")).data == b"[]"
    assert list((folder / "files").iterdir()) == []


@every
async def test_an_open_that_is_cancelled_at_any_step_leaves_nothing_open(kind: Embedded, folder: Path) -> None:
    files = await asyncio.to_thread(_open_files)
    for steps in (0, 1, 3, 6, 10):
        component: Component[Any] = await kind.made(folder)
        task = asyncio.ensure_future(component.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await component.aclose()
    async with await kind.made(folder) as component:
        await works(kind, component)
    for _ in range(500):
        if await asyncio.to_thread(_open_files) <= files:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"left open: {await asyncio.to_thread(_open_files) - files}")


def _open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return {target for target in found if target.startswith("/") and not target.startswith("/proc/")}


@pytest.mark.parametrize("driver", ["configuration.local.file", "configuration.sqlite"])
async def test_a_subscription_is_ended_only_by_its_own_loop_and_once(driver: str, folder: Path) -> None:
    async with await BY_TYPE[driver].made(folder) as store:
        events: list[object] = []
        first = await store.subscribe([], events.append)
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(asyncio.run, store.unsubscribe(first))
        await store.unsubscribe(first)
        with pytest.raises(LookupError, match="there is no subscription"):
            await store.unsubscribe(first)
        last = await store.subscribe([], events.append)
    with pytest.raises(ClosedError):
        await store.unsubscribe(last)
