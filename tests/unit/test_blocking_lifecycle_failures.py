"""The synchronous facade passes errors on as they are; an interrupt ends what it interrupts and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.unit import sample_drivers
from tests.unit.blocking_lifecycle_support import nothing_is_left as nothing_is_left
from tests.unit.blocking_support import until
from tests.unit.sample_drivers import World, registry

import lapel
from lapel import blocking
from lapel.errors import AssemblyError, EtagMismatchError, SettingsError, UnavailableError
from lapel_contrib.memory.state import MemoryState


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
