"""What other clients see of pubsub.kafka on a real broker, and what it makes of theirs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition
from tests.backends.kafka import KafkaBackend

from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, LapelError, OperationFailedError, UnsupportedError
from lapel.pubsub import Message, Outcome, PublishEntry, PubSub
from lapel_contrib.kafka.component_settings import KafkaPubSubSettings
from lapel_contrib.kafka.pubsub import KafkaPubSub

pytestmark = pytest.mark.timeout(60)


def component(kafka: KafkaBackend, **fields: str) -> PubSub:
    settings = KafkaPubSubSettings.parse({**kafka.properties, "heartbeatInterval": "200ms", **fields})
    return PubSub(KafkaPubSub(settings, DriverContext(component="bus")))


@pytest.fixture
async def bus(kafka_server: KafkaBackend) -> AsyncIterator[PubSub]:
    async with component(kafka_server) as bus:
        yield bus


@pytest.fixture
async def admin(kafka_server: KafkaBackend) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=list(kafka_server.addresses))
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex}"


async def create(admin: AIOKafkaAdminClient, topic: str, partitions: int, **configs: str) -> None:
    await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


class Inbox:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def texts(self) -> list[str]:
        return [message.raw.decode() for message in self.messages]


async def stored(kafka: KafkaBackend, topic: str, count: int) -> list[Any]:
    """Return the records of a topic, read by the plain client."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=list(kafka.addresses), auto_offset_reset="earliest")
    await consumer.start()
    try:
        found: list[Any] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        await consumer.stop()


async def test_keys_headers_and_partitions_are_where_others_look_for_them(
    kafka_server: KafkaBackend, admin: AIOKafkaAdminClient, bus: PubSub, topic: str
) -> None:
    await create(admin, topic, 7)
    await bus.publish(topic, b"a", key="a", raw=True, metadata={"h": "1"})
    await bus.publish(topic, b"b", raw=True, metadata={"partitionKey": "foobar"})
    await bus.publish(topic, b"c", raw=True, metadata={"partitionNumber": "6", "__key": "a"})
    found = {record.value: record for record in await stored(kafka_server, topic, 3)}
    assert (found[b"a"].partition, found[b"a"].key) == (468965076 % 7, b"a")
    assert found[b"a"].headers == (("h", b"1"),)
    assert (found[b"b"].partition, found[b"b"].key) == (1080231576 % 7, b"foobar")
    assert (found[b"c"].partition, found[b"c"].key) == (6, b"a")
    with pytest.raises(InvalidArgumentError, match="no partition 7"):
        await bus.publish(topic, b"d", raw=True, metadata={"partitionNumber": "7"})


async def test_messages_of_others_arrive_with_all_they_have(
    kafka_server: KafkaBackend, bus: PubSub, topic: str
) -> None:
    inbox = Inbox()
    await bus.subscribe(topic, inbox, raw=True)
    producer = AIOKafkaProducer(bootstrap_servers=list(kafka_server.addresses))
    await producer.start()
    try:
        await producer.send_and_wait(topic, b"v", key=b"k", headers=[("a", b"1"), ("a", b"2")], timestamp_ms=1234)
        await producer.send_and_wait(topic, None, key=b"gone")
    finally:
        await producer.stop()
    await until(lambda: len(inbox.messages) == 2, "both messages arrive")
    first, second = inbox.messages
    assert (first.raw, first.key, dict(first.metadata)) == (
        b"v",
        "k",
        {"__key": "k", "__offset": "0", "__topic": topic, "__timestamp": "1234", "__partition": "0", "a": "2"},
    )
    assert (second.raw, second.key) == (b"null", "gone")


async def test_tombstones_have_no_value(kafka_server: KafkaBackend, bus: PubSub, topic: str) -> None:
    await bus.publish(topic, b"null", key="k", raw=True)
    await bus.publish(topic, b"", key="k", raw=True)
    assert [record.value for record in await stored(kafka_server, topic, 2)] == [None, None]


async def test_a_bulk_publish_names_what_the_broker_refused_and_the_next_one_works(
    kafka_server: KafkaBackend, admin: AIOKafkaAdminClient, bus: PubSub, topic: str
) -> None:
    """A refused batch leaves a gap in the producer's sequence, after which the broker would take nothing more."""
    await create(admin, topic, 1, **{"max.message.bytes": "2000"})
    with pytest.raises(InvalidArgumentError, match="larger than the brokers take"):
        await bus.publish(topic, bytes(5000), raw=True)
    outcomes = await bus.bulk_publish(topic, [PublishEntry(data=bytes(5000))], raw=True)
    assert isinstance(outcomes[0].error, LapelError)

    async def works() -> bool:
        try:
            await bus.publish(topic, b"fine", raw=True)
        except LapelError:
            return False
        return True

    async with asyncio.timeout(20):
        while not await works():
            await asyncio.sleep(0.05)
    assert [record.value for record in await stored(kafka_server, topic, 1)] == [b"fine"]


