"""The pub/sub component that an application holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ..component import Component, ComponentOptions, Health, HealthState
from ..concealment import raise_for
from ..delivery import Backoff, Dispatcher, Ordering, Outcome, Supervisor, inside_handler
from ..descriptor import Capability
from ..errors import ClosedError, LapelError
from ..policy import Effect, Operation
from .arming import Arming, Terms
from .bulk import Bulk
from .driver import PubSubDriver
from .message import Message
from .requests import RequestBuilder
from .scopes import TopicScopes
from .subscription import Subscription
from .tracing import current_trace
from .types import NO_METADATA, BulkPublishRequest, PublishEntry, PublishOutcome, PublishRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BulkHandler", "Handler", "PubSub"]

Handler = Callable[[Message], Awaitable[Outcome | None]]
"""What `subscribe` calls. Returning None is success, raising is `Outcome.RETRY`."""

BulkHandler = Callable[[list[Message]], Awaitable[Sequence[Outcome | None] | None]]
"""What `bulk_subscribe` calls: None for success of all, or one outcome for each message, in order."""

# The span is made here, for it carries the topic and its context travels with the message.
PUBLISH = Operation("publish", Effect.UNSAFE, traced=False)
BULK_PUBLISH = Operation("bulk_publish", Effect.UNSAFE, traced=False)

_DRAIN = timedelta(seconds=30)
_NO_TRACE = ("", "")
_GRAVITY = (HealthState.RECONNECTING, HealthState.DEGRADED, HealthState.INIT)


class PubSub(Component[PubSubDriver[Any]]):
    """A broker: publish to topics, subscribe to them. All calls may overlap.

    Messages travel as CloudEvents, as Dapr writes them, unless asked otherwise (`raw=True`, metadata `rawPayload`,
    or the option `envelope`). With an app id the topic scopes of the component are enforced.
    """

    def __init__(self, driver: PubSubDriver[Any], *, options: ComponentOptions | None = None) -> None:
        super().__init__(driver, options=options)
        self._arming: Arming | None = None
        self._subscriptions: set[Subscription] = set()
        self._ending: asyncio.Task[None] | None = None

    @override
    def _use(self, driver: PubSubDriver[Any]) -> None:
        super()._use(driver)
        rules = TopicScopes(driver.settings, self.options.app_id, self.name) if self.options.app_id else None
        self._scopes = rules if rules is not None and rules.restrictive else None
        self._requests = RequestBuilder(driver, self.options, self._scopes)

    @override
    async def _opened(self) -> None:
        self._requests.refresh()
        self._arming = Arming(
            self._driver,
            self.options,
            telemetry=self._telemetry,
            requests=self._requests,
            scopes=self._scopes,
            publish=lambda request: self._call(PUBLISH, self._driver.publish, request),
        )

    async def publish(
        self,
        topic: str,
        data: Any,
        *,
        content_type: str | None = None,
        key: str | None = None,
        ttl: timedelta | float | None = None,
        delay: timedelta | float | None = None,
        raw: bool | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> None:
        """Publish one message and return when the broker has confirmed that it stored it.

        Bytes are sent as they are, every other value as JSON, inside a CloudEvent unless `raw` is true. Data of
        content type `application/cloudevents+json`, or a `CloudEvent`, is an event already and is not wrapped again.
        `raw` None leaves it to metadata `rawPayload` and then to the component. `key` orders messages. `ttl` is how
        long the message may be delivered: by the broker where it can, else by the event's expiration; metadata `ttl`
        and `ttlInSeconds` mean the same, the argument wins. `delay` needs `Capability.DELAYED_DELIVERY`. Both are
        timedeltas or seconds. `metadata` reaches subscribers with `Capability.ATTRIBUTES`.

        Raises `InvalidArgumentError`, `UnsupportedError`, `PermissionDeniedError` (topic scopes), `UnavailableError`
        (not stored) and `OutcomeUnknownError` (nobody knows whether it was stored; it is not sent again).
        """
        if self._telemetry.active:
            with self._producing("publish", topic) as trace:
                request = self._request(topic, data, content_type, key, ttl, delay, raw, metadata, trace)
                await self._call(PUBLISH, self._driver.publish, request)
            return
        try:
            request = self._requests.publish(topic, data, content_type, key, ttl, delay, raw, metadata)
        except LapelError as exc:
            exc.locate(component=self.name, driver=self.type, operation="publish")
            raise
        await self._call(PUBLISH, self._driver.publish, request)

    async def bulk_publish(
        self,
        topic: str,
        entries: Sequence[PublishEntry | Any],
        *,
        raw: bool | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> list[PublishOutcome]:
        """Publish several messages to one topic; one outcome for each, in order. Good ones are published.

        An entry is a `PublishEntry` or just its data. Its metadata wins over that of the call. Where the driver has no
        native bulk (`Capability.BULK_PUBSUB`) up to 100 messages are under way at once, those of one key in order.
        An empty list does nothing. Raises `InvalidArgumentError` for entry ids that are not unique.
        """
        with self._locating("bulk_publish"):
            bulk = Bulk(topic, entries, metadata)
        if not bulk.entries:
            return []
        with self._producing("bulk_publish", topic, len(bulk.entries)) as trace:
            bulk.build(
                lambda entry, merged: self._request(
                    topic, entry.data, entry.content_type, entry.key, None, None, raw, merged, trace
                )
            )
            if Capability.BULK_PUBSUB in self.capabilities:
                await bulk.send_natively(partial(self._publish_entries, metadata), self.limits.bulk_items)
            else:
                await bulk.send_singly(lambda request: self._call(PUBLISH, self._driver.publish, request))
        return bulk.outcomes(lambda error: self._locate(error, "bulk_publish"))

    async def subscribe(
        self,
        topic: str,
        handler: Handler,
        *,
        ordering: Ordering | str = Ordering.NONE,
        concurrency: int = 10,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        dead_letter_topic: str | None = None,
        drain_timeout: timedelta | float = _DRAIN,
        raw: bool | None = None,
        group: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Subscription:
        """Call `handler` for every message, up to `concurrency` at once; return when armed.

        What is published after that is delivered, at least once. A handler that raises, or returns `Outcome.RETRY`,
        gets the message again after `backoff` (None: the component's own fields, else 0.5 s, doubling up to 60 s),
        until `max_attempts` (None: the component's own field, else without end; health reports what keeps failing). An
        inbound policy of a resiliency document takes the place of both defaults, and gives up only where there is a
        dead-letter place. After that, or with `Outcome.DROP`, or when it comes after its event's expiration, a message
        goes to `dead_letter_topic`, with the same bytes and attributes, and is settled; without such a topic it is
        settled and logged. A broker that knows lifetimes (`Capability.MESSAGE_TTL`) drops what has expired itself.

        `ordering="key"` handles messages of one key one after another, `"all"` all of them; that needs
        `Capability.ORDER_BY_KEY` or `ORDER_ALL`, and a retry holds its key or the queue. `group` is the consumer
        group, by default `consumerID`, else the app id, else the component's name: members share the messages, each
        group gets all. `raw` true hands out the broker's bytes instead of CloudEvents; None as in `publish`. Handlers
        run in copies of the caller's context. After an outage the subscription is restored; `drain_timeout` is what
        `aclose` gives to running handlers.

        Raises `InvalidArgumentError`, `UnsupportedError`, `PermissionDeniedError` (topic scopes) and
        `UnavailableError` when it is not armed within `options.init_timeout`; nothing is left behind then.
        """
        with self._locating("subscribe") as arming:
            terms = arming.terms(
                topic,
                group=group,
                ordering=ordering,
                concurrency=concurrency,
                max_attempts=max_attempts,
                backoff=backoff,
                dead_letter_topic=dead_letter_topic,
                drain_timeout=drain_timeout,
                raw=raw,
                metadata=metadata,
            )
            dispatcher = arming.dispatcher(terms, handler)
            supervisor = arming.supervisor(terms, dispatcher)
        return await self._arm(terms, dispatcher, supervisor, "subscribe")

    async def bulk_subscribe(
        self,
        topic: str,
        handler: BulkHandler,
        *,
        max_messages: int = 100,
        max_wait: timedelta | float = 1.0,
        ordering: Ordering | str = Ordering.NONE,
        concurrency: int = 1,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        dead_letter_topic: str | None = None,
        drain_timeout: timedelta | float = _DRAIN,
        raw: bool | None = None,
        group: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Subscription:
        """Call `handler` with up to `max_messages` at once, the first of them at most `max_wait` old.

        `handler` returns None for success of all, or one outcome for each message, in order; anything else, and
        whatever it raises, fails the whole batch. Only failed messages come again. `concurrency` counts batches. With
        an order kept, a batch holds at most one message of each key. Everything else as in `subscribe`.
        """
        with self._locating("bulk_subscribe") as arming:
            terms = arming.terms(
                topic,
                group=group,
                ordering=ordering,
                concurrency=concurrency,
                max_attempts=max_attempts,
                backoff=backoff,
                dead_letter_topic=dead_letter_topic,
                drain_timeout=drain_timeout,
                raw=raw,
                metadata=metadata,
            )
            dispatcher = arming.batches(terms, handler, max_messages, max_wait)
            supervisor = arming.supervisor(terms, dispatcher)
        return await self._arm(terms, dispatcher, supervisor, "bulk_subscribe")

    @property
    def subscriptions(self) -> frozenset[Subscription]:
        """The subscriptions that have not been closed."""
        return frozenset(self._subscriptions)

    @override
    async def aclose(self) -> None:
        """End all subscriptions, each within its drain time-out, then close as every component does.

        Publishing stays possible until the last handler has ended. Called by one of its own handlers it does not wait
        for that handler.
        """
        if self._state != "open" or self._home is not asyncio.get_running_loop():
            await super().aclose()
            return
        if self._ending is None:
            # At once: a handler that ends before the task below runs must not make room for another one.
            for subscription in self._subscriptions:
                subscription._supervisor.close_soon()
            self._ending = asyncio.create_task(self._end(), name=f"lapel close {self.name}", context=Context())
        if inside_handler(self._driver):
            await asyncio.gather(*(subscription.aclose() for subscription in self._subscriptions))
        else:
            await asyncio.shield(self._ending)

    async def _end(self) -> None:
        ends = [subscription.aclose() for subscription in self._subscriptions]
        for result in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(result, BaseException):
                self._driver.context.logger.error("a subscription of %s did not end well", self.name, exc_info=result)
        await super().aclose()

    @override
    def _open_health(self) -> Health:
        found = {f"{item.topic} ({item.group})": item.health() for item in self._subscriptions}
        details = {name: health.details for name, health in found.items()}
        for state in _GRAVITY:
            for name, health in found.items():
                if health.state is state:
                    return Health(state=state, reason=f"subscription {name}: {health.reason}", details=details)
        return Health(state=HealthState.READY, details=details)

    # inside

    async def _publish_entries(
        self, metadata: Mapping[str, str], requests: Sequence[PublishRequest]
    ) -> Sequence[LapelError | None]:
        async def send(requests: Sequence[PublishRequest]) -> Sequence[LapelError | None]:
            whole = BulkPublishRequest(requests[0].topic, tuple(requests), metadata)
            return await self._driver.bulk_publish(whole)

        return await self._call_entries(BULK_PUBLISH, send, requests)

    def _locate(self, error: LapelError, operation: str) -> None:
        self._located(error, operation)

    def _request(
        self,
        topic: str,
        data: Any,
        content_type: str | None,
        key: str | None,
        ttl: timedelta | float | None,
        delay: timedelta | float | None,
        raw: bool | None,
        metadata: Mapping[str, str],
        trace: tuple[str, str],
    ) -> PublishRequest:
        try:
            return self._requests.publish(topic, data, content_type, key, ttl, delay, raw, metadata, *trace)
        except LapelError as exc:
            self._locate(exc, "publish")
            raise

    @contextmanager
    def _producing(self, operation: str, topic: str, count: int | None = None) -> Iterator[tuple[str, str]]:
        """Run the body in a span and give it the trace that goes into messages."""
        if not self._telemetry.active:
            yield _NO_TRACE
            return
        from opentelemetry.trace import SpanKind

        attributes: dict[str, Any] = {"messaging.destination.name": topic, "messaging.operation.type": "send"}
        if count is not None:
            attributes["messaging.batch.message_count"] = count
        with self._telemetry.operation(operation, target=topic, kind=SpanKind.PRODUCER, attributes=attributes):
            yield current_trace()

    async def _arm(self, terms: Terms, dispatcher: Dispatcher, supervisor: Supervisor, operation: str) -> Subscription:
        if self._ending is not None:
            raise self._closed(operation)
        subscription = Subscription(
            terms.topic, terms.group, dispatcher, supervisor, lambda: self._need(Capability.PAUSE, "pause")
        )
        try:
            await supervisor.start()
        except Exception as exc:
            raise_for(exc, self._located(exc, operation), self._driver.settings)
        self._subscriptions.add(subscription)
        supervisor.on_closed(lambda: self._subscriptions.discard(subscription))
        if self._loop is None or self._ending is not None:
            await subscription.aclose()
            raise self._closed(operation)
        return subscription

    @contextmanager
    def _locating(self, operation: str) -> Iterator[Arming]:
        """Run the checks of a call on an open component; complete their errors."""
        if self._loop is not asyncio.get_running_loop() or self._arming is None:
            raise self._unusable(operation)
        try:
            yield self._arming
        except LapelError as exc:
            self._locate(exc, operation)
            raise

    def _closed(self, operation: str) -> ClosedError:
        return ClosedError(
            "is being closed; open a new one", component=self.name, driver=self.type, operation=operation
        )
