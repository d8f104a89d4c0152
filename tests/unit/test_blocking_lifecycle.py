"""The synchronous facade: threads, loops, forks, interruptions, and how everything ends."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit import sample_drivers
from tests.unit.sample_drivers import World, registry

import lapel
from lapel import blocking
from lapel.blocking.runner import Runner
from lapel.blocking.threads import DaemonThreads
from lapel.errors import (
    AssemblyError,
    ClosedError,
    EtagMismatchError,
    LockLostError,
    SettingsError,
    UnavailableError,
    WrongLoopError,
)
from lapel_contrib.memory.state import MemoryState


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


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


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    fresh = World()
    monkeypatch.setattr(sample_drivers, "world", fresh)
    return fresh


class Slow:
    """What happened to a slow call."""

    def __init__(self) -> None:
        self.started, self.cancelled = threading.Event(), threading.Event()


@contextmanager
def interrupted_when(condition: Callable[[], Any]) -> Iterator[None]:
    """Send this process an interrupt once `condition` holds, and expect it to come out of the block."""

    def send() -> None:
        until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    with pytest.raises(KeyboardInterrupt):
        sender.start()
        yield
    sender.join()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Let reading from memory take a minute."""
    slow = Slow()

    async def get(self: MemoryState, request: object) -> None:
        slow.started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            slow.cancelled.set()
            raise

    monkeypatch.setattr(MemoryState, "get", get)
    return slow


# where it may be used


async def test_inside_a_running_loop_it_refuses_and_leaves_nothing() -> None:
    with pytest.raises(WrongLoopError, match=r"inside a running event loop.*await"):
        blocking.open_state("in-memory")
    store = await asyncio.to_thread(blocking.open_state, "in-memory")
    for call in (store.close, store.health, store.keys, lambda: store.get("k")):
        with pytest.raises(WrongLoopError, match="inside a running event loop"):
            call()
    assert await asyncio.to_thread(store.get, "k") is None
    await asyncio.to_thread(store.close)


def test_in_its_own_loop_it_refuses_instead_of_waiting_for_itself() -> None:
    with blocking.open_state("in-memory") as store:
        with pytest.raises(WrongLoopError, match="own background loop"):
            store._runner.call(lambda: store.get("k"))
        with pytest.raises(WrongLoopError, match="own background loop"):
            store._runner.call(store.close)
        assert store.get("k") is None


def test_after_closing_every_call_says_so() -> None:
    with blocking.open_components([lapel.Manifest.of("db", "state.in-memory")]) as components:
        store = components.state("db")
    for call in (lambda: store.get("k"), lambda: store.set("k", 1), components.health):
        with pytest.raises(ClosedError, match="is closed; open a new one"):
            call()
    with pytest.raises(ClosedError):
        components.state("db")
    assert store.health().state is lapel.HealthState.CLOSED
    store.close()
    components.close()


def test_sets_of_components_may_be_nested() -> None:
    with blocking.open_state("in-memory") as outer, blocking.open_state("in-memory") as inner:
        outer.set("k", "outer")
        with inner:
            inner.set("k", "inner")
        item = outer.get("k")
        assert item is not None
        assert item.json() == "outer"


def test_one_component_of_a_set_can_be_closed() -> None:
    manifests = [lapel.Manifest.of(name, "state.in-memory") for name in ("a", "b")]
    with blocking.open_components(manifests) as components:
        with components.state("a") as store:
            store.set("k", 1)
        with pytest.raises(ClosedError):
            store.get("k")
        assert components.state("b").get("k") is None


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    text = textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on() -> None:
    result = run_program("""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from lapel import blocking
        from lapel.errors import WrongLoopError

        with blocking.open_state("in-memory") as store, blocking.open_lock("in-memory") as locks:
            store.set("k", 1)
            with locks.hold("r"):
                child = os.fork()
                if child == 0:
                    try:
                        store.get("k")
                    except WrongLoopError as exc:
                        print("child:", exc, flush=True)
                    with blocking.open_state("in-memory") as own:
                        own.set("k", 2)
                        print("child:", own.get("k").json(), flush=True)
                    sys.exit(7)
                print("exit:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            print("parent:", store.get("k").json())
        """)
    assert result.stdout.splitlines() == [
        "child: was opened before fork; open it in the child process",
        "child: 2",
        "exit: 7",
        "parent: 1",
    ]
    assert result.stderr == ""


# many at once


