"""Subscriptions of the pub/sub component: topics an app may use, arguments, health, pause, and how all of it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.delivery_support import QUICK, now, until, virtual
from tests.unit.pubsub_support import Recorder, memory, recording

from lapel.component import ComponentOptions, HealthState
from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    ConfigurationError,
    InvalidArgumentError,
    NotOpenError,
    OperationFailedError,
    TopicForbiddenError,
    UnavailableError,
    UnsupportedError,
)
from lapel.pubsub import Consumer, Message, PubSub, SubscribeRequest
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

# topic scopes

SCOPES: dict[str, Any] = {
    "allowed_topics": ("a", "b", "c", "p"),
    "protected_topics": ("p",),
    "publishing_scopes": " app1 = a , p ; app2 = ",
    "subscription_scopes": "app1=b",
}


@pytest.mark.parametrize(
    ("app", "publishes", "subscribes"),
    [("app1", {"a", "p"}, {"b"}), ("app2", set(), {"a", "b", "c"}), ("app3", {"a", "b", "c"}, {"a", "b", "c"})],
)
async def test_topic_scopes_say_who_may_use_what(app: str, publishes: set[str], subscribes: set[str]) -> None:
    bus, driver = recording(app_id=app, **SCOPES)
    denied = r"app '{}' may not .* topic '{}'"
    async with bus:
        for topic in ("a", "b", "c", "p", "z"):
            if topic in publishes:
                await bus.publish(topic, b"")
            else:
                with pytest.raises(TopicForbiddenError, match=denied.format(app, topic)):
                    await bus.publish(topic, b"")
            with pytest.raises(UnavailableError if topic in subscribes else TopicForbiddenError):
                await bus.subscribe(topic, _ignore)
    assert {request.topic for request in driver.requests} == publishes


async def test_without_an_app_id_topic_scopes_do_not_apply() -> None:
    bus, driver = recording(**SCOPES)
    async with bus:
        await bus.publish("z", b"")
    assert driver.last.topic == "z"


async def test_a_dead_letter_topic_must_be_one_that_the_app_may_publish_to() -> None:
    bus, _ = recording(app_id="app1", **SCOPES)
    async with bus:
        with pytest.raises(TopicForbiddenError, match="publish to topic 'c'"):
            await bus.subscribe("b", _ignore, dead_letter_topic="c")


def test_a_scope_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="publishing_scopes"):
        recording(app_id="app1", publishing_scopes="app1:a")


# subscribe


async def _ignore(message: Message) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("group", "consumer_id", "app_id", "expected"),
    [
        ("g", "c", "a", "g"),
        (None, "c", "a", "c"),
        (None, None, "a", "a"),
        (None, None, None, "bus"),
    ],
)
async def test_the_consumer_group_is_the_argument_then_the_field_then_the_app_then_the_component(
    group: str | None, consumer_id: str | None, app_id: str | None, expected: str
) -> None:
    bus, driver = recording(app_id=app_id, consumer_id=consumer_id)
    async with bus:
        with pytest.raises(UnavailableError, match=r"component 'bus' \(pubsub.recorder\) subscribe"):
            await bus.subscribe("t", _ignore, group=group, metadata={"x": "y"})
        assert bus.subscriptions == frozenset()
    assert driver.subscribed[0].group == expected
    assert driver.subscribed[0].metadata == {"x": "y"}
    assert driver.subscribed[0].prefetch == 20


@pytest.mark.parametrize(
    "options",
    [
        {"ordering": "sideways"},
        {"concurrency": 0},
        {"max_attempts": 0},
        {"drain_timeout": -1},
        {"dead_letter_topic": "t"},
        {"dead_letter_topic": ""},
        {"metadata": {"rawPayload": "maybe"}},
    ],
)
async def test_wrong_arguments_of_subscribe_are_refused(options: Mapping[str, Any]) -> None:
    bus, driver = recording()
    async with bus:
        with pytest.raises(InvalidArgumentError, match="component 'bus'"):
            await bus.subscribe("t", _ignore, **options)
        with pytest.raises(InvalidArgumentError):
            await bus.subscribe("", _ignore)
        with pytest.raises(InvalidArgumentError):
            await bus.bulk_subscribe("t", _ignore_all, max_messages=0)
    assert driver.subscribed == []


async def _ignore_all(messages: list[Message]) -> None:
    """Do nothing."""


@pytest.mark.parametrize("ordering", ["key", "all"])
async def test_an_order_that_the_driver_does_not_keep_is_refused(ordering: str) -> None:
    bus, _ = recording()
    async with bus:
        with pytest.raises(UnsupportedError, match="ORDER"):
            await bus.subscribe("t", _ignore, ordering=ordering)


async def test_a_foreign_error_of_a_driver_becomes_ours() -> None:
    bus, driver = recording()
    driver.failure = KeyError("x")
    async with bus:
        with pytest.raises(OperationFailedError, match="KeyError"):
            await bus.subscribe("t", _ignore)


async def test_subscribing_where_nobody_answers_ends_with_the_init_timeout() -> None:
    @virtual
    async def scenario() -> None:
        class Mute(Recorder):
            async def subscribe(self, request: SubscribeRequest) -> Consumer:
                await asyncio.sleep(1000)
                raise AssertionError

        bus = PubSub(Mute(), options=ComponentOptions(init_timeout=timedelta(seconds=3)))
        async with bus:
            with pytest.raises(UnavailableError, match="3 s"):
                await bus.subscribe("t", _ignore)

    await asyncio.to_thread(scenario)


# health, pause, end


async def test_publishing_needs_an_open_component() -> None:
    bus, _ = recording()
    with pytest.raises(NotOpenError):
        await bus.publish("t", b"x")
    async with bus:
        pass
    for call in (bus.publish("t", b"x"), bus.bulk_publish("t", []), bus.subscribe("t", _ignore)):
        with pytest.raises(ClosedError):
            await call


@virtual
async def test_health_of_the_component_is_that_of_its_worst_subscription() -> None:
    async def fail(message: Message) -> None:
        raise ValueError

    async with memory() as bus:
        await bus.subscribe("fine", _ignore)
        sick = await bus.subscribe("sick", fail, backoff=QUICK, drain_timeout=0)
        assert (await bus.health()).ok
        await bus.publish("sick", 1)
        await asyncio.sleep(20)
        health = await bus.health()
        assert health.state is HealthState.DEGRADED
        assert "sick (bus)" in str(health.reason)
        assert set(health.details) == {"fine (bus)", "sick (bus)"}
        await sick.aclose()
        assert sick.health().state is HealthState.CLOSED
        assert (await bus.health()).ok
        assert {item.topic for item in bus.subscriptions} == {"fine"}


@virtual
async def test_pause_and_resume_twice_each() -> None:
    got: list[Any] = []

    async def handle(message: Message) -> None:
        got.append(message.json())

    async with memory() as bus, await bus.subscribe("t", handle) as subscription:
        await subscription.pause()
        await subscription.pause()
        assert subscription.paused
        await bus.publish("t", 1)
        await asyncio.sleep(60)
        assert got == []
        assert await subscription.lag() == 1
        await subscription.resume()
        await subscription.resume()
        await until(lambda: got == [1])
        assert await subscription.lag() == 0
        assert subscription.in_flight == 0


@virtual
async def test_pause_needs_a_driver_that_can() -> None:
    class Rigid(MemoryPubSub):
        async def open(self) -> None:
            self.withdraw(Capability.PAUSE, "not today")

    async with PubSub(Rigid(MemoryPubSubSettings(), DriverContext(component="bus"))) as bus:
        subscription = await bus.subscribe("t", _ignore)
        with pytest.raises(UnsupportedError, match="not today"):
            await subscription.pause()


@virtual
async def test_publishing_stays_possible_until_the_last_handler_has_ended_but_subscribing_does_not() -> None:
    log: list[str] = []

    async def handle(message: Message) -> None:
        await asyncio.sleep(8)
        await bus.publish("other", b"")
        assert [outcome.error for outcome in await bus.bulk_publish("other", [b""])] == [None]
        log.append("published")
        with pytest.raises(ClosedError):
            await bus.subscribe("t", _ignore)
        log.append("refused")

    bus = memory()
    async with bus:
        await bus.subscribe("t", handle)
        await bus.publish("t", b"")
        await asyncio.sleep(1)
    assert log == ["published", "refused"]
    with pytest.raises(ClosedError):
        await bus.publish("t", b"")


@virtual
async def test_no_handler_starts_after_the_component_began_to_close() -> None:
    started: list[bytes] = []
    release = asyncio.Event()

    async def handle(message: Message) -> None:
        started.append(message.data)
        await release.wait()

    bus = memory()
    await bus.open()
    await bus.subscribe("t", handle, concurrency=1)
    await bus.publish("t", b"1")
    await bus.publish("t", b"2")
    await until(lambda: bool(started))
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0)
    release.set()
    await closing
    assert started == [b"1"]


@virtual
async def test_a_handler_can_close_its_component() -> None:
    log: list[str] = []

    async def handle(message: Message) -> None:
        began = now()
        await bus.aclose()
        assert now() - began < 1
        log.append("closing")
        await asyncio.sleep(3)
        log.append("handler ends")

    bus = memory()
    await bus.open()
    await bus.subscribe("t", handle)
    await bus.publish("t", b"")
    await until(lambda: bool(log))
    await bus.aclose()
    log.append("closed")
    assert log == ["closing", "handler ends", "closed"]
    assert (await bus.health()).state is HealthState.CLOSED


@virtual
async def test_a_subscription_that_arms_while_the_component_closes_is_taken_back() -> None:
    entered = asyncio.Event()

    class Slow(MemoryPubSub):
        async def subscribe(self, request: SubscribeRequest) -> Consumer:
            consumer = await super().subscribe(request)
            entered.set()
            await asyncio.sleep(1)
            return consumer

    bus = PubSub(Slow(MemoryPubSubSettings(), DriverContext(component="bus")))
    await bus.open()
    arming = asyncio.create_task(bus.subscribe("t", _ignore))
    await entered.wait()
    await bus.aclose()
    with pytest.raises(ClosedError):
        await arming
    assert bus.subscriptions == frozenset()
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}
