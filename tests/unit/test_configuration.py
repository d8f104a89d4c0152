"""Configuration: what `ConfigurationStore` adds to its drivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from tests.unit.configuration_support import Inbox, until

from lapel.component import HealthState
from lapel.configuration import (
    ConfigurationDriver,
    ConfigurationEvent,
    ConfigurationItem,
    ConfigurationStore,
    GetConfigurationRequest,
    Watcher,
    WatchRequest,
)
from lapel.configuration import subscription as subscription_module
from lapel.descriptor import Capability, Descriptor, Kind
from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    UnavailableError,
    UnsupportedError,
)
from lapel.registry import default_registry
from lapel.settings import Settings


class FakeWatcher(Watcher):
    def __init__(self, backend: Fake) -> None:
        self.backend = backend
        self.event = asyncio.Event()
        self.closed = False

    async def changed(self) -> None:
        await self.event.wait()
        self.event.clear()
        if self.backend.down is not None:
            raise self.backend.down

    async def close(self) -> None:
        self.closed = True


class Fake(ConfigurationDriver[Settings]):
    """A store in memory whose connection can go down."""

    descriptor = Descriptor(
        kind=Kind.CONFIGURATION,
        name="fake",
        driver="tests:Fake",
        settings="lapel.settings:Settings",
        summary="A fake.",
        capabilities=Capability.WATCH,
    )

    def __init__(self) -> None:
        super().__init__(Settings.parse({}), DriverContext(component="settings"))
        self.items: dict[str, ConfigurationItem] = {}
        self.watchers: list[FakeWatcher] = []
        self.down: Exception | None = None

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        if self.down is not None:
            raise self.down
        return {key: item for key, item in self.items.items() if not request.keys or key in request.keys}

    async def watch(self, request: WatchRequest) -> Watcher:
        if self.down is not None:
            raise self.down
        self.watchers.append(FakeWatcher(self))
        return self.watchers[-1]

    def put(self, key: str, value: str | None, version: str = "") -> None:
        if value is None:
            del self.items[key]
        else:
            self.items[key] = ConfigurationItem(value, version)
        self.wake()

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.event.set()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
async def store(fake: Fake) -> AsyncIterator[ConfigurationStore]:
    async with ConfigurationStore(fake) as made:
        yield made


# get


async def test_duplicate_keys_give_one_item_and_unknown_ones_none(store: ConfigurationStore, fake: Fake) -> None:
    fake.put("a", "1", "v1")
    assert await store.get(["a", "a", "x"]) == {"a": ConfigurationItem("1", "v1")}
    assert await store.get(iter(["x"])) == {}


@pytest.mark.parametrize("keys", ["a", [""], ["a\0"], [5], ["\ud800"]])
async def test_keys_that_are_not_a_collection_of_usable_texts_are_refused(store: ConfigurationStore, keys: Any) -> None:
    for call in (store.get(keys), store.subscribe(keys, print)):
        with pytest.raises(InvalidArgumentError):
            await call


# subscribe


async def test_only_named_keys_are_delivered_and_no_names_mean_all(store: ConfigurationStore, fake: Fake) -> None:
    fake.put("a", "0")
    some, every = Inbox(), Inbox()
    await store.subscribe(["a"], some)
    subscription = await store.subscribe([], every)
    fake.put("a", "1")
    fake.put("later", "2")
    await every.holds(a="1", later="2")
    await some.holds(a="1")
    assert some.state == {"a": "1"}
    assert {event.id for event in every.events} == {subscription}


async def test_nothing_is_delivered_before_a_change_unless_asked_for(store: ConfigurationStore, fake: Fake) -> None:
    fake.put("a", "0")
    silent, eager = Inbox(), Inbox()
    await store.subscribe([], silent)
    await store.subscribe([], eager, initial=True)
    await eager.holds(a="0")
    fake.put("b", "1")
    await silent.holds(b="1")
    await eager.holds(b="1")
    assert silent.state == {"b": "1"}
    assert [set(event.items) for event in eager.events] == [{"a"}, {"b"}]


async def test_waking_up_without_a_change_delivers_nothing(store: ConfigurationStore, fake: Fake) -> None:
    inbox = Inbox()
    await store.subscribe([], inbox)
    for _ in range(3):
        fake.wake()
        await asyncio.sleep(0)
    fake.put("a", "1")
    await inbox.holds(a="1")
    assert len(inbox.events) == 1


async def test_an_empty_value_is_not_a_deletion(store: ConfigurationStore, fake: Fake) -> None:
    fake.put("a", "1")
    inbox = Inbox()
    await store.subscribe(["a"], inbox)
    fake.put("a", "")
    await inbox.holds(a="")
    fake.put("a", None)
    await inbox.holds(a=None)
    assert inbox.events[-1].items["a"] == ConfigurationItem("", deleted=True)


async def test_a_new_version_alone_is_a_change(store: ConfigurationStore, fake: Fake) -> None:
    fake.put("a", "1", "v1")
    inbox = Inbox()
    await store.subscribe(["a"], inbox)
    fake.put("a", "1", "v2")
    await until(lambda: inbox.events)
    assert inbox.events[0].items["a"].version == "v2"


async def test_rapid_changes_end_with_the_last_and_never_go_back(store: ConfigurationStore, fake: Fake) -> None:
    inbox = Inbox()
    await store.subscribe(["a"], inbox)
    for number in range(100):
        fake.put("a", str(number), str(number))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await inbox.holds(a="99")
    versions = [int(event.items["a"].version) for event in inbox.events]
    assert versions == sorted(versions)
    assert inbox.events[-1].items == await store.get(["a"])


async def test_one_failing_or_hanging_handler_does_not_hold_up_others(store: ConfigurationStore, fake: Fake) -> None:
    inbox, hanging = Inbox(), asyncio.Event()

    async def hang(event: ConfigurationEvent) -> None:
        hanging.set()
        await asyncio.Event().wait()

    calls: list[ConfigurationEvent] = []

    def fail(event: ConfigurationEvent) -> None:
        calls.append(event)
        raise asyncio.CancelledError if len(calls) % 2 else ValueError

    for handler in (hang, fail, inbox):
        await store.subscribe([], handler)
    for count in (1, 2, 3):
        fake.put("a", str(count))
        await inbox.holds(a=str(count))
        await until(lambda: len(calls) == count)  # noqa: B023  # called in this round only
    assert hanging.is_set()


async def test_a_failed_subscribe_leaves_nothing_behind(store: ConfigurationStore, fake: Fake) -> None:
    class Refusing(Fake):
        async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
            raise OperationFailedError("no")

    backend = Refusing()
    async with ConfigurationStore(backend) as refusing:
        with pytest.raises(OperationFailedError):
            await refusing.subscribe([], print)
        assert [watcher.closed for watcher in backend.watchers] == [True]


async def test_without_the_capability_subscribe_is_refused(store: ConfigurationStore, fake: Fake) -> None:
    await asyncio.to_thread(default_registry().with_capability, Kind.CONFIGURATION, Capability.WATCH)
    fake.withdraw(Capability.WATCH, "a test said so")
    with pytest.raises(UnsupportedError, match="WATCH"):
        await store.subscribe([], print)


# outage


@pytest.mark.parametrize("error", [UnavailableError("away"), RuntimeError("a canary of the SDK")])
async def test_after_an_outage_the_latest_state_arrives_once(
    store: ConfigurationStore,
    fake: Fake,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(subscription_module, "LONGEST_PAUSE", 0.05)
    for key, value in (("same", "0"), ("a", "0"), ("gone", "0")):
        fake.put(key, value)
    inbox = Inbox()
    await store.subscribe([], inbox)
    fake.down = error
    fake.wake()

    await until(lambda: store._open_health().state is HealthState.RECONNECTING)
    assert "canary" not in caplog.text
    fake.put("a", "1")
    fake.put("a", "2")
    fake.put("gone", None)
    fake.down = None
    await inbox.holds(a="2", gone=None)
    assert len(inbox.events) == 1
    assert set(inbox.events[0].items) == {"a", "gone"}
    await until(lambda: store._open_health().state is HealthState.READY)
    assert [watcher.closed for watcher in fake.watchers[:-1]] == [True] * (len(fake.watchers) - 1)


async def test_an_outage_right_at_the_start_does_not_lose_the_initial_state(
    store: ConfigurationStore, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "LONGEST_PAUSE", 0.05)
    fake.put("a", "1")
    inbox = Inbox()
    await store.subscribe([], inbox, initial=True)
    fake.down = UnavailableError("away")
    await until(lambda: store._open_health().state is HealthState.RECONNECTING)
    fake.down = None
    await inbox.holds(a="1")


# unsubscribe and close


async def test_unsubscribe_ends_one_subscription_only(store: ConfigurationStore, fake: Fake) -> None:
    ended, going = Inbox(), Inbox()
    subscription = await store.subscribe([], ended)
    await store.subscribe([], going)
    await store.unsubscribe(subscription)
    fake.put("a", "1")
    await going.holds(a="1")
    assert ended.events == []
    assert [watcher.closed for watcher in fake.watchers] == [True, False]


async def test_an_unknown_or_ended_id_is_not_found(store: ConfigurationStore) -> None:
    subscription = await store.subscribe([], print)
    await store.unsubscribe(subscription)
    for unknown in (subscription, "never was one"):
        with pytest.raises(NotFoundError):
            await store.unsubscribe(unknown)


async def test_unsubscribe_waits_for_the_event_in_flight(store: ConfigurationStore, fake: Fake) -> None:
    begun, finished = asyncio.Event(), []

    async def handler(event: ConfigurationEvent) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        finished.append(event)

    subscription = await store.subscribe([], handler)
    fake.put("a", "1")
    await begun.wait()
    await store.unsubscribe(subscription)
    assert len(finished) == 1
    fake.put("a", "2")
    await asyncio.sleep(0.05)
    assert len(finished) == 1


async def test_a_handler_can_unsubscribe_itself(store: ConfigurationStore, fake: Fake) -> None:
    calls: list[ConfigurationEvent] = []

    async def handler(event: ConfigurationEvent) -> None:
        calls.append(event)
        await store.unsubscribe(event.id)

    other = Inbox()
    await store.subscribe([], handler)
    await store.subscribe([], other)
    for value in "12":
        fake.put("a", value)
        await other.holds(a=value)
    assert len(calls) == 1
    await until(lambda: fake.watchers[0].closed)


async def test_a_handler_that_hangs_is_cancelled_in_the_end(
    store: ConfigurationStore, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "STOP_SECONDS", 0.05)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(event: ConfigurationEvent) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    subscription = await store.subscribe([], handler)
    fake.put("a", "1")
    await begun.wait()
    await store.unsubscribe(subscription)
    assert cancelled.is_set()


async def test_close_ends_all_subscriptions_and_later_calls_raise(store: ConfigurationStore, fake: Fake) -> None:
    inbox = Inbox()
    for _ in range(3):
        await store.subscribe([], inbox)
    await store.aclose()
    assert all(watcher.closed for watcher in fake.watchers)
    fake.put("a", "1")
    assert inbox.events == []
    for call in (store.get(), store.subscribe([], inbox)):
        with pytest.raises(ClosedError):
            await call


async def test_a_cancelled_unsubscribe_leaves_no_watcher_open(fake: Fake) -> None:
    async with ConfigurationStore(fake) as store:

        async def end_at_once() -> None:
            # The task of the subscription has not taken its first step by then.
            await store.unsubscribe(await store.subscribe([], Inbox()))

        ending = asyncio.create_task(end_at_once())
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.wait([ending])
        assert [watcher.closed for watcher in fake.watchers] == [True]
