"""Applications on Dapr's own extensions for FastAPI and Flask, each a program of its own, served by a host."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.host.support import Running, component, running

FASTAPI = """
import sys
import uvicorn
from dapr.ext.fastapi import DaprApp
from fastapi import Body, FastAPI

app = FastAPI()
dapr = DaprApp(app)
store = sys.argv[2]

@dapr.subscribe(pubsub="bus", topic="orders", route="/orders")
def orders(event=Body()):
    with open(store, "a") as file:
        file.write(event["data"]["item"] + "\\n")
    return {"status": "SUCCESS"}

@app.post("/tick")
def tick():
    with open(store, "a") as file:
        file.write("tick\\n")

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
"""

FLASK = """
import sys
from flask import Flask, request
from flask_dapr import DaprApp

app = Flask("shop")
dapr = DaprApp(app)
store = sys.argv[2]

@dapr.subscribe(pubsub="bus", topic="orders", route="/orders")
def orders():
    with open(store, "a") as file:
        file.write(request.get_json(force=True)["data"]["item"] + "\\n")
    return "", 200

@app.route("/tick", methods=["POST"])
def tick():
    with open(store, "a") as file:
        file.write("tick\\n")
    return "", 200

app.run(port=int(sys.argv[1]))
"""


@asynccontextmanager
async def program(source: str, folder: Path) -> AsyncIterator[tuple[int, Path]]:
    """Run a program on a free port; its second argument is a file that it writes to."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    script, written = folder / "app.py", folder / "written"
    script.write_text(source)
    written.touch()
    command = [sys.executable, "-W", "ignore", str(script), str(port), str(written)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield port, written
    finally:
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 20)
        assert b"Traceback" not in errors, errors.decode()


async def publish(host: Running, item: str) -> None:
    response = await host.ask("POST", "/v1.0/publish/bus/orders", json={"item": item})
    assert response.status_code == 204


@pytest.mark.parametrize("source", [FASTAPI, FLASK], ids=["fastapi", "flask"])
async def test_it_receives_its_events_and_those_of_bindings(tmp_path: Path, source: str) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    component(tmp_path, "tick", "bindings.cron", schedule="@every 100ms", direction="input")
    async with program(source, tmp_path) as (port, written), running(tmp_path, app_port=port) as host:
        async with asyncio.timeout(60):
            while (await host.ask("GET", "/v1.0/healthz")).status_code != 204:
                await asyncio.sleep(0.05)
            while not host.host.app or ("bus", "orders") not in host.host.app.armed():
                await asyncio.sleep(0.05)
            shown = (await host.ask("GET", "/v1.0/metadata")).json()
            await publish(host, "apples")
            await publish(host, "pears")
            while {"apples", "pears", "tick"} - set(written.read_text().split()):
                await asyncio.sleep(0.05)
    assert json.dumps(shown["subscriptions"]).count('"orders"') == 1
