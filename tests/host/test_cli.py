"""`lapel run` as a process, and what docs/host.md shows."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import httpx
import pytest
from tests.host.application import application
from tests.host.curl import parse
from tests.host.support import component

PAGE = (Path(__file__).parents[2] / "docs" / "host.md").read_text("utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def lapel(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lapel.cli", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            urlopen(f"http://127.0.0.1:{port}/v1.0/healthz", timeout=5).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the host did not become ready")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "store.yaml").write_text(YAML[0])
    return tmp_path


def test_the_commands_of_the_page_work_as_shown(folder: Path) -> None:
    port = free_port()
    serve, calls, _ = CONSOLE
    command = serve.strip().removeprefix("lapel ").replace("3500", str(port)).split()
    with lapel(folder, *command) as process:
        wait_until_ready(process, port)
        answer = ""
        shown = 0
        for line in calls.strip().splitlines():
            if line.startswith("# "):
                pattern = ".*".join(re.escape(part) for part in line[2:].split("..."))
                assert re.fullmatch(pattern, answer), (line, answer)
                shown += 1
                continue
            curl = parse(line)
            url = curl.url.replace("localhost:3500", f"127.0.0.1:{port}")
            request = Request(url, curl.content or None, dict(curl.headers), method=curl.method)
            try:
                with urlopen(request, timeout=10) as response:
                    answer = response.read().decode()
            except HTTPError as error:
                with error:
                    answer = error.read().decode()
        assert shown == 3
        assert process.wait(20) == 0


async def test_the_command_beside_an_application_probes_it(folder: Path) -> None:
    async with application() as app:
        app.answers["GET /healthz"] = 200
        command = CONSOLE[2].strip().removeprefix("lapel ").replace("8000", str(app.port)).split()
        with lapel(folder, *command, "--http-port", "0"):
            await app.wait_for("GET /healthz")


async def test_the_service_of_the_page_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(PYTHON[0], "docs/host.md", "exec", dont_inherit=True), names)
    app = names["app"]
    async with app.router.lifespan_context(app):  # type: ignore[attr-defined]
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            saved = await client.post("/dapr/v1.0/state/statestore", json=[{"key": "a/b", "value": 1}])
            assert saved.status_code == 204
            assert (await client.get("/dapr/v1.0/state/statestore/a%2Fb")).text == "1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(folder: Path, number: signal.Signals) -> None:
    port = free_port()
    with lapel(folder, "run", "--app-id", "a", "-d", "resources", "--http-port", str(port)) as process:
        wait_until_ready(process, port)
        process.send_signal(number)
        assert process.wait(20) == 0


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    port = free_port()
    arguments = ["run", "--app-id", "a", "-d", "resources", "--http-port", str(port)]
    with lapel(folder, *arguments, "--graceful-shutdown-seconds", "60") as process:
        wait_until_ready(process, port)
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = b"POST /v1.0/state/statestore HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n"
            client.sendall(head + b"expect: 100-continue\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 100")  # the request is under way, and stays so
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_the_token_of_the_environment_is_asked_for(folder: Path) -> None:
    port = free_port()
    arguments = ["run", "--app-id", "a", "-d", "resources", "--http-port", str(port)]
    with lapel(folder, *arguments, DAPR_API_TOKEN="secret") as process:
        wait_until_ready(process, port)
        url = f"http://127.0.0.1:{port}/v1.0/metadata"
        with pytest.raises(HTTPError) as caught:
            urlopen(url, timeout=5)
        with caught.value as refused:
            assert refused.code == 401
        with urlopen(Request(url, headers={"dapr-api-token": "secret"}), timeout=5) as response:
            assert json.loads(response.read())["id"] == "a"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "Missing option '--app-id'"),
        (["--app-id", "a", "--http-port", "99999"], 2, "http_port is 99999"),
        (["--app-id", "a", "--max-body-size", "big"], 2, "expected a size in bytes"),
        (["--app-id", "a||b"], 2, "expected text without '||'"),
        (["--app-id", "a", "--log-level", "loud"], 2, "loud"),
        (["--app-id", "a", "-d", "missing", "--http-port", "0"], 1, "missing"),
        (["--app-id", "a", "-d", "broken", "--http-port", "0"], 1, "connectionStrng"),
        (["--app-id", "a", "-d", "closed", "--http-port", "0"], 1, "1 of 1 components failed to open"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(folder: Path, arguments: list[str], code: int, text: str) -> None:
    for name, field in (("broken", "connectionStrng"), ("closed", "connectionString")):
        (folder / name).mkdir()
        component(folder / name, "db", "state.sqlite", **{field: "nowhere/x.db"})
    with lapel(folder, "run", *arguments, COLUMNS="300") as process:
        _, error = process.communicate(timeout=40)
    assert process.returncode == code, error
    assert text in error
    assert "Traceback" not in error


def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with lapel(folder, "run", "--app-id", "a", "-d", "resources", "-H", str(port)) as process:
            _, error = process.communicate(timeout=40)
    assert (process.returncode, f"cannot listen on 127.0.0.1 port {port}" in error) == (1, True)
