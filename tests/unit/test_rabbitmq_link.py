"""A connection to RabbitMQ comes back whatever ended it, and ends when it has to."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from pamqp import commands
from tests.backends.certificates import make_certificates
from tests.unit.rabbitmq_fake import TUNE, FakeBroker, Peer, until

from lapel.errors import OutcomeUnknownError, UnavailableError
from lapel_contrib.rabbitmq import connection as connections
from lapel_contrib.rabbitmq.connection import Connection
from lapel_contrib.rabbitmq.errors import translating

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """The server's, and the client's."""
    made = make_certificates(Path(tmp_path_factory.mktemp("tls")))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.server_cert, made.server_key)
    return server, ssl.create_default_context(cafile=str(made.client.ca))


async def test_a_peer_that_closes_during_the_log_in_does_not_end_the_link(contexts: Contexts) -> None:
    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if peer.number in (2, 3) and isinstance(frame, commands.Connection.StartOk):
            # Over TLS what is sent and the end of it arrive together.
            peer.send(TUNE)
            peer.writer.close()
            return True
        return False

    async with FakeBroker(script, contexts[0]) as broker:
        link = broker.link(contexts[1])
        await link.open()
        try:
            broker.peers[0].writer.transport.abort()
            await until(lambda: link.reconnects == 1, "it did not come back")
            assert len(broker.peers) == 4
            await link.ask()
        finally:
            await link.close()


async def test_a_peer_that_closes_during_the_log_in_is_named(contexts: Contexts) -> None:
    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Connection.StartOk):
            peer.send(TUNE)
            peer.writer.close()
            return True
        return False

    async with FakeBroker(script, contexts[0]) as broker:
        link = broker.link(contexts[1])
        with pytest.raises(UnavailableError, match="during the log-in"):
            await link.open()
        await link.close()


async def test_the_link_comes_back_whatever_its_watch_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Connection.watch
    failures = iter([KeyError("nobody expects this")])

    async def wrong(self: Connection) -> None:
        for failure in failures:
            raise failure
        await watch(self)

    monkeypatch.setattr(Connection, "watch", wrong)
    async with FakeBroker() as broker:
        link = broker.link()
        await link.open()
        try:
            await until(lambda: link.reconnects == 1, "it did not come back")
            await link.ask()
        finally:
            await link.close()


async def test_the_link_comes_back_whatever_an_attempt_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeBroker() as broker:
        link = broker.link()
        await link.open()
        connect = link._connect
        failures = iter([KeyError("nobody expects this")])

        async def wrong() -> Connection:
            for failure in failures:
                raise failure
            return await connect()

        monkeypatch.setattr(link, "_connect", wrong)
        try:
            broker.peers[0].writer.transport.abort()
            await until(lambda: link.reconnects == 1, "it did not come back")
            await link.ask()
        finally:
            await link.close()


async def test_connecting_over_tls_ends_in_time_when_the_peer_says_nothing(contexts: Contexts) -> None:
    async with FakeBroker(tls=contexts[0]) as broker:
        broker.deaf = True
        # The good-bye of TLS would take 30 seconds.
        async with asyncio.timeout(10):
            with pytest.raises(UnavailableError, match="in time"):
                await Connection.open(broker.options(tls=True), contexts[1], ("127.0.0.1", broker.port), "test", 0.2)


async def test_closing_over_tls_ends_in_time_when_the_peer_says_nothing(
    monkeypatch: pytest.MonkeyPatch, contexts: Contexts
) -> None:
    monkeypatch.setattr(connections, "CLOSE_SECONDS", 0.2)
    async with FakeBroker(tls=contexts[0]) as broker:
        link = broker.link(contexts[1])
        await link.open()
        broker.peers[0].writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            await link.close()


async def test_a_question_that_fails_in_any_way_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise Exception

    async with FakeBroker() as broker:
        link = broker.link()
        try:
            connection = await link.connection()
            monkeypatch.setattr(connection, "ask", fail)
            assert not await connection._is_alive()
        finally:
            await link.close()


async def test_whatever_the_library_raises_is_translated_and_nothing_of_ours() -> None:
    with pytest.raises(UnavailableError, match="the place: the connection was lost during a test"):
        async with translating("the place", "a test"):
            raise Exception
    ours = OutcomeUnknownError("it may have happened")
    with pytest.raises(OutcomeUnknownError) as caught:
        async with translating("the place", "a test"):
            raise ours
    assert caught.value is ours
