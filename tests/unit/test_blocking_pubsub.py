"""The synchronous facade publishes and subscribes: handlers are plain functions that may block, fail and close."""

from __future__ import annotations

import queue
import threading
from contextvars import ContextVar

import pytest
from tests.unit.blocking_support import components as components
from tests.unit.blocking_support import resources as resources
from tests.unit.blocking_support import until

import lapel
from lapel import blocking
from lapel.errors import InvalidArgumentError

USER: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.mark.parametrize("name", ["bus", "queue"])
def test_messages_reach_a_handler_that_blocks_and_uses_other_components(
    components: blocking.Components, name: str
) -> None:
    bus, store, together = components.pubsub(name), components.state("sqlite"), threading.Barrier(8)

    def handle(message: lapel.Message) -> None:
        together.wait(20)  # all at the same time, each in a thread of its own
        store.set(message.json(), threading.current_thread().name)

    with bus.subscribe("orders", handle, concurrency=8) as subscription:
        assert bus.subscriptions == {subscription}
        assert (subscription.topic, subscription.paused) == ("orders", False)
        for number in range(8):
            bus.publish("orders", f"k{number}")
        until(lambda: len(store.keys("k%").keys) == 8 and subscription.in_flight == 0)
        assert subscription.health().ok
        assert subscription.lag() in (0, None)
    assert bus.subscriptions == frozenset()
    assert subscription.health().state is lapel.HealthState.CLOSED


def test_a_paused_subscription_starts_nothing(components: blocking.Components) -> None:
    bus, seen = components.pubsub("bus"), queue.SimpleQueue[str]()
    with bus.subscribe("t", lambda message: seen.put(message.json())) as subscription:
        subscription.pause()
        assert subscription.paused
        bus.publish("t", "later")
        assert subscription.health().details["paused"] is True
        assert seen.empty()
        subscription.resume()
        assert seen.get(timeout=20) == "later"


@pytest.mark.parametrize("failure", [ValueError(), SystemExit(1), KeyboardInterrupt(), StopIteration()])
def test_whatever_a_handler_raises_the_message_comes_again(
    components: blocking.Components, failure: BaseException
) -> None:
    bus, attempts = components.pubsub("bus"), queue.SimpleQueue[int]()

    def handle(message: lapel.Message) -> None:
        attempts.put(message.attempt)
        if message.attempt == 1:
            raise failure

    with bus.subscribe("t", handle, backoff=lapel.Backoff(initial=0.001)):
        bus.publish("t", 1)
        assert [attempts.get(timeout=20), attempts.get(timeout=20)] == [1, 2]
        assert components.state("memory").get("the loop still runs") is None


def test_batches_and_outcomes(components: blocking.Components) -> None:
    bus, dead = components.pubsub("bus"), queue.SimpleQueue[str]()

    def handle(messages: list[lapel.Message]) -> list[lapel.Outcome | None]:
        return [lapel.Outcome.DROP if message.json() == "bad" else None for message in messages]

    with (
        bus.subscribe("dead", lambda message: dead.put(message.json())),
        bus.bulk_subscribe("t", handle, max_messages=3, dead_letter_topic="dead"),
    ):
        assert [outcome.error for outcome in bus.bulk_publish("t", ["good", "bad", "good"])] == [None] * 3
        assert dead.get(timeout=20) == "bad"


def test_a_coroutine_function_is_no_handler(components: blocking.Components) -> None:
    class Handler:
        async def __call__(self, message: lapel.Message) -> None: ...

    with pytest.raises(InvalidArgumentError, match="plain functions"):
        components.pubsub("bus").subscribe("t", Handler())  # type: ignore[arg-type]  # that is the point


def test_a_handler_can_close_its_own_subscription(components: blocking.Components) -> None:
    bus, closed = components.pubsub("bus"), threading.Event()

    def handle(message: lapel.Message) -> None:
        subscription.close()
        closed.set()

    subscription = bus.subscribe("t", handle)
    bus.publish("t", 1)
    assert closed.wait(20)
    until(lambda: not bus.subscriptions)


def test_the_context_of_the_caller_goes_along(components: blocking.Components) -> None:
    bus, seen = components.pubsub("bus"), queue.SimpleQueue[str]()
    token = USER.set("ann")
    with bus.subscribe("t", lambda message: seen.put(USER.get())):
        USER.reset(token)
        bus.publish("t", 1)
        assert seen.get(timeout=20) == "ann"
