"""What becomes of messages: delivered, retried, handed to another, never lost and never doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from ...component import HealthState
from ...descriptor import Capability
from ...pubsub import Message, Outcome, PubSub
from ..marks import contract, needs, row
from ..subject import Subject
from .base import QUICK, Inbox, PubSubBase, for_ever, left_over, send, send_all, texts

__all__ = ["DeliveryTests"]


class DeliveryTests(PubSubBase):
    """One subscription, and its successors."""

    @row("PS-02", "PS-04", "PS-07")
    @contract
    async def test_messages_arrive_once_each_though_handlers_fail_now_and_then(
        self, bus: PubSub, topic: str, base: str
    ) -> None:
        known: list[str] = []

        async def react(message: Message) -> None:
            if (text := message.text()) not in known:
                known.append(text)
                if len(known) <= 2 or len(known) % 5 == 0:
                    raise RuntimeError("now and then")

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, backoff=QUICK)
        await send_all(bus, topic, texts(base, range(1, 11)))
        await inbox.expect(texts(base, range(1, 11)))
        assert len(inbox.messages) == 14
        assert {message.topic for message in inbox.messages} == {topic}
        assert await left_over(bus, subscription) == []

    @row("stricter-055")
    @contract
    async def test_a_message_right_after_subscribing_arrives(self, bus: PubSub, topic: str) -> None:
        for number in range(5):
            inbox = Inbox()
            await bus.subscribe(f"{topic}-{number}", inbox)
            await send(bus, f"{topic}-{number}", "first")
            await inbox.expect(["first"])

    @row("stricter-055")
    @contract
    async def test_what_was_published_before_a_new_group_comes_only_as_pinned(
        self, subject: Subject, bus: PubSub, topic: str
    ) -> None:
        await send(bus, topic, "before")
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        await send(bus, topic, "after")
        beginning = self.option(subject, "newGroup") == "beginning"
        await inbox.expect(["before", "after"] if beginning else ["after"])
        assert await left_over(bus, subscription) == []

    @row("stricter-035")
    @pytest.mark.parametrize("how", ["raises", "asks"])
    @contract
    async def test_a_handler_that_fails_twice_is_called_three_times(self, bus: PubSub, topic: str, how: str) -> None:
        attempts: list[int] = []

        async def react(message: Message) -> Outcome | None:
            attempts.append(message.attempt)
            if len(attempts) == 3:
                return None
            if how == "raises":
                raise ValueError
            return Outcome.RETRY

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, backoff=QUICK)
        await send(bus, topic, "flaky")
        await inbox.expect(["flaky"])
        assert attempts == [1, 2, 3]
        assert len({message.raw for message in inbox.messages}) == 1
        assert await left_over(bus, subscription) == []

    @row("stricter-035")
    @contract
    async def test_a_message_that_waits_for_its_retry_does_not_hold_up_others(self, bus: PubSub, topic: str) -> None:
        broken = True

        async def react(message: Message) -> None:
            if broken and message.text() == "poison":
                raise ValueError

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, concurrency=1, backoff=QUICK)
        await send(bus, topic, "poison")
        await send_all(bus, topic, texts("", range(20)))
        await inbox.expect(texts("", range(20)))
        broken = False
        await inbox.expect(["poison", *texts("", range(20))])
        assert await left_over(bus, subscription) == []

    @row("stricter-036")
    @needs(Capability.CONSUMER_GROUPS)
    @contract
    async def test_a_message_whose_handler_is_cancelled_goes_to_another_of_the_group(
        self, bus: PubSub, topic: str
    ) -> None:
        stuck, other = Inbox(for_ever), Inbox()
        first = await bus.subscribe(topic, stuck, drain_timeout=0)
        await send(bus, topic, "mine")
        await stuck.until(lambda: stuck.running, lambda: "the message did not arrive")
        second = await bus.subscribe(topic, other)
        await first.aclose()
        await other.expect(["mine"])
        assert stuck.running == 0
        if Capability.DELIVERY_COUNT in bus.capabilities:
            assert other.messages[0].attempt == 2
        assert await left_over(bus, second) == []

    @row("stricter-036")
    @needs(Capability.CONSUMER_GROUPS)
    async def test_a_message_of_a_component_that_closes_goes_to_another_component(
        self, bus: PubSub, second: PubSub, topic: str
    ) -> None:
        stuck, other = Inbox(for_ever), Inbox()
        await bus.subscribe(topic, stuck, drain_timeout=0, concurrency=1)
        await send_all(bus, topic, texts("", range(5)))
        await stuck.until(lambda: stuck.running, lambda: "the message did not arrive")
        waiting = await second.subscribe(topic, other)
        await bus.aclose()
        await other.expect(texts("", range(5)))
        assert len(stuck.messages) == 1
        assert await left_over(second, waiting) == []

    @row("stricter-037")
    @needs(Capability.CONSUMER_GROUPS)
    @contract
    async def test_an_ended_subscription_is_silent(self, bus: PubSub, topic: str) -> None:
        ended, witness = Inbox(), Inbox()
        subscription = await bus.subscribe(topic, ended, group=f"{topic}-ended")
        await bus.subscribe(topic, witness, group=f"{topic}-witness")
        await send(bus, topic, "one")
        await ended.expect(["one"])
        await subscription.aclose()
        await subscription.aclose()
        await send_all(bus, topic, ["two", "three"])
        await witness.expect(["one", "two", "three"])
        assert ended.seen == ["one"]
        assert subscription not in bus.subscriptions
        assert subscription.health().state is HealthState.CLOSED

    @row("stricter-037")
    @needs(Capability.DURABLE)
    @contract
    async def test_a_successor_gets_what_came_while_nobody_was_there(self, bus: PubSub, topic: str) -> None:
        for number in range(3):
            inbox = Inbox()
            async with await bus.subscribe(topic, inbox):
                await inbox.expect(texts(str(number - 1), range(3)) if number else [])
            await send_all(bus, topic, texts(str(number), range(3)))

    @row("stricter-037")
    @needs(Capability.DURABLE)
    async def test_messages_survive_the_component(self, subject: Subject, bus: PubSub, topic: str) -> None:
        await (await bus.subscribe(topic, Inbox())).aclose()
        await send(bus, topic, "from the first")
        await bus.aclose()
        async with self.build(subject) as between:
            await send(cast("PubSub", between), topic, "from the second")
        async with self.build(subject) as last:
            inbox = Inbox()
            await cast("PubSub", last).subscribe(topic, inbox)
            await inbox.expect(["from the first", "from the second"])

    @row("stricter-035", "stricter-123")
    @needs(Capability.DELIVERY_COUNT)
    @contract
    async def test_attempts_are_counted_across_consumers(self, bus: PubSub, topic: str) -> None:
        async def fail(message: Message) -> None:
            raise ValueError

        failing, last = Inbox(fail), Inbox()
        first = await bus.subscribe(topic, failing, backoff=QUICK)
        await send(bus, topic, "hot potato")
        await failing.until(lambda: len(failing.messages) >= 2, lambda: "the message did not come again")
        await bus.subscribe(topic, last, backoff=QUICK)
        await first.aclose()
        await last.expect(["hot potato"])
        assert [message.attempt for message in failing.messages] == list(range(1, len(failing.messages) + 1))
        # A broker that counts what it hands out may have counted the hand-back of the one who left.
        assert last.messages[0].attempt - len(failing.messages) in (1, 2)

    @row("stricter-041")
    @contract
    async def test_a_handler_can_publish_to_its_own_topic(self, bus: PubSub, topic: str) -> None:
        async def react(message: Message) -> None:
            if (number := int(message.text())) > 0:
                await send(bus, topic, str(number - 1))

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox, concurrency=1)
        await send(bus, topic, "20")
        await inbox.expect(map(str, range(21)))

    @row("stricter-043")
    @contract
    async def test_concurrency_one_never_overlaps(self, bus: PubSub, topic: str, base: str) -> None:
        async def react(message: Message) -> None:
            for _ in range(3):
                await asyncio.sleep(0)

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox, concurrency=1)
        await bus.bulk_publish(topic, [text.encode() for text in texts(base, range(30))])
        await inbox.expect(texts(base, range(30)))
        assert inbox.most == 1

    @row("stricter-043")
    @contract
    async def test_concurrency_two_runs_two_at_once_and_no_more(self, bus: PubSub, topic: str, base: str) -> None:
        together = asyncio.Barrier(2)

        async def react(message: Message) -> None:
            await together.wait()
            await asyncio.sleep(0)

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox, concurrency=2)
        await bus.bulk_publish(topic, [text.encode() for text in texts(base, range(20))])
        await inbox.expect(texts(base, range(20)))
        assert inbox.most == 2

    @row("stricter-058")
    @contract
    async def test_a_subscription_survives_whatever_its_handler_does(self, bus: PubSub, topic: str) -> None:
        tried: set[str] = set()

        async def react(message: Message) -> Any:
            text = message.text()
            if text in tried:
                return None
            tried.add(text)
            return await ODD[text]()

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, backoff=QUICK)
        await send_all(bus, topic, list(ODD))
        await inbox.expect(list(ODD))
        assert subscription.health().state is HealthState.READY
        assert subscription.health().details["reconnects"] == 0
        assert await left_over(bus, subscription) == []


class _Fatal(BaseException):
    pass


class _Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ArithmeticError

    __hash__ = None  # type: ignore[assignment]  # as odd as a returned object can be


async def _raise(error: BaseException) -> None:
    raise error


async def _return(value: object) -> object:
    return value


async def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


ODD: dict[str, Callable[[], Awaitable[object]]] = {
    "raises a BaseException": lambda: _raise(_Fatal()),
    "raises CancelledError": lambda: _raise(asyncio.CancelledError()),
    "cancels its own task": _cancel_itself,
    "raises a group": lambda: _raise(ExceptionGroup("several", [ValueError(), KeyError()])),
    "raises TimeoutError": lambda: _raise(TimeoutError()),
    "raises StopAsyncIteration": lambda: _raise(StopAsyncIteration()),
    "returns a number": lambda: _return(42),
    "returns False": lambda: _return(False),
    "returns another text": lambda: _return("NO SUCH OUTCOME"),
    "returns a list": lambda: _return([Outcome.SUCCESS]),
    "returns something incomparable": lambda: _return(_Incomparable()),
}
