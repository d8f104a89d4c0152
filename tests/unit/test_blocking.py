"""The synchronous facade: every kind does its work without `await`, under the names of the asynchronous classes."""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import json
import os
import queue
import threading
import time
import typing
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import lapel
from lapel import bindings, blocking, configuration, crypto, lock, opening, pubsub, secretstores, state
from lapel.errors import (
    DecryptionError,
    EtagMismatchError,
    InvalidArgumentError,
    LockLostError,
    NotFoundError,
    UnsupportedError,
)
from lapel_contrib.memory.lock import MemoryLock

USER: ContextVar[str] = ContextVar("user", default="nobody")


def write_component(folder: Path, name: str, type: str, **fields: object) -> None:
    metadata = [{"name": field, "value": str(value)} for field, value in fields.items()]
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"type": type, "version": "v1", "metadata": metadata},
    }
    folder.joinpath(f"{name}.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """Component files of all kinds."""
    folder, keys = tmp_path / "resources", tmp_path / "keys"
    folder.mkdir()
    keys.mkdir(mode=0o700)
    for name, content in {
        "aes": base64.b64encode(os.urandom(32)),
        "ed.pem": ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }.items():
        (keys / name).touch(mode=0o600)
        (keys / name).write_bytes(content)
    (tmp_path / "secrets.json").write_text(json.dumps({"db": {"password": "s3"}}))
    (tmp_path / "settings.yaml").write_text("theme: light\n")
    write_component(folder, "memory", "state.in-memory")
    write_component(folder, "sqlite", "state.sqlite", connectionString=tmp_path / "state.db")
    write_component(folder, "bus", "pubsub.in-memory")
    write_component(folder, "queue", "pubsub.sqlite", connectionString=tmp_path / "bus.db")
    write_component(folder, "files", "bindings.localstorage", rootPath=tmp_path / "files")
    write_component(folder, "clock", "bindings.cron", schedule="@every 1s")
    write_component(folder, "secrets", "secretstores.local.file", secretsFile=tmp_path / "secrets.json")
    write_component(folder, "settings", "configuration.local.file", path=tmp_path / "settings.yaml")
    write_component(folder, "locks", "lock.in-memory")
    write_component(folder, "keys", "crypto.dapr.localstorage", path=keys)
    return folder


@pytest.fixture
def components(resources: Path) -> Iterator[blocking.Components]:
    with blocking.open_components(resources) as opened:
        yield opened


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# the same names

PAIRS: list[tuple[type[Any], type[Any]]] = [
    (lapel.Component, blocking.Component),
    (lapel.Components, blocking.Components),
    (state.StateStore, blocking.StateStore),
    (pubsub.PubSub, blocking.PubSub),
    (pubsub.Subscription, blocking.Subscription),
    (bindings.OutputBinding, blocking.OutputBinding),
    (bindings.InputBinding, blocking.InputBinding),
    (bindings.Reading, blocking.Reading),
    (bindings.BindingResponse, blocking.BindingResponse),
    (secretstores.SecretStore, blocking.SecretStore),
    (configuration.ConfigurationStore, blocking.ConfigurationStore),
    (lock.LockStore, blocking.LockStore),
    (crypto.CryptoProvider, blocking.CryptoProvider),
    (crypto.SubtleCrypto, blocking.SubtleCrypto),
]
RENAMED = {"aclose": "close"}
ABSENT = {"driver", "open", "open_or_keep_trying"}
"""The driver is asynchronous; opening is done by `open_*`."""


def public(cls: type[Any]) -> dict[str, Any]:
    names = {"__contains__", "__iter__", "__len__"}
    return {
        RENAMED.get(name, name): inspect.getattr_static(cls, name)
        for name in dir(cls)
        if name not in ABSENT and (not name.startswith("_") or (name in names and name in dir(lapel.Components)))
    }


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS, ids=lambda cls: cls.__qualname__)
def test_names_and_signatures_are_those_of_the_asynchronous_class(
    asynchronous: type[Any], synchronous: type[Any]
) -> None:
    expected, found = public(asynchronous), public(synchronous)
    assert set(expected) <= set(found)
    assert set(found) - set(expected) <= {"app_id", "namespace", "group", "name", "options", "subtle", "topic"}
    for name, member in expected.items():
        if not callable(member):
            continue
        assert parameters(found[name]) == parameters(member), name
        assert not inspect.iscoroutinefunction(found[name])
        assert found[name].__doc__ or name.startswith("__")
        # A facade made with `ParamSpec` would lose them.
        assert not typing.get_overloads(member)


def test_every_way_to_open_exists_with_the_same_parameters() -> None:
    for name in [*opening.__all__, "open_components"]:
        if name != "Opening":
            assert parameters(getattr(blocking, name)) == parameters(getattr(lapel, name))


# components


def test_components_are_found_by_name_and_listed_as_their_kind(components: blocking.Components) -> None:
    kinds = {component.name: type(component) for component in components}
    assert kinds == {
        "memory": blocking.StateStore,
        "sqlite": blocking.StateStore,
        "bus": blocking.PubSub,
        "queue": blocking.PubSub,
        "files": blocking.OutputBinding,
        "clock": blocking.InputBinding,
        "secrets": blocking.SecretStore,
        "settings": blocking.ConfigurationStore,
        "locks": blocking.LockStore,
        "keys": blocking.CryptoProvider,
    }
    assert len(components) == len(components.manifests) == 10
    assert "memory" in components
    assert components.failures == {}
    assert components.app_id is None
    assert all(health.ok for health in components.health().values())
    assert components.state("memory") == components.state("memory") != components.state("sqlite")
    with pytest.raises(NotFoundError, match="there is no component 'x'"):
        components.state("x")


def test_components_can_be_added_replaced_and_removed(components: blocking.Components) -> None:
    components.add(lapel.Manifest.of("more", "state.in-memory"))
    components.state("more").set("k", 1)
    components.replace(lapel.Manifest.of("more", "state.in-memory"))
    assert components.state("more").get("k") is None
    components.load(lapel.Manifest.of(name, "state.in-memory") for name in ("m1", "m2"))
    components.remove("more")
    assert "more" not in components
    assert "m2" in components


def test_a_component_tells_what_it_is(components: blocking.Components) -> None:
    store = components.state("sqlite")
    assert (store.name, store.type) == ("sqlite", "state.sqlite")
    assert lapel.Capability.ETAG in store.capabilities
    assert store.descriptor.name == "sqlite"
    assert store.withdrawn == {}
    assert store.limits.key_bytes is None or store.limits.key_bytes > 0
    assert store.health().ok
    with pytest.raises(LookupError):
        store.unwrap(dict)


# state


@pytest.mark.parametrize("name", ["memory", "sqlite"])
def test_state_is_kept(components: blocking.Components, name: str) -> None:
    store = components.state(name)
    etag = store.set("a", {"n": 1})
    item = store.get("a")
    assert item is not None
    assert (item.json(), item.etag) == ({"n": 1}, etag)
    with pytest.raises(EtagMismatchError):
        store.set("a", 2, etag="0-other")
    assert [outcome.error for outcome in store.bulk_set([lapel.SetOperation("b", b"2")])] == [None]
    assert [outcome.item is not None for outcome in store.bulk_get(["a", "b", "c"])] == [True, True, False]
    # Made in this thread, so that it may use the store.
    made = (lapel.SetOperation(key, 0) for key in ("x", "y") if store.get(key) is None)
    assert len(store.transaction(made)) == 2
    assert store.keys("_").keys == ["a", "b", "x", "y"]
    store.delete("a")
    store.bulk_delete(["b", "x"])
    assert store.keys().keys == ["y"]


def test_an_update_runs_in_the_calling_thread_and_may_use_the_store(components: blocking.Components) -> None:
    store = components.state("memory")
    threads = []

    def change(item: lapel.StateItem | None) -> int:
        threads.append(threading.current_thread())
        if len(threads) == 1:
            store.set("n", 10)  # somebody else is faster
        return 1 if item is None else int(item.json()) + 1

    assert store.update("n", change) == 11
    assert threads == [threading.current_thread()] * 2


def test_what_a_change_raises_reaches_the_caller(components: blocking.Components) -> None:
    store = components.state("memory")

    def change(item: object) -> None:
        raise KeyError("mine")

    async def coroutine(item: object) -> None: ...

    with pytest.raises(KeyError, match="mine"):
        store.update("n", change)
    with pytest.raises(RuntimeError, match="StopIteration"):
        store.update("n", lambda item: next(iter(())))
    with pytest.raises(InvalidArgumentError, match="plain functions"):
        store.update("n", coroutine)
    assert store.get("n") is None


def test_many_threads_update_one_key_without_losing_any(components: blocking.Components) -> None:
    store = components.state("sqlite")
    store.set("n", 0)

    def add(_: int) -> None:
        store.update("n", lambda item: (item.json() if item else 0) + 1, tries=1000)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, range(64)))
    item = store.get("n")
    assert item is not None
    assert item.json() == 64


# publish and subscribe


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


# bindings


class File(io.BytesIO):
    """A file that is not to be read line by line."""

    def __next__(self) -> bytes:
        raise AssertionError


def test_a_binding_takes_and_gives_values_and_streams(components: blocking.Components, tmp_path: Path) -> None:
    files, name = components.output_binding("files"), {"fileName": "a.bin"}
    assert "create" in files.operations
    data, maker = os.urandom(600_000), []

    def chunks() -> Iterator[bytes]:
        maker.append(threading.current_thread())
        yield data[:7]
        yield data[7:]

    files.invoke("create", chunks(), metadata=name)
    assert maker == [threading.current_thread()]
    assert (tmp_path / "files/a.bin").read_bytes() == data
    assert files.invoke("get", metadata=name).read() == data
    with File(data * 2) as file:
        files.invoke("create", file, metadata=name)
    answer = files.invoke("get", metadata=name, stream=True)
    assert isinstance(answer.data, blocking.Stream)
    with answer.data as stream:
        assert len(next(stream)) < len(data)
    assert list(stream) == []
    answer.close()
    assert files.invoke("get", metadata=name, stream=True).read() == data * 2
    assert files.invoke("create", [1, 2], metadata=name).content_type == "application/json"
    assert files.invoke("get", metadata=name).data == b"[1,2]"


def test_what_a_source_of_chunks_raises_reaches_the_caller(components: blocking.Components) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    files = components.output_binding("files")
    with pytest.raises(KeyError, match="mine"):
        files.invoke("create", chunks(), metadata={"fileName": "a"})
    with pytest.raises(InvalidArgumentError, match="must be bytes"):
        files.invoke("create", iter([1]), metadata={"fileName": "a"})
    with pytest.raises(NotFoundError):
        files.invoke("get", metadata={"fileName": "a"})


def test_events_of_an_input_binding_reach_a_handler_that_blocks(components: blocking.Components) -> None:
    clock, events = components.input_binding("clock"), queue.SimpleQueue[lapel.BindingEvent]()
    with clock.read(events.put) as reading:
        assert "readTimeUTC" in events.get(timeout=20).metadata
        assert reading.health().ok
        reading.pause()
        reading.resume()
    assert reading.health().state is lapel.HealthState.CLOSED


def test_a_handler_may_reply_with_a_response(components: blocking.Components) -> None:
    clock, replies = components.input_binding("clock"), queue.SimpleQueue[object]()

    class Source:
        async def read(self, handler: Callable[[Any], Awaitable[Any]], **options: object) -> None:
            replies.put(await handler(lapel.BindingEvent(data=b"x")))

    source: Any = Source()
    binding = blocking.InputBinding(source, clock._runner)
    binding.read(lambda event: blocking.BindingResponse(event.data * 2, {"a": "b"}, "text/plain"))
    binding.read(lambda event: {"plain": 1})
    assert replies.get() == lapel.BindingResponse(b"xx", {"a": "b"}, "text/plain")
    assert replies.get() == {"plain": 1}


# secrets, configuration


def test_secrets_are_read(components: blocking.Components) -> None:
    store = components.secret_store("secrets")
    assert store.get("db:password")["db:password"] == "s3"
    assert list(store.bulk_get()) == ["db:password"]
    with pytest.raises(NotFoundError):
        store.get("other")


def test_configuration_is_read_and_watched_until_a_handler_ends_it(
    components: blocking.Components, tmp_path: Path
) -> None:
    store, events = components.configuration("settings"), queue.SimpleQueue[str]()
    assert store.get(key for key in ["theme"])["theme"].value == "light"

    def handle(event: lapel.ConfigurationEvent) -> None:
        if event.items["theme"].value == "dark":
            store.unsubscribe(event.id)
        events.put(event.items["theme"].value)

    store.subscribe(["theme"], handle, initial=True)
    assert events.get(timeout=20) == "light"
    (tmp_path / "settings.yaml").write_text("theme: dark\n")
    assert events.get(timeout=20) == "dark"
    assert store.health().details["subscriptions"] == 0


# locks


def test_a_lock_excludes_others(components: blocking.Components) -> None:
    store = components.lock("locks")
    assert store.try_lock("r", "a", 30)
    assert not store.try_lock("r", "b", 30)
    assert store.renew("r", "a", 30)
    assert store.unlock("r", "a") is lapel.UnlockStatus.SUCCESS
    with store.hold("r") as held:
        assert not held.lost
        assert not store.try_lock("r", "b", 30)
        with pytest.raises(TimeoutError), store.hold("r", wait=0.01):
            pass
    with pytest.raises(KeyError), store.hold("r"):
        raise KeyError
    assert store.try_lock("r", "b", 30)


@pytest.mark.parametrize("own", [None, KeyError("mine")])
def test_a_lost_lock_is_seen_inside_the_block_and_raised_after_it(
    components: blocking.Components, monkeypatch: pytest.MonkeyPatch, own: Exception | None
) -> None:
    async def not_renewed(self: MemoryLock, request: object) -> bool:
        return False

    monkeypatch.setattr(MemoryLock, "renew", not_renewed)
    store = components.lock("locks")

    @contextmanager
    def block() -> Iterator[None]:
        with store.hold("r", expiry=1) as held:
            until(lambda: held.lost)
            yield

    with pytest.raises(LockLostError if own is None else KeyError), block():
        if own is not None:
            raise own


# cryptography


def test_documents_are_encrypted_in_memory_and_as_streams(components: blocking.Components) -> None:
    provider, data = components.crypto("keys"), os.urandom(200_000)
    assert provider.decrypt(provider.encrypt(data, key_name="aes")) == data
    closed, maker = [], []

    def chunks() -> Iterator[bytes]:
        maker.append(threading.current_thread())
        try:
            yield data[:100_000]
            yield data[100_000:]
        finally:
            closed.append(True)

    document = b"".join(provider.encrypt_stream(chunks(), key_name="aes"))
    assert b"".join(provider.decrypt_stream(io.BytesIO(document))) == data
    assert maker == [threading.current_thread()]
    with provider.encrypt_stream(chunks(), key_name="aes") as stream:
        next(stream), next(stream)
    assert closed == [True, True]
    with pytest.raises(DecryptionError):
        b"".join(provider.decrypt_stream([document[:-1]]))
    with pytest.raises(UnsupportedError):
        provider.encrypt_stream([], key_name="aes", algorithm="none")
    with pytest.raises(InvalidArgumentError, match="single value"):
        next(provider.encrypt_stream(b"data", key_name="aes"))  # type: ignore[arg-type]  # bytes are no stream of bytes


def test_single_operations_on_keys(components: blocking.Components) -> None:
    subtle, digest = components.crypto("keys").subtle, hashlib.sha256(b"x").digest()
    sealed = subtle.encrypt(b"x", algorithm="A256GCM", key_name="aes", associated_data=b"ad")
    given: dict[str, Any] = {"algorithm": "A256GCM", "key_name": "aes", "associated_data": b"ad"}
    assert subtle.decrypt(sealed.data, tag=sealed.tag, nonce=sealed.nonce, **given) == b"x"
    signature = subtle.sign(digest, algorithm="EdDSA", key_name="ed.pem")
    assert subtle.verify(digest, signature, algorithm="EdDSA", key_name="ed.pem")
    assert isinstance(subtle.get_key("ed.pem"), crypto.PublicKey)
