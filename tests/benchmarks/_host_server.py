"""Serve for `host_http`: `_host_server.py constant`, or `_host_server.py host FILES...`. Prints the port."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from typing import Any

import uvicorn

from lapel.host import create_app
from lapel.host.server import configuration, new_event_loop, serve

ANSWER = b'"' + b"v" * 98 + b'"'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def constant(scope: Any, receive: Any, send: Any) -> None:
    """Answer what a state get answers, without any work."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def main(kind: str, files: list[str]) -> None:
    app = create_app(files, app_id="bench", http_port=0)
    gc.collect()
    gc.freeze()  # as `lapel run` does
    if kind == "host":
        await serve(app, listening=lambda _, port: print(port, flush=True))
        return
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        await uvicorn.Server(configuration(constant, app.host.options)).serve(sockets=[listener])


with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main(sys.argv[1], sys.argv[2:]))
