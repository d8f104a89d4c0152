"""Wrong variants of the Redis drivers, for what only a fault shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lapel.bindings import BindingResponse, InvokeRequest
from lapel.configuration import ConfigurationItem, GetConfigurationRequest, Watcher, WatchRequest
from lapel.delivery import Consumer
from lapel.errors import OperationFailedError, OutcomeUnknownError, UnavailableError
from lapel.lock import LockGrant, TryLockRequest, UnlockRequest, UnlockStatus
from lapel.pubsub.types import PublishRequest, SubscribeRequest
from lapel_contrib.redis.binding import RedisBinding
from lapel_contrib.redis.channel import Channel
from lapel_contrib.redis.configuration import RedisConfiguration
from lapel_contrib.redis.lock import RedisLock
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_consumer import RedisConsumer
from lapel_contrib.redis.pubsub_reader import StreamReader
from lapel_contrib.redis.watching import RedisWatcher


class PublishesAgain(RedisPubSub):
    async def publish(self, request: PublishRequest) -> None:
        try:
            await super().publish(request)
        except OutcomeUnknownError:
            await super().publish(request)


class _OtherReader(RedisPubSub):
    reader: type[StreamReader]

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        consumer = await super().subscribe(request)
        assert isinstance(consumer, RedisConsumer)
        terms = consumer.terms
        consumer._reader = self.reader(self._opened(), terms.topic, terms.group, terms.name)
        return consumer


class _NoRecord(Channel):
    async def call(self, *command: Any, timeout: float, writes: bool = False) -> Any:
        if command[0] == "XREADGROUP":
            command = (*command[:-3], "NOACK", *command[-3:])
        return await super().call(*command, timeout=timeout, writes=writes)


class _ReadsWithoutRecord(StreamReader):
    async def _connect(self) -> Channel:
        channel = await super()._connect()
        channel.__class__ = _NoRecord
        return channel


class ReadsWithoutRecord(_OtherReader):
    """What it reads is acknowledged by being sent, and lost with the connection."""

    reader = _ReadsWithoutRecord


class _StartsAtTheEnd(StreamReader):
    connections = 0

    async def _connect(self) -> Channel:
        self.connections += 1
        if self.connections > 1:
            await self._client.call("XGROUP", "SETID", self._topic, self._group, "$", key=self._topic)
        return await super()._connect()


class StartsAtTheEndAgain(_OtherReader):
    """After an outage it goes on with what is new, and leaves out what came meanwhile."""

    reader = _StartsAtTheEnd


class TakesTheLockAgain(RedisLock):
    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        try:
            return await super().try_lock(request)
        except OutcomeUnknownError:
            return await super().try_lock(request)


class _OfThisRun(RedisLock):
    async def _of_this_run(self, resource: str) -> str:
        info = await self._opened().call("INFO", "server", writes=False)
        return f"{resource}-{info.partition(b'run_id:')[2][:40].decode()}"


class ForgetsLocksWithItsServer(_OfThisRun):
    """Every start of the server begins with free locks."""

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        resource = await self._of_this_run(request.resource)
        return await super().try_lock(msgspec.structs.replace(request, resource=resource))

    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        resource = await self._of_this_run(request.resource)
        return await super().unlock(msgspec.structs.replace(request, resource=resource))


class CreatesAgain(RedisBinding):
    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        try:
            return await super().invoke(request)
        except OutcomeUnknownError:
            return await super().invoke(request)


class GivesUpReading(RedisConfiguration):
    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        try:
            return await super().get(request)
        except UnavailableError as exc:
            raise OperationFailedError("cannot be read") from exc


class _Deaf(RedisWatcher):
    async def changed(self) -> None:
        try:
            await super().changed()
        except UnavailableError:
            self._failure = None


class IsDeafAfterAnOutage(RedisConfiguration):
    async def watch(self, request: WatchRequest) -> Watcher:
        watcher = await super().watch(request)
        watcher.__class__ = _Deaf
        return watcher
