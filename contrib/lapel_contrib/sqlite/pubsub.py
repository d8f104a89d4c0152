"""pubsub.sqlite."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar, cast

import msgspec

from lapel.delivery import Consumer
from lapel.descriptor import Capability, Limits
from lapel.driver import DriverContext
from lapel.errors import ClosedError, ConfigurationError, InvalidArgumentError, LapelError, UnavailableError
from lapel.pubsub.driver import PubSubDriver
from lapel.pubsub.types import BulkPublishRequest, PublishRequest, SubscribeRequest

from . import PUBSUB
from . import pubsub_schema as schema
from .connection import network_filesystem
from .engine import SqliteEngine
from .pubsub_consumer import SqliteConsumer
from .pubsub_queue import Queue
from .settings import SqlitePubSubSettings
from .sharing import EngineLease

__all__ = ["SqlitePubSub"]

SWEEP_SECONDS = 60.0
"""How often expired messages are deleted, and how often the groups in use are noted."""
SWEEP_ROWS = 200
"""Most messages deleted in one transaction."""

_LONGEST = 1e10

T = TypeVar("T")


class SqlitePubSub(PubSubDriver[SqlitePubSubSettings]):
    """Keeps messages in tables of a SQLite file, for all processes of this machine that open it.

    `publish` returns when the message is on the disk; concurrent publishes share a transaction. A group exists from
    its first subscription on and gets what is published after that; a message that no group waits for is not stored.
    A message is deleted when every group has settled it, when its time to live has passed, or `retention` after
    it could first be delivered; one that a handler has in hands is kept until that is over.

    Messages are leased for `leaseDuration`, and leases extended while handlers run. A consumer that ends without
    closing keeps its messages, and with an order kept those behind them, until its leases end. Attempts are counted
    in the table, across processes. With an order, several messages of one key are leased at once, always to one
    consumer. Time is the wall clock: setting it forward ends leases, delays and lifetimes early.

    A consumer of another process sees a message some 40 ms after its publication. Network file systems are refused
    because their file locks cannot be relied upon. `unwrap(SqliteEngine)` gives the engine.
    """

    descriptor = PUBSUB

    def __init__(self, settings: SqlitePubSubSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = EngineLease(settings.options(), context.shared)
        self._engine: SqliteEngine | None = None
        self._consumers: set[SqliteConsumer] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._retention = _milliseconds(settings.retention.total_seconds()) or None
        self._idle = _milliseconds(settings.group_expiry.total_seconds()) or None

    @property
    def call_timeout(self) -> float | None:
        return self.settings.timeout.total_seconds()

    @property
    def limits(self) -> Limits:
        return replace(self.descriptor.limits, value_bytes=int(self.settings.max_message_bytes))

    async def open(self) -> None:
        target = await asyncio.to_thread(self.settings.options().target)
        if target.read_only:
            raise ConfigurationError("connectionString opens the database read-only; consumers and publishers write")
        network = None if target.path is None else await asyncio.to_thread(network_filesystem, target.path)
        if network is not None:
            raise ConfigurationError(
                f"connectionString: {target.path!r} is on a network file system ({network}), whose locks do not "
                "exclude reliably; use a local disk, or a broker for several machines"
            )
        if target.memory:
            self.withdraw(Capability.DURABLE, "the database is in memory and ends with the component")
        engine = await self._lease.acquire()
        await engine.write(schema.create)
        self._engine = engine
        self._sweeper = asyncio.create_task(self._sweep_forever(), name=f"lapel sweep {self.context.component}")

    async def close(self) -> None:
        self._engine = None
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait({self._sweeper})
            self._sweeper = None
        await asyncio.gather(*(consumer.close() for consumer in list(self._consumers)))
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().read(
            lambda connection: connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        )

    def unwrap(self, kind: type[T]) -> T:
        return cast("T", self._engine) if kind is SqliteEngine and self._engine is not None else super().unwrap(kind)

    async def publish(self, request: PublishRequest) -> None:
        entry = self._entry(request)
        _check_text("topic", request.topic)
        publish = partial(schema.publish, topic=request.topic, entries=(entry,))
        await self._opened().write(publish, size=len(request.data))

    async def bulk_publish(self, request: BulkPublishRequest) -> Sequence[LapelError | None]:
        _check_text("topic", request.topic)
        entries: list[schema.Entry] = []
        errors: list[LapelError | None] = []
        for item in request.entries:
            try:
                entries.append(self._entry(item))
                errors.append(None)
            except InvalidArgumentError as exc:
                errors.append(exc)
        if entries:
            publish = partial(schema.publish, topic=request.topic, entries=entries)
            await self._opened().write(publish, size=sum(len(entry.data) for entry in entries))
        return errors

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        _check_text("topic", request.topic)
        _check_text("consumerID", request.group)
        engine = self._opened()
        group = await engine.write(partial(schema.register, topic=request.topic, name=request.group))
        queue = Queue(
            group=group,
            topic=request.topic,
            ordering=request.ordering,
            holder=secrets.randbits(62),
            lease=_milliseconds(self.settings.lease_duration.total_seconds()),
        )
        consumer = SqliteConsumer(engine, queue, logger=self.context.logger, closed=self._consumers.discard)
        self._consumers.add(consumer)
        return consumer

    async def sweep(self) -> None:
        """Delete expired messages and forgotten groups, and note which groups are in use. Safe at any time."""
        engine, idle = self._opened(), self._idle
        consumers = list(self._consumers)
        if consumers:
            missing = set(await engine.write(partial(schema.touch, groups=[item.group for item in consumers])))
            for consumer in consumers:
                if consumer.group in missing:
                    consumer.fail(UnavailableError("the consumer group was unused for groupExpiry and is gone"))
        while await engine.read(partial(schema.has_garbage, idle=idle)):
            await engine.write(partial(schema.remove_expired, limit=SWEEP_ROWS))
            if idle is not None:
                await engine.write(partial(schema.forget_groups, idle=idle, limit=SWEEP_ROWS))

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except LapelError as exc:
                self.context.logger.warning("expired messages were not deleted; trying again later: %s", exc)
            await asyncio.sleep(SWEEP_SECONDS)

    def _entry(self, request: PublishRequest) -> schema.Entry:
        limit = int(self.settings.max_message_bytes)
        if len(request.data) > limit:
            raise InvalidArgumentError(
                f"the message has {len(request.data)} bytes; maxMessageBytes allows {limit}. Raise that field, or "
                "store the data elsewhere and publish a reference"
            )
        for what, text in (("key", request.key), ("content type", request.content_type)):
            if text is not None:
                _check_text(what, text)
        metadata = None
        if request.metadata:
            try:
                metadata = msgspec.json.encode(dict(request.metadata)).decode()
            except UnicodeEncodeError as exc:
                raise InvalidArgumentError("the metadata is not valid Unicode") from exc
        return schema.Entry(
            data=request.data,
            key=request.key,
            content_type=request.content_type,
            metadata=metadata,
            ttl=None if request.ttl is None else _milliseconds(request.ttl),
            delay=None if request.delay is None else _milliseconds(request.delay),
            retention=self._retention,
        )

    def _opened(self) -> SqliteEngine:
        if self._engine is None:
            raise ClosedError("the driver is not open")
        return self._engine


def _milliseconds(seconds: float) -> int:
    # SQLite's integers have 64 bits.
    return math.ceil(min(seconds, _LONGEST) * 1000)


def _check_text(what: str, text: str) -> None:
    # Python's sqlite3 would raise in the middle of a transaction.
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArgumentError(f"the {what} is not valid Unicode") from exc
