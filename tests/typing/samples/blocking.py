"""A synchronous program as a user writes it. A type checker reads it; nobody runs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, assert_type

import lapel
from lapel import blocking


def everything_from_files() -> None:
    with blocking.open_components("resources/", app_id="shop", call_timeout=timedelta(seconds=1)) as components:
        assert_type(components, blocking.Components)
        assert_type(components.pubsub("orders"), blocking.PubSub)
        assert_type(components.secret_store("secrets").get("db"), lapel.SecretValues)
        assert_type(components.configuration("settings").get(["theme"]), dict[str, lapel.ConfigurationItem])
        assert_type(components.health(), dict[str, lapel.Health])
        assert_type([component.name for component in components], list[str])
        components.replace(lapel.Manifest.of("statestore", "state.in-memory"))
    lapel.blocking.open_components(["a.yaml", lapel.Manifest.of("b", "state.in-memory")]).close()


def one_component() -> None:
    with blocking.open_state("sqlite", connection_string="app.db") as store:
        assert_type(store, blocking.StateStore)
    assert_type(blocking.open_pubsub("in-memory"), blocking.PubSub)
    assert_type(blocking.open_output_binding("http", url="http://localhost"), blocking.OutputBinding)
    assert_type(blocking.open_input_binding("cron", schedule="@daily"), blocking.InputBinding)
    assert_type(blocking.open_secret_store("local.env"), blocking.SecretStore)
    assert_type(blocking.open_configuration("local.file", path="app.yaml"), blocking.ConfigurationStore)
    assert_type(blocking.open_lock("in-memory"), blocking.LockStore)
    assert_type(blocking.open_crypto("dapr.localstorage", path="keys"), blocking.CryptoProvider)


def state(store: blocking.StateStore) -> None:
    assert_type(store.set("order-1", {"status": "paid"}, ttl=timedelta(hours=1)), str | None)
    assert_type(store.get(key="order-1", consistency="strong"), lapel.StateItem | None)
    assert_type(store.transaction([lapel.SetOperation("a", 1)]), list[str | None])
    assert_type(store.keys("a%", page_size=10).token, str | None)
    assert_type(store.health(), lapel.Health)

    def change(item: lapel.StateItem | None) -> int:
        return 1 if item is None else item.json(type=int) + 1

    untyped: Any = store.update("n", change)
    print(untyped)


def locks(store: blocking.LockStore) -> None:
    assert_type(store.try_lock("stock", "worker-1", 30), lapel.LockGrant)
    with store.hold("stock", expiry=timedelta(seconds=10)) as held:
        assert_type(held, lapel.HeldLock)


def cryptography(provider: blocking.CryptoProvider) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"text"

    assert_type(provider.encrypt(b"text", key_name="key"), bytes)
    with provider.encrypt_stream(chunks(), key_name="key") as stream:
        assert_type(list(stream), list[bytes])
    assert_type(provider.subtle.verify(b"digest", b"signature", algorithm="ES256", key_name="key"), bool)


def bindings(output: blocking.OutputBinding, source: blocking.InputBinding) -> None:
    response = output.invoke("create", b"data", metadata={"fileName": "a.txt"})
    assert_type(response, blocking.BindingResponse)
    assert_type(response.data, bytes | blocking.Stream | None)
    assert_type(response.read(), bytes)
    with source.read(lambda event: print(event.data), concurrency=2) as reading:
        assert_type(reading, blocking.Reading)


def messages(pubsub: blocking.PubSub) -> None:
    pubsub.publish("orders", {"id": 1}, key="1")

    def handle(message: lapel.Message) -> lapel.Outcome | None:
        return lapel.Outcome.RETRY if message.attempt < 3 else None

    with pubsub.subscribe("orders", handle, ordering=lapel.Ordering.KEY) as subscription:
        assert_type(subscription, blocking.Subscription)
        assert_type(subscription.lag(), int | None)
        assert_type(subscription.health(), lapel.Health)


def mistakes(components: blocking.Components, store: blocking.StateStore, pubsub: blocking.PubSub) -> None:
    """Each line is an error that a type checker must find; strict checking reports an ignore that is not needed."""

    async def handle(message: lapel.Message) -> None: ...

    store.get(5)  # type: ignore[arg-type]
    store.set("key")  # type: ignore[call-arg]
    store.set("key", "value", ttl="1h")  # type: ignore[arg-type]
    store.set("key", "value", lifetime=1)  # type: ignore[call-arg]
    components.state("statestore").publish("orders", b"")  # type: ignore[attr-defined]
    components.load(5)  # type: ignore[arg-type]
    pubsub.subscribe("orders", handle)  # type: ignore[arg-type]
    blocking.open_stat("sqlite")  # type: ignore[attr-defined]
