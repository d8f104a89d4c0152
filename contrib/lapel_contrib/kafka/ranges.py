"""Partitions that have no message where a member wants to go on."""

from __future__ import annotations

import logging

from .partition import Partition

__all__ = ["go_on"]


def go_on(partition: Partition, wanted: int, begin: int, *, place: str, logger: logging.Logger) -> Partition:
    """Return the partition with which to go on at `begin`, where its log begins: it has no message at `wanted`.

    Where messages were only deleted, it is the same one. Where the log ends before `wanted`, the offsets mean other
    messages than before: the topic was made anew, or the cluster restored. All that there is counts as new then, and
    what is in hand as lost.
    """
    where = f"{place}: partition {partition.tp.partition} of topic {partition.tp.topic!r}"
    if begin > wanted:
        logger.warning(
            "%s: the broker has deleted the messages from offset %d to %d before they were read; "
            "a longer retention (retention.ms, retention.bytes) keeps them",
            where,
            wanted,
            begin - 1,
        )
        partition.skip_to(begin)
        return partition
    logger.warning(
        "%s ends before offset %d, where the group was: the topic was made anew, or its log was cut; reading begins "
        "at its first message, offset %d",
        where,
        wanted,
        begin,
    )
    return partition.begin_again(begin)
