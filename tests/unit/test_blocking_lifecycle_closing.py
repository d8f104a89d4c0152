"""How the synchronous facade closes: with calls, handlers and holders still at work, and from wherever it is asked."""

from __future__ import annotations

import asyncio
import queue
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
from lapel.blocking.runner import Runner
from lapel.errors import ClosedError, LockLostError


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
