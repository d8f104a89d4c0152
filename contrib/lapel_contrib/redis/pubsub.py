"""pubsub.redis."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import time
from typing import TypeVar

from lapel.delivery import Consumer
from lapel.driver import DriverContext
from lapel.errors import ClosedError, InvalidArgumentError
from lapel.policy import RetryPolicy
from lapel.pubsub.driver import PubSubDriver
from lapel.pubsub.types import PublishRequest, SubscribeRequest

from . import PUBSUB
from .client import LARGE, ClientLease, RedisClient
from .errors import ReplyError
from .pubsub_consumer import RedisConsumer
from .pubsub_entries import encode
from .pubsub_member import Terms
from .pubsub_places import Places
from .pubsub_scripts import ARM, FAR_MILLISECONDS, HAND_BACK, HANDED_BACK, PREFIX
from .pubsub_settings import RedisPubSubSettings
from .scripts import Argument, Call

__all__ = ["RedisPubSub"]

SPARE_NAMES = 1000
"""Most groups of which consumers that could not hand back are remembered."""
FEWEST_RETRIES = 100
"""With so many messages waiting for a retry, or ten times its prefetch, a subscription takes no others."""

T = TypeVar("T")


class RedisPubSub(PubSubDriver[RedisPubSubSettings]):
    """Keeps messages in streams, one for each topic, laid out as Dapr's; consumer groups are those of Redis.

    `publish` returns when the primary has the message; whether it is on a disk or a replica is up to the server. A new
    group begins with the oldest message of the stream. Streams are not emptied by consumption: set `maxLenApprox` or
    `streamTTL`.

    Consumers live under names of their own, `lapel-...`, for as long as they are subscribed. What a message's consumer
    leaves behind when it dies is taken by others after `processingTimeout`; a living one extends that for every message
    it holds, and hands back what it did not start when it closes. Attempts are those that Redis counts, across
    processes. While 100 messages, or ten times what it takes in at once where that is more, wait for a retry, a
    subscription takes no others. There is no order among messages. `unwrap(redis.asyncio.Redis)` gives a client of its
    own, on a single node.
    """

    descriptor = PUBSUB

    def __init__(self, settings: RedisPubSubSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared)
        self._client: RedisClient | None = None
        self._consumers: set[RedisConsumer] = set()
        self._places = Places(settings.concurrency)
        self._spare: dict[tuple[str, str], list[str]] = {}
        self._numbers = itertools.count(1)
        self._own = f"{PREFIX}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._max_len: tuple[Argument, ...] = ("MAXLEN", "~", settings.max_len) if settings.max_len else ()
        self._keep_ms = 0 if settings.max_len else int(settings.stream_ttl.total_seconds() * 1000)

    @property
    def call_timeout(self) -> float | None:
        return self.settings.call_timeout

    @property
    def retry_policy(self) -> RetryPolicy | None:
        return self.settings.retry_policy

    async def open(self) -> None:
        self._client = await self._lease.acquire()
        if not self._max_len and not self._keep_ms:
            self.context.logger.warning(
                "component %r keeps every message for ever, so its streams grow without bound; set maxLenApprox or "
                "streamTTL",
                self.context.component,
            )

    async def close(self) -> None:
        self._client = None
        await asyncio.gather(*(consumer.close() for consumer in list(self._consumers)))
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().call("PING", writes=False)

    def unwrap(self, kind: type[T]) -> T:
        found = None if self._client is None else self._client.unwrap(kind)
        return super().unwrap(kind) if found is None else found

    async def publish(self, request: PublishRequest) -> None:
        client, topic = self._opened(), request.topic
        _check_text("topic", topic)
        trim = self._max_len
        if self._keep_ms:
            trim = ("MINID", "~", f"{max(0, int(time.time() * 1000) - self._keep_ms)}-1")
        fields, size = encode(request)
        call = Call(None, (topic,), ("XADD", topic, *trim, "*", *fields))
        if size < LARGE:
            await client.submit(call, size)
            return
        (reply,) = await client.apart(call, key=topic)
        if isinstance(reply, ReplyError):
            raise client.translate(reply) from None

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        topic, group = request.topic, request.group
        _check_text("topic", topic)
        _check_text("consumerID", group)
        client = self._opened()
        await client.run(ARM, [topic], [group], writes=False)
        names = self._spare.pop((topic, group), [])
        try:
            while names:
                # A consumer that could not hand back when it lost the server; what it held must not wait for its lease.
                args: list[Argument] = [group, names[-1], HANDED_BACK, FAR_MILLISECONDS, 1]
                await client.run(HAND_BACK, [topic], args, writes=False)
                names.pop()
        finally:
            if names:
                self._spare.setdefault((topic, group), []).extend(names)
        lease, scan = self.settings.processing_timeout.total_seconds(), self.settings.redeliver_interval.total_seconds()
        terms = Terms(
            topic=topic,
            group=group,
            name=f"{self._own}-{next(self._numbers)}",
            lease=lease or None,
            scan=scan or None,
            most_retries=max(FEWEST_RETRIES, 10 * request.prefetch),
        )
        consumer = RedisConsumer(
            self._opened(),
            terms,
            logger=self.context.logger,
            closed=self._closed,
            handed_back=self._handed_back,
            places=self._places,
        )
        self._consumers.add(consumer)
        return consumer

    def _closed(self, consumer: RedisConsumer, clean: bool) -> None:
        self._consumers.discard(consumer)
        terms = consumer.terms
        if not clean and len(self._spare) < SPARE_NAMES:
            self._spare.setdefault((terms.topic, terms.group), []).append(terms.name)

    def _handed_back(self, consumer: RedisConsumer) -> None:
        terms = consumer.terms
        for other in self._consumers:
            if other is not consumer and (other.terms.topic, other.terms.group) == (terms.topic, terms.group):
                other.look_now()

    def _opened(self) -> RedisClient:
        if self._client is None:
            raise ClosedError("the driver is not open")
        return self._client


def _check_text(what: str, text: str) -> None:
    # It would fail in the buffer that calls of other tasks are in.
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArgumentError(f"the {what} is not valid Unicode") from exc
