"""The shapes of Redis that tests can ask for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from . import compose, redis
from .launcher import Technology
from .redis import RedisBackend, RedisServer
from .redis_address import Mode
from .redis_groups import RedisCluster, RedisSentinel
from .redis_node import Module, RedisOptions

_STACK = RedisOptions(modules=("json", "search"))
_TLS = RedisOptions(tls=True)


def _in_compose(
    service: str, port: int, mode: Mode, master: str = "", modules: Sequence[Module] = ()
) -> RedisBackend | None:
    found = compose.published(service, port)
    if found is None:
        return None
    scheme = "redis+sentinel" if mode == "sentinel" else "redis"
    return redis.attach(f"{scheme}://127.0.0.1:{found}/{master}", mode, "docker compose", modules)


def _group(name: str, mode: Mode, make: type[RedisCluster | RedisSentinel], port: int, master: str = "") -> Technology:
    return Technology(
        name=name,
        nature="real",
        install=redis.install_server,
        version=redis.version_of,
        make=make,
        attach=functools.partial(redis.attach, mode=mode),
        in_compose=functools.partial(_in_compose, name, port, mode, master),
    )


def _node(name: str, options: RedisOptions, *, in_compose: bool) -> Technology:
    def make(folder: Path) -> RedisServer:
        return RedisServer(folder, options)

    return Technology(
        name=name,
        nature="real",
        install=redis.install_modules if options.modules else redis.install_server,
        version=functools.partial(redis.version_of, options.modules),
        make=make,
        attach=functools.partial(redis.attach, mode="node", modules=options.modules),
        in_compose=functools.partial(_in_compose, "redis", 6379, "node", modules=options.modules)
        if in_compose
        else None,
    )


TECHNOLOGIES = (
    _node("redis", RedisOptions(), in_compose=True),
    _node("redis-tls", _TLS, in_compose=False),
    _node("redis-stack", _STACK, in_compose=True),
    _group("redis-cluster", "cluster", RedisCluster, 7000),
    _group("redis-sentinel", "sentinel", RedisSentinel, 26379, "lapel"),
)
