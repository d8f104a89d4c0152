"""What all drivers of Google Cloud do with threads: bounded, in turns, broken off, and never in the way of the loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
import requests
from tests.backends.gcp_secrets import SecretManagerBackend
from tests.backends.gcs import GcsBackend
from tests.unit.loop_watch import assert_never_held_up
from tests.unit.test_gcp_bucket import binding_at
from tests.unit.test_gcp_secrets import store_at

from lapel.coalesce import was_sent
from lapel.errors import UnavailableError
from lapel_contrib.gcp.threads import RUNNING, Threads

LONGEST = 0.020
"""Seconds that the loop's thread may work without a turn of the loop."""
CALLERS = 20
"""How many calls begin at once. They all begin in one turn of the loop, so that more would measure their number."""


async def test_the_loop_is_never_held_up_by_the_bucket(gcs_server: GcsBackend, gcs_bucket: str) -> None:
    async def work() -> None:
        async with binding_at(gcs_server.endpoint, gcs_bucket) as binding:
            for operation, data in (("create", bytes(10_240)), ("get", None), ("delete", None)):
                for first in range(0, 100, CALLERS):
                    keys = [f"k{number}" for number in range(first, first + CALLERS)]
                    await asyncio.gather(*(binding.invoke(operation, data, metadata={"key": key}) for key in keys))
            await binding.invoke("create", bytes(9_000_000), metadata={"key": "large"})
            await binding.invoke("get", metadata={"key": "large"})
            await binding.invoke("list")

    await assert_never_held_up(work, LONGEST)


async def test_the_loop_is_never_held_up_by_the_secret_store(gcp_secrets: SecretManagerBackend) -> None:
    gcp_secrets.put("watched", b"value")

    async def work() -> None:
        async with store_at(gcp_secrets) as store:
            for _ in range(0, 100, CALLERS):
                await asyncio.gather(*(store.get("watched") for _ in range(CALLERS)))
            await store.bulk_get()

    await assert_never_held_up(work, LONGEST)


async def test_what_holds_up_the_loop_is_measured() -> None:
    async def work() -> None:
        end = time.thread_time() + 2 * LONGEST
        while time.thread_time() < end:
            pass

    with pytest.raises(AssertionError, match="held up"):
        await assert_never_held_up(work, LONGEST)


async def test_few_threads_run_at_a_time() -> None:
    threads = Threads("test", 16)
    running, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    await asyncio.gather(*(threads.run(work, place="test", writes=False) for _ in range(64)))
    await threads.close()
    assert most == RUNNING


async def test_a_cancelled_call_ends_its_request_and_says_whether_it_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        session = requests.Session()
        threads = Threads("test", 2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        threads.adopt(session, url)
        ended = threading.Semaphore(0)

        def ask() -> None:
            try:
                session.get(url, timeout=30)
            finally:
                ended.release()

        calls = [asyncio.create_task(threads.run(ask, place="test", writes=True)) for _ in range(4)]
        accepted = [await asyncio.to_thread(server.accept) for _ in range(2)]
        for connection, _ in accepted:
            assert await asyncio.to_thread(connection.recv, 10)
        outcomes: list[bool] = []
        # Those that wait first: a thread that a broken-off call frees takes the next one.
        for call in reversed(calls):
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await call
            outcomes.append(was_sent(caught.value))
        assert outcomes == [False, False, True, True]
        for _ in range(2):
            assert await asyncio.to_thread(ended.acquire, True, 5)
        await threads.close()
        for connection, _ in accepted:
            connection.close()


async def test_nothing_runs_after_close_and_closing_twice_is_fine() -> None:
    threads = Threads("test", 2)
    await threads.close()
    await threads.close()
    with pytest.raises(UnavailableError, match="closed"):
        await threads.run(int, place="test", writes=False)
