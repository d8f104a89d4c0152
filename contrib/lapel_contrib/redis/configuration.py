"""configuration.redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lapel.configuration import (
    ConfigurationDriver,
    ConfigurationItem,
    GetConfigurationRequest,
    Watcher,
    WatchRequest,
)
from lapel.driver import DriverContext
from lapel.errors import OperationFailedError
from lapel.policy import RetryPolicy

from . import CONFIGURATION
from .client import ClientLease, RedisClient
from .component_settings import RedisConfigurationSettings
from .errors import ReplyError
from .options import Address
from .state_keys import readable, scan
from .watching import RedisWatcher

__all__ = ["RedisConfiguration"]

BARS = "||"
BATCH = 500
"""Keys read in one go."""

T = TypeVar("T")


class RedisConfiguration(ConfigurationDriver[RedisConfigurationSettings]):
    """Reads items from texts, each at its key as it is, laid out as Dapr's: `value` or `value||version`.

    The last two bars separate the version, so a value may hold bars, then written with a version, be it an empty one:
    `a||b||` is the value `a||b`. There are no metadata. Keys of other types are left out. A text that is not UTF-8 is
    an `OperationFailedError`. No keys means every text of the database, whoever wrote it, but those that are not UTF-8;
    each reading is then a scan of all its keys.

    Changes are noticed by keyspace notifications, which `watch` turns on beside what the server notifies of already,
    on each primary; each subscription has a connection to each. Where the user may not do that, items are read every
    `POLL_SECONDS`, and a warning is logged. What no notification tells (`FLUSHALL`, notifications turned off meanwhile)
    is found within `REVIEW_SECONDS` (both in `watching`). `unwrap(redis.asyncio.Redis)` gives a client of its own, on a
    single node.
    """

    descriptor = CONFIGURATION

    def __init__(self, settings: RedisConfigurationSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared)
        self._client: RedisClient | None = None
        self._warned = False

    @property
    def call_timeout(self) -> float | None:
        return self.settings.call_timeout

    @property
    def retry_policy(self) -> RetryPolicy | None:
        return self.settings.retry_policy

    async def open(self) -> None:
        self._client = await self._lease.acquire()

    async def close(self) -> None:
        self._client = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().call("PING", writes=False)

    def unwrap(self, kind: type[T]) -> T:
        found = None if self._client is None else self._client.unwrap(kind)
        return super().unwrap(kind) if found is None else found

    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        client = self._opened()
        keys = request.keys or readable(await scan(client, "*", ("string",)))
        groups: dict[Address | None, list[str]] = {}
        for key in keys:
            groups.setdefault(client.node_of(key), []).append(key)
        items: dict[str, ConfigurationItem] = {}
        for node, group in groups.items():
            for start in range(0, len(group), BATCH):
                part = group[start : start + BATCH]
                for key, reply in zip(part, await _texts(client, node, part), strict=True):
                    if reply is not None:
                        item = _item(reply)
                        if item is not None:
                            items[key] = item
                        elif request.keys:
                            raise OperationFailedError(f"the text at key {key!r} is not UTF-8; write it as UTF-8")
        return items

    async def watch(self, request: WatchRequest) -> Watcher:
        watcher = RedisWatcher(self._opened(), request.keys)
        try:
            await watcher.arm()
        except BaseException:
            await watcher.close()
            raise
        if watcher.polls and not self._warned:
            self._warned = True
            self.context.logger.warning("%s; changes are looked for every few seconds", watcher.polls)
        return watcher

    def _opened(self) -> RedisClient:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client


async def _texts(client: RedisClient, node: Address | None, keys: Iterable[str]) -> list[bytes | None]:
    """Read keys of one node; None for those that are missing or no texts. What moved meanwhile is read where it is."""
    asked = list(keys)
    replies = await client.apart(*(("GET", key) for key in asked), node=node, writes=False)
    found: list[bytes | None] = []
    for key, answer in zip(asked, replies, strict=True):
        reply: Any = answer
        if isinstance(reply, ReplyError) and client.cluster and reply.code in ("MOVED", "ASK"):
            (reply,) = await client.apart(("GET", key), key=key, writes=False)
        if isinstance(reply, ReplyError):
            if reply.code != "WRONGTYPE":
                raise client.translate(reply) from None
            reply = None
        found.append(reply)
    return found


def _item(text: bytes) -> ConfigurationItem | None:
    try:
        value, bars, version = text.decode().rpartition(BARS)
    except UnicodeDecodeError:
        return None
    # Metadata of its own, for an item belongs to whoever read it.
    return ConfigurationItem(value, version, {}) if bars else ConfigurationItem(version, "", {})
