"""Every embedded component on real files, and every call that an application can make on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lapel.building import build
from lapel.component import Component, ComponentOptions
from lapel.manifest import Manifest
from lapel.registry import default_registry
from lapel.state import DeleteOperation, SetOperation

CANARY = "canary-2f9a77"
"""Secrets and keys hold this text; no error may show it."""

Calls = Mapping[str, Callable[[], Awaitable[object]]]


@dataclass(frozen=True)
class Embedded:
    """One component: how to build it below a folder, and its calls by the name of the method."""

    type: str
    fields: Mapping[str, str]
    calls: Callable[[Any], Calls]
    side: str = "output"

    async def made(self, folder: Path, app_id: str | None = None, **fields: str) -> Any:
        """Return `build` from a running event loop, which building would hold up."""
        return await asyncio.to_thread(self.build, folder, app_id, **fields)

    def build(self, folder: Path, app_id: str | None = None, **fields: str) -> Component[Any]:
        """Return the component, not open. `{}` in a field stands for the folder."""
        values = {name: text.format(folder) for name, text in self.fields.items()} | fields
        options = ComponentOptions(app_id=app_id)
        return build(Manifest.of("thing", self.type), options, default_registry(), values=values)[self.side]


def prepare(folder: Path) -> Path:
    """Make the files that the components read, and return the folder."""
    (folder / "keys").mkdir(mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, content in {
        "keys/key": CANARY.encode().ljust(32, b"."),
        "keys/signing.pem": pem,
        "secrets.json": json.dumps({"name": CANARY}).encode(),
    }.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    (folder / "settings.yaml").write_text("greeting: hello\n")
    return folder


def state_calls(store: Any) -> Calls:
    return {
        "get": lambda: store.get("key"),
        "set": lambda: store.set("key", "value"),
        "delete": lambda: store.delete("key"),
        "update": lambda: store.update("key", lambda _: "value"),
        "bulk_get": lambda: store.bulk_get(["key", "other"]),
        "bulk_set": lambda: store.bulk_set([SetOperation("key", "value")]),
        "bulk_delete": lambda: store.bulk_delete(["key"]),
        "transaction": lambda: store.transaction([SetOperation("key", "value"), DeleteOperation("other")]),
        "keys": store.keys,
        "delete_with_prefix": lambda: store.delete_with_prefix("key"),
        "query": lambda: store.query({"filter": {"EQ": {"a": 1}}}),
    }


async def ignore(_: object) -> None:
    """Handle an event by doing nothing."""


def pubsub_calls(broker: Any) -> Calls:
    async def subscribe() -> None:
        await (await broker.subscribe("topic", ignore)).aclose()

    async def bulk_subscribe() -> None:
        await (await broker.bulk_subscribe("topic", ignore)).aclose()

    return {
        "publish": lambda: broker.publish("topic", {"id": 1}),
        "bulk_publish": lambda: broker.bulk_publish("topic", [1, 2]),
        "subscribe": subscribe,
        "bulk_subscribe": bulk_subscribe,
    }


def storage_calls(binding: Any) -> Calls:
    return {"invoke": lambda: binding.invoke("create", b"data", metadata={"fileName": "file"})}


def http_calls(binding: Any) -> Calls:
    return {"invoke": lambda: binding.invoke("get")}


def cron_calls(binding: Any) -> Calls:
    async def read() -> None:
        await (await binding.read(ignore)).aclose()

    return {"read": read}


def secret_calls(store: Any) -> Calls:
    return {"get": lambda: store.get("name"), "bulk_get": store.bulk_get}


def configuration_calls(store: Any) -> Calls:
    async def subscribe() -> None:
        await store.unsubscribe(await store.subscribe([], ignore))

    return {"get": lambda: store.get(["greeting"]), "subscribe": subscribe}


def lock_calls(store: Any) -> Calls:
    async def hold() -> None:
        async with store.hold("held", expiry=1, wait=20):
            pass

    return {
        "try_lock": lambda: store.try_lock("resource", "owner", 1),
        "unlock": lambda: store.unlock("resource", "owner"),
        "renew": lambda: store.renew("resource", "owner", 1),
        "hold": hold,
    }


def crypto_calls(provider: Any) -> Calls:
    subtle = provider.subtle
    key = {"algorithm": "A256GCM", "key_name": "key"}
    signing = {"algorithm": "EdDSA", "key_name": "signing.pem"}

    async def pieces() -> AsyncIterator[bytes]:
        yield b"text"

    async def encrypt_stream() -> list[bytes]:
        return [piece async for piece in provider.encrypt_stream(pieces(), key_name="key")]

    async def decrypt() -> bytes:
        return bytes(await provider.decrypt(await provider.encrypt(b"text", key_name="key")))

    async def decrypt_stream() -> list[bytes]:
        sealed = provider.encrypt_stream(pieces(), key_name="key")
        return [piece async for piece in provider.decrypt_stream(sealed)]

    async def verify() -> bool:
        return bool(await subtle.verify(b"text", b"s" * 64, **signing))

    async def subtle_decrypt() -> bytes:
        sealed = await subtle.encrypt(b"text", **key)
        return bytes(await subtle.decrypt(sealed.data, nonce=sealed.nonce, tag=sealed.tag, **key))

    async def unwrap_key() -> bytes:
        sealed = await subtle.wrap_key(b"k" * 32, **key)
        return bytes(await subtle.unwrap_key(sealed.data, nonce=sealed.nonce, tag=sealed.tag, **key))

    return {
        "encrypt": lambda: provider.encrypt(b"text", key_name="key"),
        "decrypt": decrypt,
        "encrypt_stream": encrypt_stream,
        "decrypt_stream": decrypt_stream,
        "subtle.get_key": lambda: subtle.get_key("signing.pem"),
        "subtle.encrypt": lambda: subtle.encrypt(b"text", **key),
        "subtle.decrypt": subtle_decrypt,
        "subtle.wrap_key": lambda: subtle.wrap_key(b"k" * 32, **key),
        "subtle.unwrap_key": unwrap_key,
        "subtle.sign": lambda: subtle.sign(b"text", **signing),
        "subtle.verify": verify,
    }


EMBEDDED = [
    Embedded("state.in-memory", {}, state_calls),
    Embedded("state.sqlite", {"connectionString": "{}/state.db"}, state_calls),
    Embedded("pubsub.in-memory", {}, pubsub_calls),
    Embedded("pubsub.sqlite", {"connectionString": "{}/messages.db"}, pubsub_calls),
    Embedded("bindings.localstorage", {"rootPath": "{}/files"}, storage_calls),
    Embedded("bindings.cron", {"schedule": "@every 1h"}, cron_calls, side="input"),
    Embedded("bindings.http", {"url": "http://127.0.0.1:9"}, http_calls),
    Embedded("secretstores.local.env", {}, secret_calls),
    Embedded("secretstores.local.file", {"secretsFile": "{}/secrets.json"}, secret_calls),
    Embedded("configuration.local.file", {"path": "{}/settings.yaml"}, configuration_calls),
    Embedded("configuration.sqlite", {"connectionString": "{}/settings.db"}, configuration_calls),
    Embedded("lock.in-memory", {}, lock_calls),
    Embedded("lock.sqlite", {"connectionString": "{}/locks.db"}, lock_calls),
    Embedded("crypto.dapr.localstorage", {"path": "{}/keys"}, crypto_calls),
]
BY_TYPE = {embedded.type: embedded for embedded in EMBEDDED}
