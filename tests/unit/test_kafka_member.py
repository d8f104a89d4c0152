"""A member of a group: subscriptions that come and go, what is committed meanwhile, and logs that end too early."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import pytest
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata
from tests.unit.kafka_support import Group, record, tp

from lapel.delivery import Delivery, Settled, Settlement
from lapel_contrib.kafka import topics
from lapel_contrib.kafka.consumer import KafkaConsumer

SOON = 10.0


@pytest.fixture
async def group(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Group]:
    group = Group(monkeypatch)
    yield group
    group.client.answers.set()
    group.client.refused.clear()
    await group.close()


@pytest.fixture(autouse=True)
def linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "LINGER_SECONDS", 3600.0)


@pytest.fixture
def no_linger(linger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "LINGER_SECONDS", 0.0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.001)


async def take(group: Group, consumer: KafkaConsumer, offsets: Iterable[int]) -> list[Delivery]:
    """Have records fetched, and receive them."""
    (topic,) = consumer.topics
    records = [record(topic, offset) for offset in offsets]
    group.client.fetched.append({tp(topic): records})
    found: list[Delivery] = []
    async with asyncio.timeout(SOON):
        while len(found) < len(records):
            found += await consumer.receive(len(records) - len(found), 1.0)
    return found


def values(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(one.data) for one in deliveries]


async def finish(consumer: KafkaConsumer, deliveries: Iterable[Delivery]) -> None:
    await consumer.settle([Settled(one, Settlement.ACK) for one in deliveries])


async def test_subscriptions_that_end_one_after_another_lose_no_commit_and_cost_no_rebalance(group: Group) -> None:
    idle, busy = await group.subscribe("A"), await group.subscribe("B")
    await group.has("A", "B")
    told = len(group.client.subscribed)
    group.client.answers.clear()
    await idle.close()
    deliveries = [one for offset in range(50) for one in await take(group, busy, [offset])]
    await finish(busy, deliveries)
    await busy.close()
    assert group.commit("B") == 50
    assert len(group.client.subscribed) == told


async def test_what_is_finished_while_the_group_shares_out_anew_is_committed_at_the_end(group: Group) -> None:
    consumer = await group.subscribe("A")
    await group.has("A")
    deliveries = await take(group, consumer, range(5))
    group.client.answers.clear()
    other = await group.subscribe("B")
    await until(lambda: group.client.subscription() == {"A", "B"})
    await finish(consumer, deliveries)
    await consumer.close()
    assert group.commit("A") == 5
    await other.close()


async def test_a_topic_that_comes_back_at_once_goes_on_where_it_was(group: Group) -> None:
    first, other = await group.subscribe("A"), await group.subscribe("B")
    await group.has("A", "B")
    told = len(group.client.subscribed)
    deliveries = await take(group, first, range(4))
    await finish(first, deliveries[:2])
    await first.close()
    again = await group.subscribe("A")
    assert values(await again.receive(10, SOON)) == [2, 3]
    assert values(await take(group, again, [4])) == [4]
    assert group.commit("A") == 2
    assert len(group.client.subscribed) == told
    assert not other.closing


async def test_what_comes_for_a_topic_that_nobody_wants_is_kept_within_bounds_and_never_committed(group: Group) -> None:
    first = await group.subscribe("A")
    await group.subscribe("B")
    await group.has("A", "B")
    await first.close()
    partition = group.member._partitions[tp("A")]
    limit = group.member._options.buffer
    group.client.fetched.append({tp("A"): [record("A", offset) for offset in range(limit)]})
    await until(lambda: partition in group.member._full)
    assert group.commit("A") == 0
    again = await group.subscribe("A")
    assert values(await again.receive(limit, SOON)) == list(range(limit))


@pytest.mark.usefixtures("no_linger")
async def test_a_topic_that_nobody_wants_is_given_back_and_may_come_again(group: Group) -> None:
    first = await group.subscribe("A")
    await group.subscribe("B")
    await group.has("A", "B")
    await finish(first, await take(group, first, range(3)))
    await first.close()
    await group.has("B")
    assert group.client.subscription() == {"B"}
    assert group.commit("A") == 3
    await group.subscribe("A")
    await group.has("A", "B")
    assert group.client.positions[tp("A")] == 3


@pytest.mark.usefixtures("no_linger")
async def test_a_topic_is_not_given_back_before_what_was_finished_of_it_is_committed(group: Group) -> None:
    first = await group.subscribe("A")
    await group.subscribe("B")
    await group.has("A", "B")
    deliveries = await take(group, first, range(3))
    group.client.refused.add("A")
    await finish(first, deliveries)
    await first.close()
    # A new topic cannot wait for it.
    await group.subscribe("C")
    await until(lambda: "C" in group.client.subscription())
    assert group.client.subscription() == {"A", "B", "C"}
    group.client.refused.clear()
    await group.has("B", "C")
    assert group.commit("A") == 3


async def test_a_log_that_ends_before_the_position_is_read_from_its_begin(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    client = group.client
    client.committed[tp("A")] = OffsetAndMetadata(1000, "lapel1 1-5")
    consumer = await group.subscribe("A")
    await group.has("A")
    (old,) = await take(group, consumer, [1006])
    with caplog.at_level(logging.WARNING):
        client.fetched.append(OffsetOutOfRangeError({tp("A"): 1007}))
        await until(lambda: client.positions[tp("A")] == 0)
    assert "topic 'A' ends before offset 1007" in caplog.text
    await until(lambda: client.committed[tp("A")] == OffsetAndMetadata(0, ""))
    deliveries = await take(group, consumer, range(8))
    assert values(deliveries) == list(range(8))
    # What was in hand is of the former log.
    await finish(consumer, [old, deliveries[0]])
    await until(lambda: group.commit("A") == 1)
    assert group.member.failure is None


async def test_messages_that_were_deleted_unread_are_named_and_passed_over(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = await group.subscribe("A")
    await group.has("A")
    early = await take(group, consumer, [0, 1])
    group.client.begins[tp("A")] = 50
    with caplog.at_level(logging.WARNING):
        group.client.fetched.append(OffsetOutOfRangeError({tp("A"): 2}))
        await until(lambda: group.client.positions[tp("A")] == 50)
    assert "from offset 2 to 49" in caplog.text
    late = await take(group, consumer, [50, 51])
    await finish(consumer, [*early, *late])
    await until(lambda: group.commit("A") == 52)


async def test_errors_of_partitions_that_go_on_elsewhere_change_nothing(group: Group) -> None:
    consumer = await group.subscribe("A")
    await group.has("A")
    (one,) = await take(group, consumer, [7])
    client = group.client
    client.fetched += [
        OffsetOutOfRangeError({tp("A"): 3}),
        OffsetOutOfRangeError({tp("Z"): 3}),
        NoOffsetForPartitionError(tp("A")),
    ]
    assert values(await take(group, consumer, [8])) == [8]
    await finish(consumer, [one])
    await until(lambda: group.commit("A") == 8)


async def test_offsets_that_are_gone_mean_that_all_there_is_counts(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker forgets what was committed when a topic is deleted; what comes after that is for us."""
    client = group.client
    client.ends[tp("A")] = 5
    await group.subscribe("A")
    await group.has("A")
    assert client.positions[tp("A")] == 5
    client.committed.clear()
    with caplog.at_level(logging.WARNING):
        member = group.member
        await member.on_partitions_revoked({tp("A")})
        await member.on_partitions_assigned({tp("A")})
    assert client.positions[tp("A")] == 0
    assert "of 1 partitions of 'A' are gone" in caplog.text
    # It holds as well for a subscription that comes before the group notices.
    client.committed.clear()
    await group.subscribe("A")
    assert group.commit("A") == 0
