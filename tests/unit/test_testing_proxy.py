"""The fault proxy does what it says and knows that it did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lapel.testing.proxy import FaultProxy


class Echo:
    """A backend that answers every line with the same line in capitals."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.seen.append(line)
                writer.write(line.upper())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def setup() -> AsyncIterator[tuple[Echo, FaultProxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield echo, proxy
    server.close()


async def ask(proxy: FaultProxy, line: bytes, seconds: float = 5.0) -> bytes:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(line)
            return await reader.readline()
    finally:
        writer.close()


async def test_everything_passes_without_a_fault() -> None:
    async with setup() as (_, proxy):
        assert await ask(proxy, b"hello\n") == b"HELLO\n"
        assert (proxy.counters.request_bytes, proxy.counters.reply_bytes) == (6, 6)


async def test_a_cut_request_never_reaches_the_backend() -> None:
    async with setup() as (echo, proxy):
        trap = proxy.cut_request(b"pay")
        assert await ask(proxy, b"look\n") == b"LOOK\n"
        with pytest.raises(ConnectionError):
            await ask(proxy, b"pay\n")
        await trap.wait()
        assert trap.request == b"pay\n"
        assert echo.seen == [b"look\n"]
        assert await ask(proxy, b"pay\n") == b"PAY\n"


async def test_a_dropped_reply_means_that_the_backend_did_it() -> None:
    async with setup() as (echo, proxy):
        trap = proxy.drop_reply(b"pay")
        with pytest.raises(ConnectionError):
            await ask(proxy, b"pay\n")
        await trap.wait()
        assert echo.seen == [b"pay\n"]
        assert proxy.counters.dropped_reply_bytes == 4


async def test_a_trap_that_does_not_strike_says_so() -> None:
    async with setup() as (_, proxy):
        trap = proxy.drop_reply(b"pay")
        await ask(proxy, b"look\n")
        assert not trap.hit
        with pytest.raises(TimeoutError):
            await trap.wait(0.01)


async def test_cut_resets_the_connections_there_are_and_lets_new_ones_in() -> None:
    async with setup() as (_, proxy):
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"a\n")
        assert await reader.readline() == b"A\n"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionError):
            await reader.readline()
        writer.close()
        assert await ask(proxy, b"b\n") == b"B\n"


async def test_refused_connections_are_reset_until_healed() -> None:
    async with setup() as (echo, proxy):
        proxy.refuse()
        with pytest.raises(ConnectionError):
            await ask(proxy, b"a\n")
        assert (proxy.counters.refused, echo.seen) == (1, [])
        proxy.heal()
        assert await ask(proxy, b"a\n") == b"A\n"


async def test_frozen_bytes_arrive_after_the_thaw() -> None:
    async with setup() as (echo, proxy):
        proxy.freeze()
        asking = asyncio.create_task(ask(proxy, b"a\n"))
        while not proxy.counters.accepted:
            await asyncio.sleep(0)
        done, _ = await asyncio.wait([asking], timeout=0.05)
        assert not done
        assert echo.seen == []
        proxy.heal()
        assert await asking == b"A\n"


async def test_a_black_hole_swallows_without_closing() -> None:
    async with setup() as (echo, proxy):
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            await ask(proxy, b"a\n", seconds=0.1)
        assert echo.seen == []
        assert proxy.counters.dropped_request_bytes == 2


async def test_a_connection_that_lost_bytes_stays_silent_and_others_go_on() -> None:
    async with setup() as (_, proxy):
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        idle_reader, idle_writer = await asyncio.open_connection(proxy.host, proxy.port)
        proxy.black_hole()
        writer.write(b"lost\n")
        while not proxy.counters.dropped_request_bytes:
            await asyncio.sleep(0)
        proxy.heal()
        writer.write(b"a\n")
        idle_writer.write(b"a\n")
        assert await idle_reader.readline() == b"A\n"
        assert await ask(proxy, b"a\n") == b"A\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.readline()
        writer.close()
        idle_writer.close()


async def test_a_delay_holds_back_every_chunk() -> None:
    async with setup() as (_, proxy):
        proxy.delay(0.01)
        assert await ask(proxy, b"a\n") == b"A\n"
        assert proxy.counters.delayed_chunks >= 2


async def test_a_backend_that_is_away_refuses() -> None:
    server = await asyncio.start_server(Echo().serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with FaultProxy("127.0.0.1", port) as proxy:
        with pytest.raises(ConnectionError):
            await ask(proxy, b"a\n")
        assert proxy.counters.refused == 1


async def test_a_delivery_is_cut_off_before_the_driver_has_it() -> None:
    async with setup() as (echo, proxy):
        trap = proxy.cut_reply(b"PAY")
        assert await ask(proxy, b"look\n") == b"LOOK\n"
        with pytest.raises(ConnectionError):
            await ask(proxy, b"pay\n")
        await trap.wait()
        assert echo.seen == [b"look\n", b"pay\n"]


async def test_what_is_sent_is_counted_over_all_connections_and_chunks() -> None:
    async with setup() as (_, proxy):
        seen = proxy.sightings(b"pay me")
        proxy.cut_request(b"never")
        assert await ask(proxy, b"pay me, pay me\n") == b"PAY ME, PAY ME\n"
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        before = proxy.counters.request_bytes
        writer.write(b"pay")
        while proxy.counters.request_bytes == before:
            await asyncio.sleep(0)
        writer.write(b" me\n")
        assert await reader.readline() == b"PAY ME\n"
        writer.close()
        assert seen.count == 3
        with pytest.raises(ValueError, match="1 to 256"):
            proxy.sightings(b"")


async def test_bytes_trickle() -> None:
    async with setup() as (_, proxy):
        proxy.trickle(2)
        assert await ask(proxy, b"hello\n") == b"HELLO\n"
        assert proxy.counters.trickled_pieces == 6


async def test_a_port_to_listen_on_can_be_chosen() -> None:
    async with setup() as (_, proxy):
        port = proxy.port
    async with FaultProxy("127.0.0.1", 1, listen=port) as proxy:
        assert proxy.port == port
