"""An application that a host serves: it answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn

PATIENCE = 20.0


@dataclass(slots=True)
class Asked:
    """One request that the application got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = int | tuple[int, Any] | Callable[[Asked], Awaitable["int | tuple[int, Any]"]]


@dataclass
class Application:
    """Answers 404 to everything that `answers` does not name. An answer is a status, with a body, or a function."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def subscribes(self, *subscriptions: dict[str, Any]) -> None:
        self.answers["GET /dapr/subscribe"] = (200, list(subscriptions))

    def requests(self, line: str) -> list[Asked]:
        """Return those of `METHOD /path`."""
        return [asked for asked in self.asked if f"{asked.method} {asked.path}" == line]

    async def wait_for(self, line: str, count: int = 1) -> list[Asked]:
        """Return the requests of `METHOD /path` once there are `count`."""
        async with asyncio.timeout(PATIENCE):
            while len(found := self.requests(line)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["path"], headers, body)
        self.asked.append(asked)
        self._changed.set()
        answer = self.answers.get(f"{asked.method} {asked.path}", 404)
        if callable(answer):
            answer = await answer(asked)
        status, content = answer if isinstance(answer, tuple) else (answer, b"")
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": data})


@asynccontextmanager
async def application(app: Application | None = None, *, port: int = 0) -> AsyncIterator[Application]:
    """Serve an application on a loopback port."""
    served = app or Application()
    with socket.create_server(("127.0.0.1", port)) as listener:
        served.port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(served, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        server.capture_signals = suppress  # type: ignore[assignment,method-assign]  # signals are the test runner's
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield served
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, PATIENCE)
