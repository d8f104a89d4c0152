"""The synchronous facade: every kind does its work without `await`."""

from __future__ import annotations

import hashlib
import io
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.blocking_support import components as components
from tests.unit.blocking_support import resources as resources
from tests.unit.blocking_support import until

import lapel
from lapel import blocking, crypto
from lapel.errors import (
    DecryptionError,
    EtagMismatchError,
    InvalidArgumentError,
    LockLostError,
    NotFoundError,
    UnsupportedError,
)
from lapel_contrib.memory.lock import MemoryLock

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
