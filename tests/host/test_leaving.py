"""Clients that go away, and a host that does, while a request is under way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.host.support import component, running

from lapel.errors import UnavailableError
from lapel.state import GetRequest, SetRequest, StateItem


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return component(tmp_path, "store", "state.in-memory")


async def test_a_client_that_goes_away_within_its_body_changes_nothing(store: Path) -> None:
    async with running(store) as host:
        _, writer = await asyncio.open_connection("127.0.0.1", host.port)
        content = json.dumps([{"key": "k", "value": 1}]).encode()
        writer.write(b"POST /v1.0/state/store HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (len(content) + 1))
        writer.write(content)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await host.ask("GET", "/v1.0/state/store/k")).status_code == 204


async def test_a_client_that_goes_away_after_its_request_does_not_stop_the_work(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store) as host:
        driver = host.host.components.state("store").driver
        started, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        write = driver.set

        async def slow(request: SetRequest) -> str | None:
            started.set()
            await go_on.wait()
            try:
                return await write(request)
            finally:
                done.set()

        monkeypatch.setattr(driver, "set", slow)
        _, writer = await asyncio.open_connection("127.0.0.1", host.port)
        content = json.dumps([{"key": "k", "value": 1}]).encode()
        writer.write(b"POST /v1.0/state/store HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content))
        writer.write(content)
        await asyncio.wait_for(started.wait(), 10)
        writer.close()
        await writer.wait_closed()
        go_on.set()
        await asyncio.wait_for(done.wait(), 10)
        assert (await host.ask("GET", "/v1.0/state/store/k")).text == "1"


async def test_a_request_under_way_is_answered_before_the_host_ends(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store) as host:
        driver = host.host.components.state("store").driver
        started, go_on = asyncio.Event(), asyncio.Event()
        get = driver.get

        async def slow(request: GetRequest) -> StateItem | None:
            started.set()
            await go_on.wait()
            return await get(request)

        monkeypatch.setattr(driver, "get", slow)
        asking = asyncio.create_task(host.ask("GET", "/v1.0/state/store/k"))
        await started.wait()
        host.host.stopping.set()
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await asking).status_code == 204


async def test_nobody_s_write_is_not_tried_again(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = {"policies": {"retries": {"ever": {"policy": "constant", "duration": "200ms", "maxRetries": -1}}}}
    targets = {"targets": {"components": {"store": {"outbound": {"retry": "ever"}}}}}
    document = {"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "r"}}
    (tmp_path / "resiliency.yaml").write_text(json.dumps({**document, "spec": policies | targets}))
    async with running(tmp_path) as host:
        driver = host.host.components.state("store").driver
        tries, gone = 0, asyncio.Event()
        write = driver.set

        async def failing(request: SetRequest) -> str | None:
            nonlocal tries
            tries += 1
            await gone.wait()
            raise UnavailableError("down")

        monkeypatch.setattr(driver, "set", failing)
        _, writer = await asyncio.open_connection("127.0.0.1", host.port)
        content = json.dumps([{"key": "k", "value": "old"}]).encode()
        writer.write(b"POST /v1.0/state/store HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content))
        writer.write(content)
        async with asyncio.timeout(10):
            while not tries:
                await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        gone.set()
        async with asyncio.timeout(10):
            while any("RequestResponseCycle.run_asgi" in str(task.get_coro()) for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)
        assert tries == 1
        monkeypatch.setattr(driver, "set", write)
        assert (await host.ask("POST", "/v1.0/state/store", json=[{"key": "k", "value": "new"}])).status_code == 204
        assert (await host.ask("GET", "/v1.0/state/store/k")).text == '"new"'
