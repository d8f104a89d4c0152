"""The groups in which a component is a member."""

from __future__ import annotations

import asyncio
import logging

from lapel.delivery import Ordering, Revoked

from .consumer import KafkaConsumer
from .lifecycle import all_ended, to_its_end
from .member import Member
from .options import ConsumerOptions
from .producer import KafkaProducer
from .records import Reading

__all__ = ["Groups"]

_LEFT_SECONDS = 0.5


class Groups:
    """One member for each group, shared by the subscriptions there. Belongs to one event loop."""

    def __init__(self, options: ConsumerOptions, logger: logging.Logger) -> None:
        self._options = options
        self._logger = logger
        self._reading = Reading(options)
        self._members: dict[str, Member] = {}
        self._consumers: set[KafkaConsumer] = set()

    async def subscribe(
        self,
        producer: KafkaProducer,
        group: str,
        topics: frozenset[str],
        *,
        ordering: Ordering,
        revoked: Revoked | None,
    ) -> KafkaConsumer:
        """Return an armed consumer. Raises what `Member.attach` raises, and leaves nothing behind then."""
        member = self._members.get(group)
        if member is None:
            member = Member(producer, self._options, group, logger=self._logger, ended=self._ended)
            self._members[group] = member
        consumer = KafkaConsumer(member, topics, ordering=ordering, revoked=revoked, reading=self._reading)
        self._consumers = {one for one in self._consumers if not one.gone} | {consumer}
        try:
            await member.attach(consumer)
        except BaseException:
            await to_its_end(_give_up(member, consumer), f"give up subscription in Kafka group {group}")
            raise
        return consumer

    async def close(self) -> None:
        """Close all consumers and leave all groups."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await all_ended(_LEFT_SECONDS)

    def _ended(self, member: Member) -> None:
        if self._members.get(member.group) is member:
            del self._members[member.group]


async def _give_up(member: Member, consumer: KafkaConsumer) -> None:
    await consumer.close()
    # It may have been closed before by somebody else, who then saw it being attached.
    await member.leave_if_alone()