def test_many_threads_call_at_once(tmp_path: Path) -> None:
    with blocking.open_state("sqlite", connection_string=str(tmp_path / "x.db")) as store:

        def work(number: int) -> Any:
            store.set(f"k{number}", number)
            item = store.get(f"k{number}")
            return item and item.json()

        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(work, range(200))) == list(range(200))


# errors and interruptions


def test_errors_keep_their_type_their_place_and_their_traceback() -> None:
    with blocking.open_state("in-memory", name="db") as store:
        store.set("k", 1)
        with pytest.raises(EtagMismatchError) as caught:
            store.set("k", 2, etag="other")
        assert (caught.value.component, caught.value.operation) == ("db", "set")
        names = [frame.name for frame in traceback.extract_tb(caught.tb)]
        assert names[0] == "test_errors_keep_their_type_their_place_and_their_traceback"
        assert {"run", "set", "_bounded"} <= set(names)


def test_a_failed_opening_leaves_nothing(world: World) -> None:
    with pytest.raises(SettingsError):
        blocking.open_state("sqlite", nonsense=1)
    world.down.add("b1")
    with pytest.raises(UnavailableError, match="does not answer"):
        blocking.open_state("sample", backend="b1", registry=registry())
    manifest = lapel.Manifest.of("db", "state.sample", {"backend": "b1"})
    with pytest.raises(AssemblyError):
        blocking.open_components(manifest, registry=registry())
    assert world.open == []


def test_an_interrupt_while_opening_leaves_nothing(world: World) -> None:
    # Set by the driver in the background loop; only looked at here.
    arrived = world.hang("b1")
    with interrupted_when(arrived.is_set):
        blocking.open_state("sample", backend="b1", registry=registry())
    assert world.open == []


def test_an_interrupt_while_waiting_cancels_the_call(slow: Slow) -> None:
    with blocking.open_state("in-memory") as store:
        with interrupted_when(slow.started.is_set):
            store.get("k")
        assert slow.cancelled.wait(20)
        store.set("k", 1)


def test_an_interrupt_while_waiting_for_a_lock_gives_it_up() -> None:
    with blocking.open_lock("in-memory") as locks:
        locks.try_lock("r", "other", 60)
        with interrupted_when(lambda: "lapel keep lock" in tasks(locks)), locks.hold("r"):
            pass
        locks.unlock("r", "other")
        until(lambda: "lapel keep lock" not in tasks(locks))
        assert locks.try_lock("r", "third", 60)


def test_an_interrupt_inside_a_change_cancels_the_update() -> None:
    with blocking.open_state("in-memory") as store:

        def change(item: object) -> int:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.update("k", change)
        until(lambda: tasks(store) == [])
        assert store.get("k") is None


