"""Starting and stopping aiokafka's clients: bounded, and safe to cancel; and connections that nobody answers on."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Task
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason

__all__ = ["all_ended", "start", "stop_consumer", "stop_producer", "to_its_end"]

START_GRACE = 1.0
"""Seconds that a start has to come to its end when nobody wants it any more."""
STOP_SECONDS = 1.5
"""Seconds for a polite end; with what comes before it, less than a component gives its driver."""
ABORT_SECONDS = 0.5

_running: set[Task[Any]] = set()


async def to_its_end(work: Coroutine[Any, Any, None], name: str) -> None:
    """Do some work that goes on when the caller is cancelled."""
    task = asyncio.get_running_loop().create_task(work, name=f"lapel {name}")
    _running.add(task)
    task.add_done_callback(_ended)
    await asyncio.shield(task)


async def all_ended(seconds: float = STOP_SECONDS) -> None:
    """Wait for what was left to go on by itself on this event loop, at most so long."""
    loop = asyncio.get_running_loop()
    own = [task for task in _running if task.get_loop() is loop and task is not asyncio.current_task()]
    if own:
        await asyncio.wait(own, timeout=seconds)


async def start(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Start a client. One that is cancelled on the way would leave connections behind, so it is let come to an end."""
    _leave_silent_connections(client.client if isinstance(client, AIOKafkaProducer) else client._client)
    starting = asyncio.create_task(client.start(), name="lapel start Kafka client")
    starting.add_done_callback(_ended)
    try:
        await asyncio.shield(starting)
    except CancelledError:
        await asyncio.wait((starting,), timeout=START_GRACE)
        starting.cancel()
        raise


async def stop_consumer(client: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect; a client that waits for brokers that are gone is left behind."""
    stopping = asyncio.get_running_loop().create_task(client.stop(), name="lapel stop Kafka consumer")
    _running.add(stopping)
    stopping.add_done_callback(_ended)
    await asyncio.wait((stopping,), timeout=STOP_SECONDS)


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Send what is waiting and disconnect. The client's own way waits for ever for brokers that are gone."""
    stopping = asyncio.create_task(producer.stop(), name="lapel stop Kafka producer")
    stopping.add_done_callback(_ended)
    await asyncio.wait((stopping,), timeout=STOP_SECONDS)
    if not stopping.done():
        stopping.cancel()
        ending = asyncio.create_task(_abort(producer), name="lapel abort Kafka producer")
        ending.add_done_callback(_ended)
        await asyncio.wait((stopping, ending), timeout=ABORT_SECONDS)


async def _abort(producer: AIOKafkaProducer) -> None:
    # There is no public way to give up on what was not sent.
    await producer.client.close()
    await producer._sender.close()


def _leave_silent_connections(client: AIOKafkaClient) -> None:
    """Have it connect anew when a request for metadata gets no answer.

    It does so for all other requests, but would ask for metadata on a dead connection for ever, and publish nothing to
    topics that it does not know yet.
    """
    update = client._metadata_update

    async def update_or_reconnect(*arguments: Any) -> bool:
        if await update(*arguments):
            return True
        for connection in list(client._conns.values()):
            # Answers come in order, so nothing came since the oldest request, which its sender has given up.
            if connection._requests and connection._requests[0][2].done():
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        return False

    client._metadata_update = update_or_reconnect


def _ended(task: Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()
