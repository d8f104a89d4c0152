"""A publisher or a consumer of numbered messages, as a process of its own; what it did is in its log.

`python kafka_worker.py publish|consume TERMS`, where TERMS is JSON. Ends on SIGTERM, in good order.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from typing import Any, TextIO

import msgspec

from lapel.driver import DriverContext
from lapel.errors import LapelError
from lapel.pubsub import Message, PubSub
from lapel_contrib.kafka.component_settings import KafkaPubSubSettings
from lapel_contrib.kafka.pubsub import KafkaPubSub

FIELDS = {"heartbeatInterval": "500ms", "sessionTimeout": "6s", "initialOffset": "oldest"}


class Terms(msgspec.Struct):
    """What the worker is to do. Times are in seconds."""

    properties: dict[str, str]
    topic: str
    log: str
    keys: int = 20
    pause: float = 0.005
    handling: float = 0.0
    ordering: str = "key"
    fields: dict[str, str] = {}


def write(log: TextIO, **entry: Any) -> None:
    """Add a line; it is in the file at once, whatever becomes of this process. The clock is the same for all."""
    entry["at"] = time.monotonic()
    log.write(json.dumps(entry) + "\n")
    log.flush()


async def publish(bus: PubSub, terms: Terms, log: TextIO, stop: asyncio.Event) -> None:
    """Send the numbers of each key one after another; one whose fate is not known is sent again."""

    async def of_key(key: int) -> None:
        number = 0
        while not stop.is_set():
            tries = 0
            while True:
                tries += 1
                try:
                    await bus.publish(terms.topic, f"{key}:{number}".encode(), key=f"key-{key}", raw=True)
                except LapelError as exc:
                    write(log, failed=f"{key}:{number}", error=type(exc).__name__)
                    await asyncio.sleep(0.1)
                else:
                    break
            write(log, sent=f"{key}:{number}", tries=tries)
            number += 1
            await asyncio.sleep(terms.pause * random.uniform(0.5, 1.5))

    write(log, ready=os.getpid())
    async with asyncio.TaskGroup() as tasks:
        for key in range(terms.keys):
            tasks.create_task(of_key(key))


async def consume(bus: PubSub, terms: Terms, log: TextIO, stop: asyncio.Event) -> None:
    """Note each message once its handling has ended."""

    async def handle(message: Message) -> None:
        began = time.monotonic()
        if terms.handling:
            await asyncio.sleep(terms.handling)
        write(log, got=message.data.decode(), began=began, attempt=message.attempt)

    subscription = await bus.subscribe(terms.topic, handle, group="group", ordering=terms.ordering, raw=True)
    write(log, ready=os.getpid())
    while not stop.is_set():
        measured = subscription._supervisor.measurements()
        write(log, rebalances=measured.get("rebalances", 0), reconnects=measured["reconnects"])
        try:
            async with asyncio.timeout(1.0):
                await stop.wait()
        except TimeoutError:
            continue


async def main(role: str, terms: Terms) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = KafkaPubSubSettings.parse({**terms.properties, **FIELDS, **terms.fields})
    with open(terms.log, "a", encoding="utf-8") as log:
        async with PubSub(KafkaPubSub(settings, DriverContext(component="worker"))) as bus:
            await (publish if role == "publish" else consume)(bus, terms, log, stop)
        write(log, ended=os.getpid())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Terms)))
