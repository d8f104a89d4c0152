"""All seven building blocks at work, on drivers that need no server.

Run it with `make demo`, or with `python examples/quickstart/main.py` where lapel is installed. Everything it writes is
in the folder `data` beside this file, made anew by each run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import lapel

HERE = Path(__file__).parent
DATA = HERE / "data"


def prepare() -> None:
    """Make what an operator would: a secrets file, a settings file and a key."""
    shutil.rmtree(DATA, ignore_errors=True)
    (DATA / "keys").mkdir(parents=True)
    (DATA / "secrets.json").write_text(
        json.dumps({"database": "data/quickstart.db", "api-key": secrets.token_urlsafe(16)})
    )
    (DATA / "settings.yaml").write_text("greeting: hello\n")
    key = DATA / "keys" / "documents"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(32))


async def state(components: lapel.Components) -> list[str]:
    """Save, read, provoke a conflict, and write two keys as one."""
    store = components.state("statestore")
    first = await store.set("order-1", {"status": "new"})
    await store.set("order-1", {"status": "paid"})
    item = await store.get("order-1")
    assert item is not None
    lines = [f"saved and read back order-1: {item.json()}"]
    try:
        await store.set("order-1", {"status": "cancelled"}, etag=first)
    except lapel.EtagMismatchError:
        lines.append("a write with the etag of an older version was refused")
    await store.transaction(
        [lapel.SetOperation("stock-1", 9), lapel.SetOperation("order-2", {"status": "new"}, ttl=3600)]
    )
    page = await store.keys("order-%")
    return [*lines, f"a transaction wrote two keys; orders now: {', '.join(page.keys)}"]


async def pubsub(components: lapel.Components) -> list[str]:
    """Publish an event and receive it, failing once on the way."""
    orders = components.pubsub("orders")
    received: asyncio.Future[lapel.Message] = asyncio.get_running_loop().create_future()

    async def on_order(message: lapel.Message) -> lapel.Outcome:
        if message.attempt == 1:
            return lapel.Outcome.RETRY
        received.set_result(message)
        return lapel.Outcome.SUCCESS

    async with await orders.subscribe("new-orders", on_order, backoff=lapel.Backoff(initial=0.05)):
        await orders.publish("new-orders", {"id": 1}, content_type="application/json")
        message = await asyncio.wait_for(received, 10)
    return [
        f"published and received {message.json()}, of type {message.event.type}",
        f"the handler asked for a retry: delivered on attempt {message.attempt}",
    ]


async def binding(components: lapel.Components) -> list[str]:
    """Write a file through an output binding and list the folder."""
    files = components.output_binding("files")
    await files.invoke("create", b"total: 42\n", metadata={"fileName": "invoices/1.txt"})
    content = await (await files.invoke("get", metadata={"fileName": "invoices/1.txt"})).read()
    return [f"wrote and read invoices/1.txt: {content.decode().strip()!r}"]


async def secret(components: lapel.Components) -> list[str]:
    """Read a secret without showing it."""
    values = await components.secret_store("secrets").get("api-key")
    return [f"read a secret of {len(values.value)} characters; printed it is {values!r}"]


async def configuration(components: lapel.Components) -> list[str]:
    """Notice that an operator changed a setting."""
    store = components.configuration("settings")
    changed: asyncio.Future[lapel.ConfigurationEvent] = asyncio.get_running_loop().create_future()
    before = (await store.get(["greeting"]))["greeting"].value
    subscription = await store.subscribe(["greeting"], changed.set_result)
    (DATA / "settings.yaml").write_text("greeting: good evening\n")
    event = await asyncio.wait_for(changed, 10)
    await store.unsubscribe(subscription)
    return [f"greeting changed from {before!r} to {event.items['greeting'].value!r} while running"]


async def lock(components: lapel.Components) -> list[str]:
    """Hold a lock; a second owner is refused."""
    locks = components.lock("locks")
    async with locks.hold("nightly-report") as held:
        second = await locks.try_lock("nightly-report", "another worker", 5)
        return [f"held with fencing token {held.token}; a second owner got it: {bool(second)}"]


async def crypto(components: lapel.Components) -> list[str]:
    """Encrypt and decrypt a document."""
    vault = components.crypto("vault")
    document = await vault.encrypt(b"the contract", key_name="documents", algorithm="A256KW")
    plain = await vault.decrypt(document)
    return [f"12 bytes became a document of {len(document)} ({document[:14].decode()}), and {plain.decode()!r} again"]


BLOCKS = {
    "state": state,
    "publish/subscribe": pubsub,
    "bindings": binding,
    "secrets": secret,
    "configuration": configuration,
    "locks": lock,
    "cryptography": crypto,
}


async def main() -> int:
    """Open the components, let every block do its work, and print what it did."""
    os.chdir(HERE)
    prepare()
    # The handler below asks for a retry on purpose, which is logged as a warning.
    logging.getLogger("lapel").setLevel(logging.ERROR)
    table = Table("building block", "component", "what it did", show_lines=True)
    async with lapel.open_components("resources", app_id="quickstart") as components:
        types = {component.descriptor.kind.value: component.type for component in components}
        kinds = dict(zip(BLOCKS, (kind.value for kind in lapel.Kind), strict=True))
        for block, work in BLOCKS.items():
            table.add_row(block, types[kinds[block]], "\n".join(await work(components)))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
