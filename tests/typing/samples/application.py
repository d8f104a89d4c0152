"""A program as a user writes it. A type checker reads it; nobody runs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

import lapel
from lapel import blocking


@dataclass
class Order:
    """A value that is kept as JSON."""

    status: str
    total: int


async def everything_from_files() -> None:
    async with lapel.open_components("resources/", app_id="shop") as components:
        assert_type(components, lapel.Components)
        await state(components.state("statestore"))
        await secrets(components.secret_store("secrets"))
        await configuration(components.configuration("settings"))
        await locks(components.lock("locks"))
        await cryptography(components.crypto("keys"))
        await bindings(components.output_binding("files"), components.input_binding("clock"))
        await messages(components.pubsub("orders"))
        assert_type(await components.health(), dict[str, lapel.Health])
        await components.replace(lapel.Manifest.of("statestore", "state.in-memory"))


async def one_component() -> None:
    async with lapel.open_state("sqlite", connection_string="app.db", require=lapel.Capability.ETAG) as store:
        assert_type(store, lapel.StateStore)
    store = await lapel.open_state("in-memory", {"keyPrefix": "none"})
    assert_type(store, lapel.StateStore)
    await store.aclose()
    assert_type(await lapel.open_pubsub("in-memory"), lapel.PubSub)
    assert_type(await lapel.open_output_binding("http", url="http://localhost"), lapel.OutputBinding)
    assert_type(await lapel.open_input_binding("cron", schedule="@daily"), lapel.InputBinding)
    assert_type(await lapel.open_secret_store("local.env"), lapel.SecretStore)
    assert_type(await lapel.open_configuration("local.file", path="app.yaml"), lapel.ConfigurationStore)
    assert_type(await lapel.open_lock("in-memory"), lapel.LockStore)
    assert_type(await lapel.open_crypto("dapr.localstorage", path="keys"), lapel.CryptoProvider)


async def state(store: lapel.StateStore) -> None:
    etag = await store.set("order-1", {"status": "paid"}, ttl=timedelta(hours=1))
    assert_type(etag, str | None)
    item = await store.get("order-1")
    assert_type(item, lapel.StateItem | None)
    if item is not None:
        assert_type(item.data, bytes)
        assert_type(item.text(), str)
        assert_type(item.json(type=Order), Order)
        assert_type(item.json(type=list[int]), list[int])
        assert_type(item.expires_at, datetime | None)
        untyped: Any = item.json()
        print(untyped["status"])
    outcomes = await store.bulk_get(["a", "b"])
    assert_type([outcome.item for outcome in outcomes], list[lapel.StateItem | None])
    etags = await store.transaction([lapel.SetOperation("a", 1), lapel.DeleteOperation("b", etag=etag)])
    assert_type(etags, list[str | None])
    assert_type((await store.keys("order-%")).token, str | None)
    try:
        await store.set("order-1", b"raw", etag="1", concurrency=lapel.Concurrency.FIRST_WRITE)
    except lapel.EtagMismatchError as exc:
        assert_type(exc.component, str | None)
    except (lapel.OutcomeUnknownError, lapel.UnavailableError) as exc:
        assert_type(exc.retryable, bool)


async def secrets(store: lapel.SecretStore) -> None:
    secret = await store.get("database")
    assert_type(secret, lapel.SecretValues)
    assert_type(secret["password"], str)
    assert_type(await store.bulk_get(), dict[str, lapel.SecretValues])


async def configuration(store: lapel.ConfigurationStore) -> None:
    items = await store.get(["theme"])
    assert_type(items, dict[str, lapel.ConfigurationItem])

    async def changed(event: lapel.ConfigurationEvent) -> None:
        print(event.items["theme"].value)

    assert_type(await store.subscribe(["theme"], changed), str)


async def locks(store: lapel.LockStore) -> None:
    grant = await store.try_lock("stock", "worker-1", 30)
    assert_type(grant, lapel.LockGrant)
    assert_type(grant.token, int | None)
    assert_type(await store.unlock("stock", "worker-1"), lapel.UnlockStatus)
    async with store.hold("stock", expiry=timedelta(seconds=10)) as held:
        assert_type(held, lapel.HeldLock)


async def cryptography(provider: lapel.CryptoProvider) -> None:
    assert_type(await provider.encrypt(b"text", key_name="key"), bytes)
    assert_type(await provider.decrypt(b"document"), bytes)
    assert_type(await provider.subtle.verify(b"digest", b"signature", algorithm="ES256", key_name="key"), bool)


async def bindings(output: lapel.OutputBinding, source: lapel.InputBinding) -> None:
    response = await output.invoke("create", b"data", metadata={"fileName": "a.txt"})
    assert_type(response, lapel.BindingResponse)
    assert_type(await response.read(), bytes)

    async def handle(event: lapel.BindingEvent) -> None:
        assert_type(event.data, bytes)

    async with await source.read(handle, concurrency=2):
        pass


async def messages(pubsub: lapel.PubSub) -> None:
    await pubsub.publish("orders", {"id": 1})

    async def handle(message: lapel.Message) -> lapel.Outcome | None:
        assert_type(message.json(type=Order), Order)
        assert_type(message.attempt, int)
        return lapel.Outcome.RETRY if message.attempt < 3 else None

    subscription = await pubsub.subscribe("orders", handle, ordering=lapel.Ordering.KEY)
    assert_type(subscription, lapel.Subscription)
    async with subscription:
        assert_type(subscription.health(), lapel.Health)


def without_a_loop() -> None:
    with blocking.open_components("resources/") as components:
        store = components.state("statestore")
        assert_type(store, blocking.StateStore)
        assert_type(store.set("key", "value"), str | None)
        item = store.get("key")
        assert_type(item, lapel.StateItem | None)
    with blocking.open_lock("in-memory") as locks:
        assert_type(locks.try_lock("stock", "worker-1", 30), lapel.LockGrant)


async def mistakes(components: lapel.Components, store: lapel.StateStore) -> None:
    """Each line is an error that a type checker must find; strict checking reports an ignore that is not needed."""
    await store.get(5)  # type: ignore[arg-type]
    await store.set("key")  # type: ignore[call-arg]
    await store.set("key", "value", ttl="1h")  # type: ignore[arg-type]
    components.state("statestore").publish("orders", b"")  # type: ignore[attr-defined]
    store.limits.key_bytes = 3  # type: ignore[misc]
    lapel.open_stat("sqlite")  # type: ignore[attr-defined]