async def test_a_compacted_topic_refuses_messages_without_a_key(
    admin: AIOKafkaAdminClient, bus: PubSub, topic: str
) -> None:
    await create(admin, topic, 1, **{"cleanup.policy": "compact"})
    with pytest.raises(OperationFailedError, match="key"):
        await bus.publish(topic, b"x", raw=True)


async def test_all_in_order_needs_one_partition(admin: AIOKafkaAdminClient, bus: PubSub, topic: str) -> None:
    await create(admin, topic, 2)
    with pytest.raises(UnsupportedError, match="one partition"):
        await bus.subscribe(topic, Inbox(), ordering="all")


async def test_a_failing_message_holds_up_neither_its_partition_nor_the_commits_before_it(
    kafka_server: KafkaBackend, bus: PubSub, topic: str
) -> None:
    seen: list[str] = []

    async def handle(message: Message) -> Outcome | None:
        seen.append(message.raw.decode())
        return Outcome.RETRY if message.raw == b"3" else None

    subscription = await bus.subscribe(topic, handle, group=f"{topic}-group", raw=True)
    for number in range(10):
        await bus.publish(topic, str(number).encode(), raw=True)
    await until(lambda: set(seen) == set(map(str, range(10))), "all others are handled")
    await subscription.aclose()
    again = Inbox()
    async with await bus.subscribe(topic, again, group=f"{topic}-group", raw=True):
        await until(lambda: again.texts, "the unfinished message comes again")
        assert again.texts == ["3"]
        # Another client knows nothing of the note and goes on behind the finished beginning.
    committed = await _committed(kafka_server, f"{topic}-group", topic)
    assert committed == 10


async def _committed(kafka: KafkaBackend, group: str, topic: str) -> int | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=list(kafka.addresses), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        found: int | None = await consumer.committed(TopicPartition(topic, 0))
        return found
    finally:
        await consumer.stop()


