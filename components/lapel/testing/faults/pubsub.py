"""The fault suite of pub/sub."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

import pytest

from ...component import Component
from ...policy import Effect
from ...pubsub import Message, PubSub, Subscription
from ..marks import row
from ..proxy import FaultProxy
from ..pubsub.base import Inbox, PubSubBase, send
from ..subject import Subject
from .backend import FaultBackend
from .base import PATIENCE, REPLIES, Request, new_name, until
from .cancellation import CancellationTests
from .connection import ConnectionTests

__all__ = ["PubSubFaultSuite"]

MESSAGES = 200
BEFORE = 20
"""How many messages are confirmed before the broker is restarted."""
GRACE = 0.5
"""How long a message may come, in seconds, after one that was sent later."""

_observers: WeakKeyDictionary[Component[Any], _Observer] = WeakKeyDictionary()


class PubSubFaultSuite(ConnectionTests, CancellationTests, PubSubBase):
    """What every broker's driver must show when something breaks. Override the fixture `backend`."""

    @row("stricter-054")
    async def test_no_confirmed_message_is_lost_when_the_broker_restarts(
        self, opened: Component[Any], direct: Subject, backend: FaultBackend, proxy: FaultProxy, topic: str
    ) -> None:
        if backend.restart is None:
            pytest.skip("the backend cannot be restarted")
        bus, inbox = cast("PubSub", opened), Inbox()
        async with await bus.subscribe(topic, inbox):
            links = proxy.counters.accepted + proxy.counters.refused
            async with _Publisher(direct, topic) as publisher:
                await publisher.reach(BEFORE)
                await inbox.until(lambda: inbox.done, lambda: "nothing arrives at all")
                # The subscriber comes back later than the publisher, so there are messages that it has missed.
                proxy.refuse()
                await asyncio.to_thread(backend.restart)
                await publisher.reach(publisher.count + BEFORE)
                proxy.heal()
                await _all_arrive(inbox, await publisher.finish())
        assert proxy.counters.accepted + proxy.counters.refused > links, "the restart ended no connection"

    @row("stricter-133")
    async def test_every_message_is_handled_however_often_the_connection_is_cut(
        self, opened: Component[Any], direct: Subject, proxy: FaultProxy, topic: str
    ) -> None:
        bus, inbox, cuts = cast("PubSub", opened), Inbox(), 0
        async with await bus.subscribe(topic, inbox), _Publisher(direct, topic) as publisher:
            for part in range(1, 6):
                await publisher.reach(part * BEFORE)
                cuts += proxy.cut()
                await _goes_on(inbox)
            await _all_arrive(inbox, await publisher.finish())
        assert cuts >= 5, "there was no connection to cut"

    @row("stricter-133")
    async def test_a_delivery_that_is_lost_on_its_way_comes_again(
        self, opened: Component[Any], behind: Component[Any], proxy: FaultProxy, topic: str
    ) -> None:
        bus, other, inbox, text = cast("PubSub", opened), cast("PubSub", behind), Inbox(), new_name()
        async with await bus.subscribe(topic, inbox):
            await send(other, topic, "before")
            await _all_arrive(inbox, ["before"])
            trap = proxy.cut_reply(text.encode())
            await send(other, topic, text)
            await trap.wait()
            await _all_arrive(inbox, [text])

    @row("stricter-133")
    @pytest.mark.parametrize("fault", ["black hole", "frozen"])
    async def test_what_was_published_while_a_connection_was_silent_arrives(
        self, opened: Component[Any], behind: Component[Any], proxy: FaultProxy, topic: str, fault: str
    ) -> None:
        bus, other, inbox = cast("PubSub", opened), cast("PubSub", behind), Inbox()
        async with await bus.subscribe(topic, inbox):
            await send(other, topic, "before")
            await _all_arrive(inbox, ["before"])
            if fault == "frozen":
                proxy.freeze()
            else:
                proxy.black_hole()
            await send(other, topic, "during")
            counters, before = proxy.counters, (proxy.counters.reply_bytes, proxy.counters.request_bytes)
            await until(
                lambda: (counters.reply_bytes, counters.request_bytes) != before, "nothing went into the silence"
            )
            assert "during" not in inbox.seen, "the fault did not hit"
            proxy.heal()
            await _all_arrive(inbox, ["during"])

    async def load(self, component: Component[Any], name: str) -> None:
        """Publish a message."""
        await send(cast("PubSub", component), "load", name)

    async def replies(self, component: Component[Any], name: str, count: int = REPLIES) -> None:
        """Publish messages and receive each of them once."""
        bus, topic, inbox = cast("PubSub", component), f"replies-{name}", Inbox()
        texts = [f"{name}-{number}" for number in range(count)]
        async with await bus.subscribe(topic, inbox) as subscription:
            for start in range(0, count, 10):
                await asyncio.gather(*(send(bus, topic, text) for text in texts[start : start + 10]))
            await inbox.expect(texts, subscription)

    def requests(self, component: Component[Any], behind: Component[Any], name: str) -> Sequence[Request]:
        """Return the calls that publish; a subscription of the other component tells what came of them."""
        bus = cast("PubSub", component)
        observer = _observers.setdefault(behind, _Observer(cast("PubSub", behind)))
        single, bulk = f"{name}single", f"{name}bulk"

        async def bulk_publish() -> None:
            for outcome in await bus.bulk_publish(observer.topic, [bulk]):
                if outcome.error is not None:
                    raise outcome.error

        return [
            Request(
                name="publish",
                effect=Effect.UNSAFE,
                mark=single,
                prepare=observer.arm,
                send=lambda: bus.publish(observer.topic, single),
                done=lambda: observer.count(single),
            ),
            Request(
                name="bulk_publish",
                effect=Effect.UNSAFE,
                mark=bulk,
                prepare=observer.arm,
                send=bulk_publish,
                done=lambda: observer.count(bulk),
            ),
        ]


