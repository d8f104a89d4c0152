"""What is said of messages that were not, or may have been, sent; and what the client may not log."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import pytest
from aiokafka import errors as kafka
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import SaslAuthenticateRequest
from tests.unit.kafka_support import FakeProducer

from lapel.coalesce import was_sent
from lapel.errors import InvalidArgumentError, LapelError, OutcomeUnknownError, UnavailableError
from lapel_contrib.kafka.client import Access
from lapel_contrib.kafka.component_settings import KafkaPubSubSettings
from lapel_contrib.kafka.errors import not_stored
from lapel_contrib.kafka.producer import KafkaProducer
from lapel_contrib.kafka.records import Outgoing

RECORD = Outgoing("t", None, b"x", [], None)


class Client:
    """Takes the first `room` records, and does not acknowledge them; the next one waits for room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[asyncio.Future[Any]] = []
        self.full = asyncio.Event()

    async def send(self, producer: Any, record: Outgoing) -> asyncio.Future[Any]:
        if record.key == b"refused":
            raise kafka.MessageSizeTooLargeError
        if len(self.taken) == self.room:
            self.full.set()
            await asyncio.Event().wait()
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[-1]


async def producer_of(client: Client, monkeypatch: pytest.MonkeyPatch) -> KafkaProducer:
    settings = KafkaPubSubSettings.parse({"brokers": "fake:1", "authType": "none"})
    producer = KafkaProducer(await Access.make(settings.options()))
    monkeypatch.setattr(producer, "_producer", FakeProducer())
    monkeypatch.setattr(producer, "_send", client.send)
    return producer


@pytest.mark.parametrize("taken", [0, 2])
async def test_a_bulk_publish_that_is_cancelled_was_sent_once_a_record_was_taken(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    client = Client(taken)
    producer = await producer_of(client, monkeypatch)
    seen: list[BaseException] = []

    async def publish() -> None:
        try:
            await producer.publish_all([RECORD] * 5)
        except asyncio.CancelledError as exc:
            seen.append(exc)
            raise

    task = asyncio.create_task(publish())
    async with asyncio.timeout(10):
        await client.full.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert [was_sent(exc) for exc in seen] == [taken > 0]


async def test_a_publish_that_is_cancelled_before_it_was_taken_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(0)
    producer = await producer_of(client, monkeypatch)
    seen: list[BaseException] = []

    async def publish() -> None:
        try:
            await producer.publish(RECORD)
        except asyncio.CancelledError as exc:
            seen.append(exc)
            raise

    task = asyncio.create_task(publish())
    async with asyncio.timeout(10):
        await client.full.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert [was_sent(exc) for exc in seen] == [False]


async def test_each_record_of_a_bulk_publish_has_its_own_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(2)
    producer = await producer_of(client, monkeypatch)
    given = UnavailableError("of its own")
    records: list[Outgoing | LapelError] = [RECORD, given, Outgoing("t", b"refused", b"x", [], None), RECORD]
    task = asyncio.create_task(producer.publish_all(records))
    async with asyncio.timeout(10):
        while len(client.taken) < 2:
            await asyncio.sleep(0)
    client.taken[0].set_result(None)
    client.taken[1].set_exception(kafka.RequestTimedOutError())
    monkeypatch.setattr(producer, "_renew", lambda producer: None)
    first, second, third, last = await task
    assert first is None
    assert second is given
    assert isinstance(third, InvalidArgumentError)
    assert isinstance(last, OutcomeUnknownError)


@pytest.mark.parametrize(
    "error",
    [
        kafka.LeaderNotAvailableError(),
        kafka.NotLeaderForPartitionError(),
        kafka.UnknownProducerId(),
        kafka.OutOfOrderSequenceNumber(),
        kafka.RequestTimedOutError(),
        kafka.KafkaConnectionError("secret"),
    ],
)
def test_what_may_follow_an_attempt_whose_answer_was_lost_leaves_the_outcome_unknown(error: kafka.KafkaError) -> None:
    found = not_stored(error, "place")
    assert isinstance(found, OutcomeUnknownError)
    assert "secret" not in str(found)


def test_what_a_broker_refuses_is_not_stored() -> None:
    for error in (kafka.MessageSizeTooLargeError(), kafka.TopicAuthorizationFailedError("t")):
        assert not isinstance(not_stored(error, "place"), OutcomeUnknownError)


class Writer:
    def write(self, data: bytes) -> None:
        pass


async def test_the_client_logs_no_requests_for_they_hold_passwords_and_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection: Any = AIOKafkaConnection.__new__(AIOKafkaConnection)
    connection._writer = Writer()
    connection._versions = {SaslAuthenticateRequest.API_KEY: (0, 1)}
    connection._correlation_id = 0
    connection._client_id = connection._host = "h"
    connection._port = 1
    connection._loop = asyncio.get_running_loop()
    connection._requests = deque()
    connection._request_timeout = 0.001
    connection._reader = connection._idle_handle = connection._closed_fut = None
    with caplog.at_level(logging.DEBUG), pytest.raises(TimeoutError):
        await connection.send(SaslAuthenticateRequest(b"\0user\0canary"))
    assert connection._requests, "it was not sent"
    assert "canary" not in caplog.text
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("aiokafka.conn").warning("worth a warning")
    assert "worth a warning" in caplog.text
