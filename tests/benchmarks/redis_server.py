"""The Redis that benchmarks run against: the one that `LAPEL_TEST_REDIS` names, or a process of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.backends.guard import guard
from tests.backends.redis import RedisBackend, RedisServer, attach
from tests.backends.redis_node import RedisOptions


@contextmanager
def redis_server() -> Iterator[RedisBackend]:
    """Provide a server, and end it if it is ours."""
    if url := os.environ.get("LAPEL_TEST_REDIS"):
        yield attach(url, "node", "LAPEL_TEST_REDIS")
        return
    server = RedisServer(guard().folder() / "redis", RedisOptions())
    server.launch()
    try:
        yield server
    finally:
        server.close()
