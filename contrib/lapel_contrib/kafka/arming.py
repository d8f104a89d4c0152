"""Where a group begins: offsets are committed before a subscription counts as armed, so that nothing can slip by."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import TopicPartition

__all__ = ["commit_start", "missing_offsets", "start_offsets"]


async def missing_offsets(client: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Return the partitions for which the group has no committed offset."""
    listed = list(partitions)
    committed = await asyncio.gather(*(client.committed(tp) for tp in listed))
    return [tp for tp, offset in zip(listed, committed, strict=True) if offset is None]


async def start_offsets(
    client: AIOKafkaConsumer, partitions: Iterable[TopicPartition], *, newest: bool
) -> dict[TopicPartition, int]:
    """Return the offset after the last message of each partition, or that of its first one."""
    listed = list(partitions)
    if not listed:
        return {}
    found: dict[TopicPartition, int] = await (
        client.end_offsets(listed) if newest else client.beginning_offsets(listed)
    )
    return found


async def commit_start(
    client: AIOKafkaConsumer, arguments: dict[str, Any], group: str, missing: list[TopicPartition], *, newest: bool
) -> bool:
    """Commit where a group without members begins; False when it has members, which then have to do it.

    What others committed meanwhile stays.
    """
    helper = AIOKafkaConsumer(**arguments, group_id=group, enable_auto_commit=False)
    try:
        await helper.start()
        helper.assign(missing)
        helper.pause(*missing)
        offsets = await start_offsets(helper, missing, newest=newest)
        still = await missing_offsets(client, missing)
        if still:
            await helper.commit({tp: offsets[tp] for tp in still})
    except CommitFailedError:
        return False
    finally:
        stopping = asyncio.create_task(helper.stop(), name="lapel stop Kafka helper")
        stopping.add_done_callback(_consume)
        await asyncio.wait((stopping,), timeout=2.0)
    return True


def _consume(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and isinstance(task.exception(), KafkaError):
        return
