"""The two clients of a group member: one is the member, the other looks things up beside it."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from .client import Access
from .lifecycle import start, stop_consumer, to_its_end
from .options import ConsumerOptions

__all__ = ["start_clients", "stop_clients"]

_NEVER_MS = 2**31 - 1
_STRATEGIES = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
}


async def start_clients(
    access: Access, options: ConsumerOptions, group: str
) -> tuple[AIOKafkaConsumer, AIOKafkaConsumer]:
    """Return the member, which has not joined the group yet, and the client for looking up, both connected.

    Raises `UnavailableError` or `PermissionDeniedError` and leaves nothing behind then.
    """
    common: dict[str, Any] = {
        **access.arguments(),
        "retry_backoff_ms": int(options.retry_pause * 1000),
        "isolation_level": "read_committed",
        "group_id": group,
        "enable_auto_commit": False,
    }
    member = AIOKafkaConsumer(
        **common,
        group_instance_id=options.instance_id,
        # Where to begin is always committed first. That a log does not have an offset is for us to see.
        auto_offset_reset="none",
        partition_assignment_strategy=(_STRATEGIES[options.strategy],),
        session_timeout_ms=int(options.session_timeout * 1000),
        heartbeat_interval_ms=int(options.heartbeat_interval * 1000),
        rebalance_timeout_ms=int(options.session_timeout * 1000),
        # Polling is not a sign of life: it stops when handlers have enough to do.
        max_poll_interval_ms=_NEVER_MS,
        fetch_min_bytes=options.fetch_min,
        max_partition_fetch_bytes=options.fetch_partition,
    )
    lookup = AIOKafkaConsumer(**common)
    try:
        await start(member)
        await start(lookup)
    except BaseException as exc:
        await to_its_end(stop_clients(member, lookup), "give up Kafka consumers")
        if isinstance(exc, KafkaError):
            raise await access.explain(exc) from None
        raise
    return member, lookup


async def stop_clients(*clients: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect. Bounded."""
    await asyncio.gather(*map(stop_consumer, clients))
