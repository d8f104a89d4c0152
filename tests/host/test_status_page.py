"""The status page, in a real browser."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from tests.host.application import application
from tests.host.support import component, running

from lapel.host import create_app

SCREENSHOT = os.environ.get("LAPEL_SCREENSHOT")
"""Where to write a picture of the page, for the documentation."""
PATIENCE = 30.0


def rows(browser: webdriver.Remote, table: str) -> list[list[str]]:
    found = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in found]


async def until(look: Callable[[], Any]) -> Any:
    """Return what `look`, run in a thread, gives once that is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if found := await asyncio.to_thread(look):
                    return found
            except Exception as exc:  # the page draws itself anew while it is looked at
                if "stale element" not in str(exc):
                    raise
            await asyncio.sleep(0.1)


async def test_it_shows_components_subscriptions_and_problems_and_stays_live(
    tmp_path: Path, browser: webdriver.Remote
) -> None:
    component(tmp_path, "statestore", "state.in-memory")
    component(tmp_path, "orders", "pubsub.in-memory")
    component(tmp_path, "secrets", "secretstores.local.env")
    async with application() as app:
        app.subscribes({"pubsubname": "orders", "topic": "paid", "route": "/paid"})
        app.answers["POST /paid"] = (200, {"status": "DROP"})
        async with running(tmp_path, app_port=app.port) as host:
            await asyncio.to_thread(browser.get, f"http://127.0.0.1:{host.port}/")
            components = await until(lambda: len(rows(browser, "components")) == 3 and rows(browser, "components"))
            assert [row[0] for row in components] == ["orders", "secrets", "statestore"]
            assert components[2][1] == "state.in-memory v1"
            assert [row[2] for row in components] == ["ready"] * 3
            assert "TRANSACTIONAL" in components[2][3].split()
            await until(
                lambda: [row[:4] for row in rows(browser, "subscriptions")] == [["orders", "paid", "/paid", "ready"]]
            )
            assert browser.find_element(By.ID, "ready").text == "ready"
            assert browser.title == "myapp - lapel"

            await host.ask("POST", "/v1.0/publish/orders/paid", json={"<script>alert(1)</script>": 1})
            problem = await until(lambda: next((row for row in rows(browser, "problems") if len(row) == 3), None))
            assert "a message is gone" in problem[2]
            if SCREENSHOT:
                await asyncio.to_thread(browser.save_screenshot, SCREENSHOT)
        stale = By.CSS_SELECTOR, "body.stale"
        await until(lambda: browser.find_elements(*stale))


async def test_with_an_api_token_it_asks_for_it(tmp_path: Path, browser: webdriver.Remote) -> None:
    component(tmp_path, "statestore", "state.in-memory")
    async with running(tmp_path, api_token="let-me-in") as host:
        await asyncio.to_thread(browser.get, f"http://127.0.0.1:{host.port}/")
        dialog = await until(lambda: browser.find_element(By.ID, "login").is_displayed())
        assert dialog
        await asyncio.to_thread(browser.find_element(By.ID, "token").send_keys, "let-me-in")
        await asyncio.to_thread(browser.find_element(By.ID, "enter").click)
        await until(lambda: [row[0] for row in rows(browser, "components") if row] == ["statestore"])


async def test_it_works_where_it_is_mounted_also_without_the_slash(tmp_path: Path, browser: webdriver.Remote) -> None:
    component(tmp_path, "statestore", "state.in-memory")
    host = create_app(tmp_path, app_id="myapp", api_token=None)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        inside = scope["type"] == "http" and scope["path"].startswith("/ops")
        await host({**scope, "root_path": "/ops"} if inside else {**scope, "raw_path": b"/none"}, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(outer, lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            for path in ("/ops", "/ops/"):
                await asyncio.to_thread(browser.get, f"http://127.0.0.1:{listener.getsockname()[1]}{path}")
                await until(lambda: [row[0] for row in rows(browser, "components") if row] == ["statestore"])
        finally:
            # The page would keep its connection open.
            await asyncio.to_thread(browser.get, "about:blank")
            server.should_exit = True
            await asyncio.wait_for(serving, PATIENCE)
            await host.host.stop()


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    component(tmp_path, "statestore", "state.in-memory")
    async with running(tmp_path, status_page=False) as host:
        for path in ("/", "/status.json"):
            assert (await host.ask("GET", path)).status_code == 404


async def test_what_it_shows_needs_the_token(tmp_path: Path) -> None:
    component(tmp_path, "statestore", "state.in-memory")
    async with running(tmp_path, api_token="let-me-in") as host:
        assert (await host.ask("GET", "/")).status_code == 200
        assert (await host.ask("GET", "/status.json")).status_code == 401
        shown = await host.ask("GET", "/status.json", headers={"dapr-api-token": "let-me-in"})
        assert shown.json()["components"][0]["name"] == "statestore"


async def test_nothing_runs_in_it_but_what_is_in_it(tmp_path: Path) -> None:
    component(tmp_path, "statestore", "state.in-memory")
    async with running(tmp_path) as host:
        page: httpx.Response = await host.ask("GET", "/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


pytestmark = pytest.mark.timeout(120)
