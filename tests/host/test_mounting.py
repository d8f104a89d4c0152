"""The host as an ASGI application: mounted, with and without a lifespan."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.host.support import component

from lapel.errors import ClosedError
from lapel.host import HostApp, create_app


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return component(tmp_path, "store", "state.in-memory")


async def test_a_mounted_host_starts_with_its_first_request(store: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = create_app(store, app_id="myapp")
    outer = Starlette(routes=[Mount("/my dapr", app=app)])
    transport = httpx.ASGITransport(outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://x/my%20dapr") as client:
        answers = await asyncio.gather(*(client.get(f"/v1.0/state/store/a%2F{n}") for n in range(5)))
        assert [answer.status_code for answer in answers] == [204] * 5
        await client.post("/v1.0/state/store", json=[{"key": "a/b", "value": 1}])
        assert (await client.get("/v1.0/state/store/a%2Fb")).text == "1"
        await app.host.stop()
        gone = await client.get("/v1.0/state/store/k")
        assert (gone.status_code, gone.json()["errorCode"]) == (500, "ERROR")


async def test_a_mounted_host_whose_components_do_not_open_says_so_and_tries_again(tmp_path: Path) -> None:
    component(tmp_path, "store", "state.sqlite", connectionString=str(tmp_path / "folder" / "x.db"))
    app = create_app(tmp_path, app_id="myapp")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        unready = await client.get("/v1.0/state/store/k")
        assert (unready.status_code, unready.json()["errorCode"]) == (500, "ERR_HEALTH_NOT_READY")
        (tmp_path / "folder").mkdir()
        assert (await client.get("/v1.0/state/store/k")).status_code == 204
        await app.host.stop()


class Lifespan:
    """The side of a server in ASGI's lifespan."""

    def __init__(self, app: HostApp) -> None:
        self.to_app: asyncio.Queue[Any] = asyncio.Queue()
        self.from_app: asyncio.Queue[Any] = asyncio.Queue()
        self.running = asyncio.create_task(app({"type": "lifespan"}, self.to_app.get, self.from_app.put))

    async def say(self, word: str) -> Any:
        await self.to_app.put({"type": f"lifespan.{word}"})
        return await asyncio.wait_for(self.from_app.get(), 20)


async def test_a_lifespan_opens_and_closes_the_components(store: Path) -> None:
    app = create_app(store, app_id="myapp")
    lifespan = Lifespan(app)
    assert (await lifespan.say("startup"))["type"] == "lifespan.startup.complete"
    assert app.host.unready() == []
    assert (await lifespan.say("shutdown"))["type"] == "lifespan.shutdown.complete"
    await asyncio.wait_for(lifespan.running, 10)
    assert app.host.unready() == ["components"]
    with pytest.raises(ClosedError, match="make a new one"):
        await app.host.start()


async def test_a_lifespan_tells_the_server_why_the_host_does_not_start(tmp_path: Path) -> None:
    component(tmp_path, "db", "state.sqlite", connectionString=str(tmp_path / "missing" / "x.db"))
    lifespan = Lifespan(create_app(tmp_path, app_id="myapp"))
    failed = await lifespan.say("startup")
    assert failed["type"] == "lifespan.startup.failed"
    assert "'db'" in failed["message"]
    await asyncio.wait_for(lifespan.running, 10)


async def test_a_websocket_is_turned_away(store: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await create_app(store, app_id="myapp")({"type": "websocket", "path": "/"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]


async def test_a_server_without_raw_paths_is_served_as_far_as_that_goes(store: Path) -> None:
    app = create_app(store, app_id="myapp")
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1.0/state/store/a b+c%é",
        "query_string": b"",
        "headers": [],
    }

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.host:
        await app.host.components.state("store").set("a b+c%é", b"1")
        await app(scope, receive, send)
    assert sent[0]["status"] == 200
    assert sent[1]["body"] == b"1"
