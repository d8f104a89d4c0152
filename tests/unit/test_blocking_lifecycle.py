"""The synchronous facade among threads, loops and forks: where it may be used, and what its threads do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.blocking_lifecycle_support import nothing_is_left as nothing_is_left
from tests.unit.blocking_lifecycle_support import threads
from tests.unit.blocking_support import until

import lapel
from lapel import blocking
from lapel.blocking.threads import DaemonThreads
from lapel.errors import ClosedError, WrongLoopError

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
