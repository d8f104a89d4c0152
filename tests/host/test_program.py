"""`lapel run` as a program: its logs, metrics, traces, watched files, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.backends.ports import free_port
from tests.host.application import application
from tests.host.support import component

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PATIENCE = 30.0


@dataclass
class Program:
    process: asyncio.subprocess.Process
    client: httpx.AsyncClient
    lines: list[str]
    written: list[str]

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    async def until_logged(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(text in line for line in self.lines):
                await asyncio.sleep(0.02)


async def _collect(stream: asyncio.StreamReader | None, into: list[str]) -> None:
    assert stream is not None
    while line := await stream.readline():
        into.append(line.decode().rstrip())


@asynccontextmanager
async def lapel_run(folder: Path, *options: str, **environment: str) -> AsyncIterator[Program]:
    """Run the program on a free port, with JSON logs, until the block ends."""
    command = [sys.executable, "-m", "lapel.cli", "run", "--app-id", "shop", "--http-port", "0", "--log-as-json"]
    if "--metrics-port" not in options:
        options = (*options, "--metrics-port", "0")
    process = await asyncio.create_subprocess_exec(
        *command, "-d", str(folder), *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip
    lines: list[str] = []
    written: list[str] = []
    readers = [
        asyncio.create_task(_collect(process.stderr, lines)),
        asyncio.create_task(_collect(process.stdout, written)),
    ]
    try:
        port = await _port(process, lines)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            yield Program(process, client, lines, written)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), PATIENCE)
        await asyncio.gather(*readers)


async def _port(process: asyncio.subprocess.Process, lines: list[str]) -> int:
    async with asyncio.timeout(PATIENCE):
        while True:
            for line in lines:
                if found := re.search(r"is ready on http://127\.0\.0\.1:(\d+)", line):
                    return int(found[1])
            assert process.returncode is None, "\n".join(lines)
            await asyncio.sleep(0.02)


async def test_logs_are_json_with_the_application_and_no_secret(tmp_path: Path) -> None:
    component(tmp_path, "store", "state.in-memory")
    async with lapel_run(tmp_path, DAPR_API_TOKEN="canary-token") as program:
        refused = await program.client.get("/v1.0/state/store/k")
        assert refused.status_code == 401
    assert program.process.returncode == 0
    logs = program.logs()
    assert {"time", "level", "msg", "scope", "app_id", "type"} <= set(logs[0])
    assert {entry["app_id"] for entry in logs} == {"shop"}
    assert "canary-token" not in "\n".join(program.lines)


async def test_a_scrape_counts_requests_by_template(tmp_path: Path) -> None:
    component(tmp_path, "store", "state.in-memory")
    port = free_port()
    async with lapel_run(tmp_path, "--metrics-port", str(port)) as program:
        for key in ("a", "b"):
            await program.client.get(f"/v1.0/state/store/{key}")
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    labels = 'app_id="shop",method="GET",path="/v1.0/state/{store}/{key}",status="204"'
    assert f"dapr_http_server_request_count_total{{{labels}}} 2.0" in text
    assert 'dapr_runtime_component_loaded{app_id="shop"} 1.0' in text
    assert "lapel_host_ready 1.0" in text


async def test_spans_continue_the_caller_s_trace_down_to_the_component_and_the_application(tmp_path: Path) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\n"
        "spec: {tracing: {samplingRate: '1', stdout: true}}\n"
    )
    async with application() as app:
        app.subscribes({"pubsubname": "bus", "topic": "t", "route": "/t"})
        app.answers["POST /t"] = 200
        options = ("--config", str(config / "config.yaml"), "--app-port", str(app.port))
        async with lapel_run(tmp_path, *options) as program:
            await program.until_logged("the application is there")
            async with asyncio.timeout(PATIENCE):
                while not app.requests("POST /t"):
                    await program.client.post("/v1.0/publish/bus/t", json={}, headers={"traceparent": TRACE})
                    await asyncio.sleep(0.05)
    delivered = app.requests("POST /t")[0]
    trace, parent = TRACE.split("-")[1:3]
    assert delivered.headers["traceparent"].split("-")[1] == trace
    assert delivered.headers["traceparent"].split("-")[2] != parent
    spans = "\n".join(program.written)
    assert "POST /v1.0/publish/{pubsub}/{topic...}" in spans
    assert f"0x{parent}" in spans


async def test_an_output_binding_gets_the_span_of_the_request(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\n"
        "spec: {tracing: {samplingRate: '1', stdout: true}}\n"
    )
    async with application() as other:
        other.answers["POST /"] = 200
        component(tmp_path, "other", "bindings.http", url=f"http://127.0.0.1:{other.port}")
        async with lapel_run(tmp_path, "--config", str(config / "config.yaml")) as program:
            headers = {"traceparent": TRACE, "baggage": "user=1"}
            body = {"operation": "create", "data": 1}
            answer = await program.client.post("/v1.0/bindings/other", json=body, headers=headers)
            assert answer.status_code in (200, 204), answer.text
    (asked,) = other.requests("POST /")
    trace, parent = TRACE.split("-")[1:3]
    assert asked.headers["traceparent"].split("-")[1] == trace
    assert asked.headers["traceparent"].split("-")[2] != parent
    assert asked.headers["baggage"] == "user=1"


async def test_changed_files_are_reloaded_without_a_word_to_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "resources"
    folder.mkdir()
    component(folder, "store", "state.in-memory")
    async with lapel_run(folder, "--watch") as program:
        saved = await program.client.post("/v1.0/state/store", json=[{"key": "k", "value": 1}])
        assert saved.status_code == 204
        component(folder, "second", "state.in-memory")
        await program.until_logged("added: second")
        assert (await program.client.post("/v1.0/state/second", json=[{"key": "k", "value": 2}])).status_code == 204
        (folder / "bad.yaml").write_text("a: [")
        await program.until_logged("component files are not reloaded")
        (folder / "bad.yaml").unlink()
        (folder / "second.yaml").unlink()
        await program.until_logged("removed: second")
        assert (await program.client.get("/v1.0/state/second/k")).status_code == 400
        assert (await program.client.get("/v1.0/state/store/k")).json() == 1


async def test_a_new_subscription_file_is_armed(tmp_path: Path) -> None:
    folder = tmp_path / "resources"
    folder.mkdir()
    component(folder, "bus", "pubsub.in-memory")
    async with application() as app:
        app.answers["POST /t"] = 200
        async with lapel_run(folder, "--watch", "--app-port", str(app.port)) as program:
            await program.until_logged("the application is there")
            document = {
                "apiVersion": "dapr.io/v2alpha1",
                "kind": "Subscription",
                "metadata": {"name": "s"},
                "spec": {"pubsubname": "bus", "topic": "t", "routes": {"default": "/t"}},
            }
            (folder / "s.yaml").write_text(json.dumps(document))
            async with asyncio.timeout(PATIENCE):
                while not app.requests("POST /t"):
                    await program.client.post("/v1.0/publish/bus/t", json={})
                    await asyncio.sleep(0.05)


async def test_a_mistake_ends_it_with_a_line_that_names_it(tmp_path: Path) -> None:
    component(tmp_path, "store", "state.in-memory", noSuchField="1")
    command = [sys.executable, "-m", "lapel.cli", "run", "--app-id", "shop", "--metrics-port", "0", "-d", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    assert b"noSuchField" in errors
    assert b"Traceback" not in errors


async def test_a_type_that_is_denied_is_not_opened_by_a_reload_either(tmp_path: Path) -> None:
    folder, config = tmp_path / "resources", tmp_path / "config.yaml"
    folder.mkdir()
    component(folder, "store", "state.in-memory")
    config.write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\n"
        "spec: {components: {deny: [bindings.localstorage]}}\n"
    )
    async with lapel_run(folder, "--watch", "--config", str(config)) as program:
        component(folder, "files", "bindings.localstorage", rootPath=str(tmp_path / "files"))
        await program.until_logged("components of type bindings.localstorage are denied")
        answer = await program.client.post("/v1.0/bindings/files", json={"operation": "list"})
        assert answer.status_code == 500
        assert (await program.client.get("/v1.0/state/store/k")).status_code == 204


async def test_a_log_in_a_watched_folder_does_not_feed_itself(tmp_path: Path) -> None:
    folder = tmp_path / "resources"
    folder.mkdir()
    component(folder, "store", "state.in-memory")
    async with lapel_run(folder, "--watch", "--log-level", "info") as program:
        (folder / "host.log").write_text("a line")
        component(folder, "second", "state.in-memory")
        await program.until_logged("added: second")
    assert not [entry for entry in program.logs() if entry["scope"].startswith("watchfiles")]


async def test_a_signal_ends_a_start_that_waits_for_a_backend(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        file = component(tmp_path, "store", "state.redis", redisHost=address, dialTimeout="60s", readTimeout="60s")
        document = json.loads(file.read_text())
        document["spec"]["initTimeout"] = "60s"
        file.write_text(json.dumps(document))
        command = [sys.executable, "-m", "lapel.cli", "run", "--app-id", "shop", "--http-port", "0"]
        process = await asyncio.create_subprocess_exec(
            *command, "--metrics-port", "0", "-d", str(tmp_path), stderr=asyncio.subprocess.PIPE
        )
        try:
            connection, _ = await asyncio.wait_for(asyncio.to_thread(silent.accept), PATIENCE)
            with connection:
                process.send_signal(signal.SIGTERM)
                _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert b"Traceback" not in errors
    assert process.returncode == 0
