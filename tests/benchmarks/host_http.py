"""State over HTTP against a route of the same server that returns a constant; wrk with 64 connections on loopback.

The constant is a bare ASGI application under the host's own server settings, so the ratio is what routing, the API and
the store cost together. `LAPEL_TEST_REDIS` names a Redis; one of its own is started otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]
from tests.backends import provision
from tests.backends.guard import guard
from tests.backends.redis import RedisServer, attach
from tests.backends.redis_node import RedisOptions
from tests.benchmarks.rows import PAIRS, Row

CONNECTIONS = 64
SECONDS = 2
SERVER = Path(__file__).with_name("_host_server.py")
SAVE = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '[{"key":"k","value":"' .. string.rep("v", 98) .. '"}]'
"""
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests per second, and the median and 99th percentile of the latency in seconds.

    `work` is the processor time of the server for each request, in seconds. It tells what the code costs also on a
    machine that others use.
    """

    rate: float
    p50: float
    p99: float
    work: float


@contextmanager
def _serving(kind: str, *files: str) -> Iterator[tuple[int, psutil.Process]]:
    """Run a server in a process of its own and give its port and the process."""
    with subprocess.Popen([sys.executable, str(SERVER), kind, *files], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline()), psutil.Process(server.pid)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def _load(server: psutil.Process, url: str, script: Path | None = None) -> Load:
    before = sum(server.cpu_times()[:2])
    scripted = ("-s", str(script)) if script else ()
    command = ["wrk", "--latency", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *scripted]
    done = subprocess.run([*command, url], stdout=subprocess.PIPE, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"the load failed: {done.stdout}")
    found = {name: _seconds(value) for name, value in re.findall(r"(50|99)%\s+([\d.]+[a-z]+)", done.stdout)}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    assert rate is not None
    assert count is not None
    work = (sum(server.cpu_times()[:2]) - before) / int(count[1])
    return Load(float(rate[1]), found["50"], found["99"], work)


def _seconds(text: str) -> float:
    number = re.fullmatch(r"([\d.]+)([a-z]+)", text)
    assert number is not None
    return float(number[1]) * _UNITS[number[2]]


def _component(folder: Path, name: str, type: str, values: dict[str, str]) -> str:
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"type": type, "version": "v1", "metadata": [{"name": k, "value": v} for k, v in values.items()]},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(document), "utf-8")
    return str(path)


def _row(name: str, pairs: list[tuple[Load, Load]], least: float = 0.0) -> Row:
    ratio = median(mine.rate / other.rate for mine, other in pairs)
    return {
        "name": name,
        "unit": "requests/s",
        "ours": median(mine.rate for mine, _ in pairs),
        "baseline": median(other.rate for _, other in pairs),
        "ratio": ratio,
        "target": f"ratio >= {least:g}" if least else "none: what the body costs the server itself is in both",
        "ok": ratio >= least,
    }


def _work(name: str, rounds: list[dict[str, Load]], less: str, more: str) -> Row:
    return {
        "name": f"{name}: processor time of the server",
        "unit": "us/request",
        "ours": median(loads[more].work for loads in rounds) * 1e6,
        "baseline": median(loads[less].work for loads in rounds) * 1e6,
        "ratio": median(loads[less].work / loads[more].work for loads in rounds),
        "target": "none: the ratio that an idle machine would give",
        "ok": True,
    }


def _tail(name: str, loads: list[Load]) -> Row:
    ratio = median(load.p99 / load.p50 for load in loads)
    return {
        "name": f"{name}: p99 against p50",
        "unit": "ms",
        "ours": median(load.p99 for load in loads) * 1e3,
        "baseline": median(load.p50 for load in loads) * 1e3,
        "ratio": ratio,
        "target": "ratio < 10",
        "ok": ratio < 10,
    }


def _run() -> list[Row]:
    provision.install_packages({"wrk": "wrk"})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if url := os.environ.get("LAPEL_TEST_REDIS"):
            backend = attach(url, "node", "LAPEL_TEST_REDIS")
        else:
            backend = RedisServer(guard().folder() / "redis", RedisOptions())
            backend.launch()
        stack.callback(backend.close)
        save = folder / "save.lua"
        save.write_text(SAVE)
        memory = _component(folder, "memory", "state.in-memory", {})
        redis = _component(folder, "redis", "state.redis", {k: str(v) for k, v in backend.properties.items()})
        port, bare = stack.enter_context(_serving("constant"))
        calls: dict[str, tuple[psutil.Process, str, Path | None]] = {
            "constant": (bare, f"http://127.0.0.1:{port}/", None),
            "constant save": (bare, f"http://127.0.0.1:{port}/", save),
        }
        port, host = stack.enter_context(_serving("host", memory, redis))
        root = f"http://127.0.0.1:{port}/v1.0/state"
        for store in ("memory", "redis"):
            calls[f"{store} get"] = (host, f"{root}/{store}/k", None)
            calls[f"{store} save"] = (host, f"{root}/{store}", save)
        for store in ("memory", "redis"):
            content = json.dumps([{"key": "k", "value": "v" * 98}]).encode()
            urlopen(Request(f"{root}/{store}", content), timeout=10).close()
        for call in calls.values():
            _load(*call)
        rounds = [{name: _load(*call) for name, call in calls.items()} for _ in range(PAIRS)]
    connections = f"{CONNECTIONS} connections, 100 bytes"
    rows = [
        _row(
            f"host, save on state.in-memory against a constant that is sent the same body, {connections}",
            [(loads["memory save"], loads["constant save"]) for loads in rounds],
        )
    ]
    for word in ("get", "save"):
        memory_word, redis_word = f"memory {word}", f"redis {word}"
        rows += [
            _row(
                f"host, {word} on state.in-memory against a constant, {connections}",
                [(loads[memory_word], loads["constant"]) for loads in rounds],
                0.6,
            ),
            _row(
                f"host, {word} on state.redis against state.in-memory, {connections}",
                [(loads[redis_word], loads[memory_word]) for loads in rounds],
                0.8,
            ),
            _work(f"host, {word} on state.in-memory against a constant", rounds, "constant", memory_word),
            _work(f"host, {word} on state.redis against state.in-memory", rounds, memory_word, redis_word),
            _tail(f"host, {word} on state.in-memory", [loads[memory_word] for loads in rounds]),
            _tail(f"host, {word} on state.redis", [loads[redis_word] for loads in rounds]),
        ]
    return rows


async def run() -> list[Row]:
    """Return rows for get and save on both stores, and their tails."""
    return await asyncio.to_thread(_run)


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