async def test_a_log_that_ends_before_what_the_group_committed_is_read_from_its_begin(
    kafka_server: KafkaBackend, bus: PubSub, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a cluster that was restored from an older copy."""
    group, inbox = f"{topic}-group", Inbox()
    await bus.publish(topic, b"0", raw=True)
    consumer = AIOKafkaConsumer(bootstrap_servers=list(kafka_server.addresses), group_id=group)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.commit({TopicPartition(topic, 0): (1000, "lapel1 1-5")})
    finally:
        await consumer.stop()
    async with await bus.subscribe(topic, inbox, group=group, raw=True):
        await bus.publish(topic, b"1", raw=True)
        await until(lambda: len(inbox.messages) == 2, "both arrive")
    assert inbox.texts == ["0", "1"]
    assert f"topic {topic!r} ends before offset 1000" in caplog.text
    assert await _committed(kafka_server, group, topic) == 2


async def test_messages_that_were_deleted_before_they_were_read_are_passed_over(
    kafka_server: KafkaBackend, admin: AIOKafkaAdminClient, bus: PubSub, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    group, inbox = f"{topic}-group", Inbox()
    await (await bus.subscribe(topic, inbox, group=group, raw=True)).aclose()
    for number in range(5):
        await bus.publish(topic, str(number).encode(), raw=True)
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=3)})
    async with await bus.subscribe(topic, inbox, group=group, raw=True):
        await until(lambda: len(inbox.messages) == 2, "the rest arrives")
    assert inbox.texts == ["3", "4"]
    assert "from offset 0 to 2" in caplog.text


async def test_messages_of_a_topic_that_is_made_anew_are_not_missed(
    kafka_server: KafkaBackend, admin: AIOKafkaAdminClient, topic: str
) -> None:
    await create(admin, topic, 1)
    inbox, before = Inbox(), 20
    after: list[str] = []
    fields = {"clientConnectionTopicMetadataRefreshInterval": "500ms"}
    producer = AIOKafkaProducer(bootstrap_servers=list(kafka_server.addresses), metadata_max_age_ms=200)
    await producer.start()
    try:
        async with component(kafka_server, **fields) as bus, asyncio.timeout(40):
            await bus.subscribe(topic, inbox, raw=True)
            for number in range(before):
                await producer.send_and_wait(topic, f"before-{number}".encode())
            await until(lambda: len(inbox.messages) == before, "all of the former topic arrive")
            await admin.delete_topics([topic])
            # It is made by whoever asks for it first, and the former one may take some more messages to its grave.
            while len(after) < 10:
                text = uuid.uuid4().hex
                if (await producer.send_and_wait(topic, text.encode())).offset < before:
                    after.append(text)
            await until(lambda: set(after) <= set(inbox.texts), "all arrive")
    finally:
        await producer.stop()


async def test_a_subscription_that_comes_back_at_once_gets_what_comes(bus: PubSub, topic: str) -> None:
    group, other, inbox = f"{topic}-group", Inbox(), Inbox()
    await bus.subscribe(f"{topic}-other", other, group=group, raw=True)
    first = await bus.subscribe(topic, inbox, group=group, raw=True)
    for number in range(3):
        await bus.publish(topic, str(number).encode(), raw=True)
        await until(lambda: len(inbox.messages) > number, "it arrives")  # noqa: B023 - awaited in its turn
        await first.aclose()
        first = await bus.subscribe(topic, inbox, group=group, raw=True)
    await bus.publish(topic, b"3", raw=True)
    await until(lambda: len(inbox.messages) > 3, "the last one arrives")
    assert inbox.texts == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("offset", "expected"), [("newest", ["after"]), ("oldest", ["before", "after"])])
async def test_where_a_new_group_begins(
    kafka_server: KafkaBackend, bus: PubSub, topic: str, offset: str, expected: list[str]
) -> None:
    await bus.publish(topic, b"before", raw=True)
    inbox = Inbox()
    async with component(kafka_server, initialOffset=offset) as other:
        await other.subscribe(topic, inbox, raw=True)
        await bus.publish(topic, b"after", raw=True)
        await until(lambda: len(inbox.messages) == len(expected), "the messages arrive")
        assert inbox.texts == expected


async def test_the_first_messages_of_an_added_partition_are_not_missed(
    kafka_server: KafkaBackend, admin: AIOKafkaAdminClient, bus: PubSub, topic: str
) -> None:
    await create(admin, topic, 1)
    inbox = Inbox()
    fields = {"clientConnectionTopicMetadataRefreshInterval": "500ms"}
    async with component(kafka_server, **fields) as other:
        await other.subscribe(topic, inbox, raw=True)
        await admin.create_partitions({topic: NewPartitions(3)})
        producer = AIOKafkaProducer(bootstrap_servers=list(kafka_server.addresses), metadata_max_age_ms=200)
        await producer.start()
        try:
            async with asyncio.timeout(20):
                while len(await producer.partitions_for(topic)) < 3:
                    await asyncio.sleep(0.05)
            for number in range(3):
                await producer.send_and_wait(topic, str(number).encode(), partition=number)
        finally:
            await producer.stop()
        await until(lambda: sorted(inbox.texts) == ["0", "1", "2"], "all arrive")


async def test_a_message_that_is_larger_than_what_is_fetched_at_once_arrives(
    kafka_server: KafkaBackend, topic: str
) -> None:
    inbox = Inbox()
    async with component(kafka_server, consumerFetchDefault="100") as bus:
        await bus.subscribe(topic, inbox, raw=True)
        await bus.publish(topic, bytes(50_000), raw=True)
        await bus.publish(topic, b"small", raw=True)
        await until(lambda: len(inbox.messages) == 2, "both arrive")
    assert [len(message.raw) for message in inbox.messages] == [50_000, 5]


async def test_a_static_member_comes_back_without_a_rebalance(
    kafka_server: KafkaBackend, admin: AIOKafkaAdminClient, topic: str
) -> None:
    await create(admin, topic, 2)
    group, inbox = f"{topic}-group", Inbox()
    async with component(kafka_server, groupInstanceID="pod-0") as steady:
        subscription = await steady.subscribe(topic, inbox, group=group, raw=True)

        def rebalances() -> int:
            return subscription._supervisor.measurements().get("rebalances", 0)

        async with component(kafka_server, groupInstanceID="pod-1") as other:
            joined = await other.subscribe(topic, inbox, group=group, raw=True)
            await until(lambda: joined._supervisor.measurements().get("partitions") == 1, "it got its share")
            await until(lambda: subscription._supervisor.measurements().get("partitions") == 1, "they share")
        before = rebalances()
        async with component(kafka_server, groupInstanceID="pod-1") as other:
            joined = await other.subscribe(topic, inbox, group=group, raw=True)
            await until(lambda: joined._supervisor.measurements().get("partitions") == 1, "it has its share again")
            assert rebalances() == before


async def test_members_with_their_own_topics_share_a_group(bus: PubSub, topic: str) -> None:
    inboxes = [Inbox() for _ in range(5)]
    for number, inbox in enumerate(inboxes):
        await bus.subscribe(f"{topic}-{number}", inbox, group=f"{topic}-group", raw=True)
        await bus.publish(f"{topic}-{number}", str(number).encode(), raw=True)
    await until(lambda: all(inbox.messages for inbox in inboxes), "each gets its own")
    assert [inbox.texts for inbox in inboxes] == [[str(number)] for number in range(5)]
