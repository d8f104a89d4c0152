"""The application behind a host: found, asked what it wants, and served until the host ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ...bindings import InputBinding, Reading
from ...delivery import Ordering
from ...descriptor import Capability, Kind
from ...errors import LapelError, UnsupportedError
from ...pubsub import Subscription
from ...resiliency.policies import ANSWERS
from .bindings import EventDelivery, wants_events
from .channel import AppChannel
from .configuration import ConfigurationDelivery
from .delivery import Delivering
from .health import AppHealth
from .subscriptions import AppSubscription, declared, discovered, merged

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["AppSide", "Armed", "Place"]

Armed = Subscription | Reading
Place = tuple[str, str | None]
"""A pub/sub component and its topic, or an input binding and None."""

RETRY_SECONDS = (0.5, 30.0)
"""First and longest pause between attempts to arm what could not be armed."""
CONCURRENCY = 32
"""Messages of one subscription at the application at once, where nothing else limits it."""
_log = logging.getLogger("lapel.host")


class AppSide:
    """The application's side of one host; a `Part` of it. `channel` is how the application is reached."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.channel = AppChannel(host.options)
        self.subscriptions: list[AppSubscription] = []
        """What the application asked for, or files say for it."""
        self._app_id = host.options.app_id
        self._discovered: list[AppSubscription] | None = None
        self._armed: dict[Place, Armed] = {}
        self._health = AppHealth(self.channel, host.options, self._set_running)
        self._arming: dict[Place, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected = False
        self._draining = False

    async def start(self) -> None:
        """Begin to look for the application; what it wants is armed once it listens."""
        await self.channel.open()
        self._spawn(self._connect(), "connect")

    async def drain(self) -> None:
        """Take in nothing new and wait for deliveries under way, up to the graceful shutdown seconds each."""
        self._draining = True
        await self._end_tasks()
        await _close(self._armed.values())
        self._armed.clear()

    async def stop(self) -> None:
        """Let go of the application."""
        await self._end_tasks()
        await self.channel.close()

    def unready(self) -> str | None:
        """Return that the application has not been reached yet."""
        return None if self._connected else "app"

    def metadata(self) -> Mapping[str, Any]:
        """Return the subscriptions and how the application is connected."""
        options = self._host.options
        connection: dict[str, Any] = {
            "port": options.app_port,
            "protocol": options.app_protocol,
            "channelAddress": options.app_channel_address,
        }
        if options.app_max_concurrency > 0:
            connection["maxConcurrency"] = options.app_max_concurrency
        if options.app_health_check:
            connection["health"] = {
                "healthCheckPath": options.app_health_check_path,
                "healthProbeInterval": f"{options.app_health_probe_interval:g}s",
                "healthProbeTimeout": f"{options.app_health_probe_timeout * 1000:g}ms",
                "healthThreshold": options.app_health_threshold,
            }
        return {
            "subscriptions": [subscription.describe() for subscription in self.subscriptions],
            "appConnectionProperties": connection,
        }

    def armed(self) -> Mapping[Place, Armed]:
        """Return what takes messages or events now: by component and topic, or component and None for a binding."""
        return dict(self._armed)

    async def component_changed(self, name: str) -> None:
        """Arm again what a component carries, after it was added, replaced or removed."""
        if not self._connected or self._draining:
            return
        await _close([self._armed.pop(place) for place in list(self._armed) if place[0] == name])
        known = self._discovered is not None
        await self._learn()
        self._arm_all(name if known else None)

    def component_opened(self, name: str) -> None:
        """Arm what a component carries that opened after the others."""
        if self._connected and not self._draining:
            self._spawn(self.component_changed(name), f"arm {name}")

    async def documents_changed(self) -> None:
        """Go by the subscriptions that files have now: end what is gone, arm what is new."""
        if not self._connected or self._draining:
            return
        before = {(one.pubsub, one.topic): one for one in self.subscriptions}
        await self._learn()
        after = {(one.pubsub, one.topic): one for one in self.subscriptions}
        stale = [place for place, one in before.items() if after.get(place) != one]
        arming = [task for place in stale if (task := self._arming.get(place)) is not None]
        for task in arming:
            task.cancel()
        if arming:
            await asyncio.wait(arming)
        await _close([self._armed.pop(place) for place in stale if place in self._armed])
        self._arm_all()

    def on_configuration(self, store: str) -> ConfigurationDelivery:
        """Return the handler of one subscription to a configuration store."""
        return ConfigurationDelivery(self.channel, store)

    # connecting

    async def _connect(self) -> None:
        await self.channel.wait_until_listening()
        if self._host.options.app_health_check:
            await self._health.wait_until_well()
        await self._warn_of_actors()
        await self._learn()
        self._connected = True
        _log.info("the application is there; it has %d subscriptions", len(self.subscriptions))
        self._arm_all()
        if self._host.options.app_health_check:
            self._spawn(self._health.run(), "app health")

    async def _learn(self) -> None:
        """Find out what is subscribed to. The application is asked once, when there is something to subscribe at."""
        if self._discovered is None and self._host.has(Kind.PUBSUB):
            self._discovered = []
            self._discovered = await discovered(self.channel, self._app_id or "", self._host.components.resiliency)
        own = self._discovered or []
        self.subscriptions = merged(own, declared(self._host.components.documents, self._app_id))

    async def _warn_of_actors(self) -> None:
        try:
            reply = await self.channel.request("GET", "/dapr/config", timeout=5.0)
            entities = msgspec.json.decode(reply.body).get("entities") if reply.ok and reply.body else None
        except (LapelError, AttributeError, ValueError):
            return
        if entities:
            _log.warning("the application has actors (%s), which lapel does not", ", ".join(map(str, entities)))

    def _arm_all(self, only: str | None = None) -> None:
        """Arm what the application wants and is not armed, of one component or of all."""
        wanted: dict[Place, Callable[[], Awaitable[Armed | None]]] = {
            (subscription.pubsub, subscription.topic): partial(self._subscribe, subscription)
            for subscription in self.subscriptions
        }
        for component in self._host.components:
            if isinstance(component, InputBinding):
                wanted[component.name, None] = partial(self._read, component.name)
        for place, arm in wanted.items():
            if only in (None, place[0]) and place not in self._armed and place not in self._arming:
                arming = self._keep_arming(place, arm)
                self._arming[place] = self._spawn(arming, f"arm {place[0]} {place[1] or ''}".rstrip())

    async def _keep_arming(self, place: Place, arm: Callable[[], Awaitable[Armed | None]]) -> None:
        try:
            armed = await _until_armed(arm)
        finally:
            if self._arming.get(place) is asyncio.current_task():
                del self._arming[place]
        if armed is not None:
            self._armed[place] = armed
            if not self._health.well:
                await self._pause(place)

    async def _subscribe(self, subscription: AppSubscription) -> Subscription:
        bus = self._host.components.pubsub(subscription.pubsub)
        retry = self._host.components.resiliency.component(bus.name, Kind.PUBSUB).inbound.retry
        final = None if retry is None else lambda status: not retry.retries_http(status)
        delivering = Delivering(self.channel, subscription, final)
        terms: dict[str, Any] = {
            # Dapr gives a failed message to the dead-letter topic at once, unless a policy says otherwise.
            "max_attempts": 1 if subscription.dead_letter_topic and retry is None else None,
            "dead_letter_topic": subscription.dead_letter_topic,
            "drain_timeout": self._host.options.graceful_shutdown_seconds,
            "raw": subscription.raw,
            "metadata": subscription.metadata,
        }
        if subscription.bulk is not None:
            terms |= {"max_messages": subscription.bulk.max_messages, "max_wait": subscription.bulk.max_wait}
            return await bus.bulk_subscribe(subscription.topic, delivering.many, **terms)
        ordered = Capability.ORDER_BY_KEY in bus.capabilities and bus.driver.order_is_free
        terms |= {"ordering": Ordering.KEY if ordered else Ordering.NONE, "concurrency": self._concurrency()}
        return await bus.subscribe(subscription.topic, delivering.one, **terms)

    async def _read(self, name: str) -> Reading | None:
        binding = self._host.components.input_binding(name)
        if not await wants_events(self.channel, binding):
            _log.info("the application does not take the events of %r", name)
            return None
        return await binding.read(
            EventDelivery(self._host, self.channel, binding),
            drain_timeout=self._host.options.graceful_shutdown_seconds,
        )

    def _concurrency(self) -> int:
        limit = self._host.options.app_max_concurrency
        return min(limit, CONCURRENCY) if limit > 0 else CONCURRENCY

    # the application's health

    async def _set_running(self, well: bool) -> None:
        for place, armed in list(self._armed.items()):
            if well:
                await armed.resume()
            else:
                await self._pause(place)
        if well:
            self._arm_all()

    async def _pause(self, place: Place) -> None:
        """Pause what is armed; close it where the source cannot pause, to be armed again."""
        armed = self._armed[place]
        try:
            await armed.pause()
        except UnsupportedError:
            del self._armed[place]
            await _close([armed])

    # tasks

    def _spawn(self, work: Any, what: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"lapel host {what}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed; please report this", task.get_name(), exc_info=error)

    async def _end_tasks(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)


async def _until_armed(arm: Callable[[], Awaitable[Armed | None]]) -> Armed | None:
    """Arm; when that fails for a reason that may pass, again with growing pauses."""
    pause, longest = RETRY_SECONDS
    while True:
        try:
            return await arm()
        except ANSWERS as exc:
            _log.error("the application does not get what it asked for: %s", exc)
            return None
        except LapelError as exc:
            _log.warning("not armed yet, will try again: %s", exc)
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)


async def _close(armed: Iterable[Armed]) -> None:
    for result in await asyncio.gather(*(one.aclose() for one in list(armed)), return_exceptions=True):
        if isinstance(result, Exception):
            _log.error("a subscription did not end well: %s", result)