def tasks(facade: blocking.Component[Any]) -> list[str]:
    """Return the names of what goes on in the background."""
    return facade._runner.call(
        lambda: [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    )


# closing


def test_closing_waits_for_calls_of_other_threads(tmp_path: Path) -> None:
    store = blocking.open_state("sqlite", connection_string=str(tmp_path / "x.db"))
    results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def write() -> None:
        while True:
            try:
                store.set("k", 1)
            except ClosedError as exc:
                results.put(exc)
                return
            except BaseException as exc:
                results.put(exc)
                raise

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    until(lambda: store.get("k"))
    store.close()
    for writer in writers:
        writer.join(20)
        assert isinstance(results.get(timeout=20), ClosedError)


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_still_waits_at_the_end_is_told(stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapel.blocking.runner.FINISH_SECONDS", 0.1)
    runner = Runner()
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    async def work() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    def wait() -> None:
        try:
            runner.run(work())
        except BaseException as exc:
            errors.put(exc)

    waiter = threading.Thread(target=wait)
    waiter.start()
    until(lambda: runner.call(lambda: len(asyncio.all_tasks())) == 2)
    runner.stop()
    runner.stop()
    waiter.join(20)
    assert isinstance(errors.get(timeout=20), ClosedError)


def test_many_threads_may_close_at_once() -> None:
    store = blocking.open_state("in-memory")
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(store.close) for _ in range(8)]:
            done.result(20)


def test_closing_returns_while_a_handler_runs_on(caplog: pytest.LogCaptureFixture) -> None:
    bus = blocking.open_pubsub("in-memory")
    running, end, after = threading.Event(), threading.Event(), queue.SimpleQueue[BaseException]()

    def handle(message: lapel.Message) -> None:
        running.set()
        end.wait(20)
        try:
            bus.publish("t", 2)
        except BaseException as exc:
            after.put(exc)

    bus.subscribe("t", handle, drain_timeout=0.01)
    bus.publish("t", 1)
    assert running.wait(20)
    bus.close()
    assert "1 handlers still run in their threads" in caplog.text
    end.set()
    assert isinstance(after.get(timeout=20), ClosedError)


@pytest.mark.parametrize("alone", [True, False])
def test_a_handler_may_close_everything(alone: bool, tmp_path: Path) -> None:
    place = str(tmp_path / "bus.db")
    opened: Any
    if alone:
        bus = opened = blocking.open_pubsub("sqlite", connection_string=place)
    else:
        opened = blocking.open_components(lapel.Manifest.of("bus", "pubsub.sqlite", {"connectionString": place}))
        bus = opened.pubsub("bus")
    returned = threading.Event()

    def handle(message: lapel.Message) -> None:
        opened.close()
        returned.set()

    bus.subscribe("t", handle, group="g")
    bus.publish("t", 1)
    assert returned.wait(20)
    until(lambda: threads() == set())
    # The message was handled and settled; it does not come again.
    with blocking.open_pubsub("sqlite", connection_string=place) as again:
        seen: queue.SimpleQueue[int] = queue.SimpleQueue()
        again.subscribe("t", lambda message: seen.put(message.json()), group="g")
        again.publish("t", 2)
        assert seen.get(timeout=20) == 2


def test_a_lock_whose_store_is_closed_is_lost() -> None:
    locks = blocking.open_lock("in-memory")
    with pytest.raises(LockLostError), locks.hold("r") as held:
        locks.close()
        assert held.lost


def test_a_subscription_can_be_closed_after_its_component() -> None:
    with blocking.open_pubsub("in-memory") as bus:
        subscription = bus.subscribe("t", lambda message: None)
    subscription.close()
    with pytest.raises(ClosedError):
        subscription.pause()


def test_a_second_interrupt_ends_a_slow_closing() -> None:
    bus = blocking.open_pubsub("in-memory")
    running, end = threading.Event(), threading.Event()

    def handle(message: lapel.Message) -> None:
        running.set()
        end.wait(20)

    bus.subscribe("t", handle, drain_timeout=600)
    bus.publish("t", 1)
    assert running.wait(20)
    with interrupted_when(lambda: bus._inner._ending):
        bus.close()
    end.set()


# threads


def test_threads_are_reused_and_never_short() -> None:
    pool, barrier = DaemonThreads("lapel test"), threading.Barrier(20)
    assert len({future.result(20) for future in [pool.submit(barrier.wait) for _ in range(20)]}) == 20
    made = threads()
    assert len(made) == 20
    until(lambda: pool._free == 20)
    assert {pool.submit(threading.current_thread).result(20) for _ in range(50)} <= made
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(20)
    pool.shutdown()
    assert pool.join(20) == 0
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(print)


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapel.blocking.threads.IDLE_SECONDS", 0.01)
    pool = DaemonThreads("lapel test")
    pool.submit(int).result(20)
    until(lambda: threads() == set())
    assert pool.submit(int).result(20) == 0
    pool.shutdown()


@pytest.mark.parametrize("end", ["", "sys.exit(3)"])
def test_a_program_that_does_not_close_ends_silently(end: str, tmp_path: Path) -> None:
    program = f"""
        import asyncio, atexit, sys, threading
        atexit.register(lambda: print([t for t in threading.enumerate() if t.name == "lapel blocking"]))
        from lapel import blocking

        bus = blocking.open_pubsub("sqlite", connection_string={str(tmp_path / "bus.db")!r})
        store = blocking.open_state("sqlite", connection_string={str(tmp_path / "state.db")!r})
        locks = blocking.open_lock("in-memory")
        holding = locks.hold("r")
        holding.__enter__()
        running = threading.Event()

        def handle(message):
            running.set()
            threading.Event().wait()

        bus.subscribe("t", handle)
        bus.subscribe("other", handle)
        bus.publish("t", 1)
        running.wait()
        threading.Thread(target=lambda: [store.set("k", n) for n in range(300)]).start()
        store.set("k", 1)
        # A driver's own thread that hangs.
        store._runner.call(lambda: asyncio.get_running_loop().run_in_executor(None, threading.Event().wait) and None)
        {end}
        """
    result = run_program(program)
    assert (result.stderr, result.stdout) == ("", "[]\n")
    assert result.returncode == (3 if "3" in end else 0)
