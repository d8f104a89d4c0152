"""The configuration store that an application holds."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from ..component import Component, ComponentOptions, Health, HealthState
from ..descriptor import Capability
from ..errors import NotFoundError
from ..policy import Effect, Operation
from .driver import ConfigurationDriver, Watcher
from .subscription import Subscription
from .types import NO_METADATA, ConfigurationEvent, ConfigurationItem, GetConfigurationRequest, WatchRequest

__all__ = ["ConfigurationStore", "Handler"]

GET = Operation("get", Effect.SAFE)
WATCH = Operation("watch", Effect.SAFE)

Handler = Callable[[ConfigurationEvent], Awaitable[None] | None]
"""Receives changes, one event at a time. May be a plain function that does not block."""


class ConfigurationStore(Component[ConfigurationDriver[Any]]):
    """Configuration items that operators write and applications read. All calls may overlap."""

    def __init__(self, driver: ConfigurationDriver[Any], *, options: ComponentOptions | None = None) -> None:
        super().__init__(driver, options=options)
        self._subscriptions: dict[str, Subscription] = {}

    async def get(
        self, keys: Iterable[str] = (), *, metadata: Mapping[str, str] = NO_METADATA
    ) -> dict[str, ConfigurationItem]:
        """Return the items that exist among `keys`, by key; without keys all items there are."""
        request = GetConfigurationRequest(self._keys(keys, "get"), metadata)
        return dict(await self._call(GET, self._driver.get, request))

    async def subscribe(
        self,
        keys: Iterable[str],
        handler: Handler,
        *,
        initial: bool = False,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> str:
        """Call `handler` with every change of `keys` from now on and return the subscription's id.

        No keys means all, also those created later. With `initial` the first event holds the present items.
        Each event has the items whose value, version or metadata differ from the last event; one that is
        gone is marked `deleted`. Values in between may merge, the latest is never missed, also across an outage. A
        handler that raises is logged and gets the next event all the same, after the inbound retries of a resiliency
        document if there are any. Needs `Capability.WATCH`.
        """
        self._need(Capability.WATCH, "subscribe")
        if not callable(handler):
            raise self._invalid(f"the handler must be a function, not {type(handler).__name__}", "subscribe")
        wanted = self._keys(keys, "subscribe")
        policies = self.options.resiliency
        guard = None if policies is None else policies.inbound_guard(self.name)
        handle = _asynchronous(handler)
        subscription = Subscription(
            id=str(uuid.uuid4()),
            handler=handle if guard is None else guard.repeated(handle),
            read=lambda: self._call(GET, self._driver.get, GetConfigurationRequest(wanted, metadata)),
            watch=lambda: self._call(WATCH, self._watch, WatchRequest(wanted, metadata)),
            logger=self._driver.context.logger,
        )
        await subscription.start(initial=initial)
        if self._state != "open":
            await subscription.stop()
            raise self._unusable("subscribe")
        self._subscriptions[subscription.id] = subscription
        return subscription.id

    async def unsubscribe(self, id: str) -> None:
        """End a subscription; returns when its handler has finished, from its own handler at once.

        Nothing is delivered after that. A handler that runs on is cancelled after `STOP_SECONDS`.

        Raises `NotFoundError` for an id that is unknown or was ended before. Closing ends all.
        """
        if self._loop is not asyncio.get_running_loop():
            raise self._unusable("unsubscribe")
        subscription = self._subscriptions.pop(id, None)
        if subscription is None:
            raise NotFoundError(
                f"there is no subscription {id!r}", component=self.name, driver=self.type, operation="unsubscribe"
            )
        await subscription.stop()

    def _open_health(self) -> Health:
        broken = [subscription for subscription in self._subscriptions.values() if subscription.failure]
        if not broken:
            return Health(state=HealthState.READY, details={"subscriptions": len(self._subscriptions)})
        return Health(
            state=HealthState.RECONNECTING,
            reason=f"{len(broken)} of {len(self._subscriptions)} subscriptions: {broken[0].failure}",
            details={"subscriptions": len(self._subscriptions)},
        )

    async def _watch(self, request: WatchRequest) -> Watcher:
        return await self._driver.watch(request)

    async def _drain(self) -> None:
        subscriptions = list(self._subscriptions.values())
        self._subscriptions.clear()
        await asyncio.gather(*(subscription.stop() for subscription in subscriptions))

    def _keys(self, keys: Iterable[str], operation: str) -> tuple[str, ...]:
        if isinstance(keys, str):
            raise self._invalid("keys must be a collection of texts, not one text", operation)
        if not isinstance(keys, Iterable):
            raise self._invalid(f"keys must be a collection of texts, not {type(keys).__name__}", operation)
        wanted = tuple(keys)
        for key in wanted:
            if not isinstance(key, str) or not key or "\0" in key:
                raise self._invalid("a key must be text that is not empty and holds no NUL", operation)
            try:
                key.encode()
            except UnicodeEncodeError:
                raise self._invalid("a key holds a lone surrogate, which is not text", operation) from None
        return tuple(dict.fromkeys(wanted))


def _asynchronous(handler: Handler) -> Callable[[ConfigurationEvent], Awaitable[None]]:
    async def call(event: ConfigurationEvent) -> None:
        result = handler(event)
        if inspect.isawaitable(result):
            await result

    return call
