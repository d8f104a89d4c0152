"""From the arguments of a subscribe call to a dispatcher and its supervisor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from ..component import ComponentOptions, unsupported
from ..delivery import (
    Backoff,
    BatchDispatcher,
    Consumer,
    Dispatcher,
    DispatchPolicy,
    Held,
    Ordering,
    Revoked,
    Supervisor,
)
from ..descriptor import Capability
from ..errors import InvalidArgumentError
from ..telemetry import Telemetry
from .driver import PubSubDriver
from .handling import Handling, dead_letter_request
from .message import Message
from .requests import RequestBuilder, check_metadata, check_text, seconds_of
from .scopes import TopicScopes
from .types import PublishRequest, SubscribeRequest

__all__ = ["Arming", "Terms"]

_ORDER = {Ordering.KEY: Capability.ORDER_BY_KEY, Ordering.ALL: Capability.ORDER_ALL}


class Terms(msgspec.Struct, frozen=True):
    """What a subscription was asked to be, checked."""

    topic: str
    group: str
    raw: bool
    policy: DispatchPolicy
    dead_letter_topic: str | None
    metadata: Mapping[str, str]


class Arming:
    """Makes the parts of a subscription, for one component. `publish` is how its dead letters are sent."""

    def __init__(
        self,
        driver: PubSubDriver[Any],
        options: ComponentOptions,
        *,
        telemetry: Telemetry,
        requests: RequestBuilder,
        scopes: TopicScopes | None,
        publish: Callable[[PublishRequest], Awaitable[None]],
    ) -> None:
        self._driver = driver
        self._options = options
        self._telemetry = telemetry
        self._requests = requests
        self._scopes = scopes
        self._publish = publish
        self._guard = None if options.resiliency is None else options.resiliency.inbound_guard(driver.context.component)
        self._retry = None if self._guard is None else self._guard.policies.retry

    def terms(
        self,
        topic: str,
        *,
        group: str | None,
        ordering: Ordering | str,
        concurrency: int,
        max_attempts: int | None,
        backoff: Backoff | None,
        dead_letter_topic: str | None,
        drain_timeout: timedelta | float,
        raw: bool | None,
        metadata: Mapping[str, str],
    ) -> Terms:
        """Check the arguments. Raises `InvalidArgumentError`, `UnsupportedError` or `PermissionDeniedError`."""
        driver, name = self._driver, self._driver.context.component
        check_text(topic, "topic")
        if dead_letter_topic is not None:
            check_text(dead_letter_topic, "dead_letter_topic")
            if dead_letter_topic == topic:
                raise InvalidArgumentError("dead_letter_topic must be another topic, or None")
        if group:
            check_text(group, "group")
        check_metadata(metadata)
        try:
            order = Ordering(ordering)
        except ValueError:
            raise InvalidArgumentError(f"ordering must be none, key or all, got {ordering!r}") from None
        missing = _ORDER.get(order, Capability(0)) & ~driver.capabilities
        if missing:
            raise unsupported(driver, missing, "subscribe")
        if self._scopes is not None:
            self._scopes.check_subscribe(topic)
            if dead_letter_topic is not None:
                self._scopes.check_publish(dead_letter_topic)
        broker_dead_letter = Capability.DEAD_LETTER in driver.capabilities
        if self._retry is not None:
            backoff = backoff or self._retry.backoff()
            # Without a place for what is given up the policy must not lose it: it comes again, as from a broker.
            if max_attempts is None and (dead_letter_topic is not None or broker_dead_letter):
                max_attempts = self._retry.attempts
        elif max_attempts is None:
            max_attempts = driver.max_attempts
        policy = DispatchPolicy(
            ordering=order,
            concurrency=concurrency,
            max_attempts=max_attempts,
            backoff=backoff or driver.backoff or Backoff(),
            drain_timeout=seconds_of(drain_timeout, "drain_timeout", zero=True),
            broker_dead_letter=broker_dead_letter,
        )
        own = group or driver.settings.consumer_id or self._options.app_id or name
        return Terms(topic, own, self._requests.is_raw(raw, metadata), policy, dead_letter_topic, metadata)

    def dispatcher(self, terms: Terms, handler: Callable[[Message], Awaitable[Any]]) -> Dispatcher:
        """Return a dispatcher that calls `handler` for each message."""
        _check_callable(handler)
        return Dispatcher(
            self._handling(terms).of_messages(handler if self._guard is None else self._guard.once(handler)),
            terms.policy,
            name=self._name(terms),
            logger=self._driver.context.logger,
            owner=self._driver,
            dead_letter=self._dead_letters(terms),
        )

    def batches(
        self, terms: Terms, handler: Callable[[list[Message]], Awaitable[Any]], most: int, wait: timedelta | float
    ) -> BatchDispatcher:
        """Return a dispatcher that calls `handler` with up to `most` messages."""
        _check_callable(handler)
        at_once = Capability.BULK_SUBSCRIBE_IMMEDIATE in self._driver.capabilities
        return BatchDispatcher(
            self._handling(terms).of_batches(handler if self._guard is None else self._guard.once(handler)),
            terms.policy,
            max_messages=most,
            max_wait=0.0 if at_once else seconds_of(wait, "max_wait", zero=True),
            name=self._name(terms),
            logger=self._driver.context.logger,
            owner=self._driver,
            dead_letter=self._dead_letters(terms),
        )

    def supervisor(self, terms: Terms, dispatcher: Dispatcher) -> Supervisor:
        """Return what keeps the subscription armed; not started."""
        prefix = self._options.topic_prefix

        async def subscribe(revoked: Revoked) -> Consumer:
            return await self._driver.subscribe(
                SubscribeRequest(
                    prefix + terms.topic,
                    terms.group,
                    terms.policy.ordering,
                    dispatcher.capacity,
                    revoked,
                    terms.metadata,
                )
            )

        attributes = {
            "messaging.destination.name": prefix + terms.topic,
            "messaging.consumer.group.name": terms.group,
        }

        def tick() -> None:
            self._telemetry.refresh()
            self._telemetry.measure(supervisor.measurements(), attributes)

        supervisor = Supervisor(
            subscribe,
            dispatcher,
            arm_timeout=self._options.init_timeout.total_seconds(),
            on_tick=tick,
        )
        return supervisor

    def _handling(self, terms: Terms) -> Handling:
        return Handling(
            self._telemetry,
            component=self._driver.context.component,
            group=terms.group,
            raw=terms.raw,
            topic_prefix=self._options.topic_prefix,
        )

    def _name(self, terms: Terms) -> str:
        return f"subscription {terms.topic!r} of {self._driver.context.component!r}"

    def _dead_letters(self, terms: Terms) -> Callable[[Held, str], Awaitable[None]] | None:
        topic, prefix = terms.dead_letter_topic, self._options.topic_prefix
        if topic is None:
            return None
        return lambda held, reason: self._publish(dead_letter_request(held, topic, reason, prefix))


def _check_callable(handler: Any) -> None:
    if not callable(handler):
        raise InvalidArgumentError(f"the handler must be a coroutine function, not {type(handler).__name__}")
