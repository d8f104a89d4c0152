"""The other process of the fault suite of pub/sub: publishes numbered messages, and prints those confirmed.

Reads from standard input one JSON object: a component document, the topic, and how many messages.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

from ...errors import LapelError
from ...pubsub import PubSub, PubSubDriver
from ..subject import Subject, read_components

__all__ = ["main"]

PAUSE = 0.005
TRIES = 400
"""How often one message is tried when nothing was done."""


async def main() -> None:
    """Do what standard input says. A message whose fate is unknown is neither repeated nor printed."""
    order: dict[str, Any] = json.loads(await asyncio.to_thread(sys.stdin.read))
    ((manifest, pins),) = read_components(json.dumps(order["component"]) + "\n")
    driver = Subject.from_manifest(manifest, pins).driver()
    async with PubSub(cast("PubSubDriver[Any]", driver)) as bus:
        for number in range(order["count"]):
            text = f"message-{number}"
            for _ in range(TRIES):
                try:
                    await bus.publish(order["topic"], text.encode(), content_type="text/plain")
                except LapelError as exc:
                    await asyncio.sleep(0.02)
                    if exc.retryable:
                        continue
                else:
                    print(text, flush=True)  # noqa: T201  # the way to the other process
                break
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    asyncio.run(main())