class _Observer:
    """A subscription past the proxy, to one topic for all messages of a test."""

    def __init__(self, bus: PubSub) -> None:
        self.topic = f"observed-{new_name()}"
        self._bus = bus
        self._inbox = Inbox()
        self._subscription: Subscription | None = None

    async def arm(self) -> None:
        """Subscribe, once."""
        if self._subscription is None:
            self._subscription = await self._bus.subscribe(self.topic, self._inbox)

    async def count(self, text: str) -> int:
        """Return how often a message came, once one that was sent later has come."""
        end = new_name()
        await send(self._bus, self.topic, end)
        await self._inbox.until(lambda: self._came(end), lambda: "the observer gets nothing")
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._inbox.until(lambda: self._came(text), lambda: "")
        return self._came(text)

    def _came(self, text: str) -> int:
        return sum(_plain(message) == text for message in self._inbox.messages)


class _Publisher:
    """Another process that publishes numbered messages past the proxy and says which of them were confirmed."""

    def __init__(self, direct: Subject, topic: str) -> None:
        assert direct.manifest is not None
        manifest = direct.manifest
        self._order = {
            "component": {
                "apiVersion": "dapr.io/v1alpha1",
                "kind": "Component",
                "metadata": {"name": manifest.name},
                "spec": {
                    "type": manifest.type,
                    "version": manifest.version,
                    "metadata": [{"name": item.name, "value": item.value} for item in manifest.metadata],
                },
            },
            "topic": topic,
            "count": MESSAGES,
        }
        self._confirmed: list[str] = []
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Publisher:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lapel.testing.faults.publisher",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._order).encode())
        self._process.stdin.close()
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    @property
    def count(self) -> int:
        """How many messages were confirmed so far."""
        return len(self._confirmed)

    async def reach(self, count: int) -> None:
        """Wait until so many messages were confirmed."""
        assert self._listening is not None
        listening = self._listening
        await until(lambda: len(self._confirmed) >= count or listening.done(), "the publisher confirms nothing")
        assert len(self._confirmed) >= count, f"the publisher ended after {len(self._confirmed)} messages"

    async def finish(self) -> list[str]:
        """Wait until all were tried, and return those confirmed."""
        assert self._listening is not None
        async with asyncio.timeout(PATIENCE):
            await self._listening
            code = await self._process.wait()
        assert code == 0, "the publisher failed"
        return self._confirmed

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._confirmed.append(line.decode().strip())


async def _goes_on(inbox: Inbox) -> None:
    handled = len(inbox.done)
    await until(lambda: len(inbox.done) > handled, "nothing arrives after a cut")


async def _all_arrive(inbox: Inbox, texts: Sequence[str]) -> None:
    def missing() -> set[str]:
        return set(texts) - set(inbox.done)

    await until(lambda: not missing(), f"messages are missing, of {len(texts)}")


def _plain(message: Message) -> str:
    text = message.data.decode("utf-8", "backslashreplace")
    return text.strip('"')
