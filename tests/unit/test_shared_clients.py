"""Components of one backend share a client: made once, closed by the last, and never lost on the way."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.unit.plain_component import Gate

from lapel.driver import DriverContext, SharedClients
from lapel.errors import UnavailableError


class Backend:
    """Makes numbered clients and counts those that are open."""

    def __init__(self) -> None:
        self.made = 0
        self.closed: list[int] = []
        self.failures: list[Exception] = []
        self.gate: Gate | None = None

    async def create(self) -> int:
        if self.gate is not None:
            await self.gate()
        if self.failures:
            raise self.failures.pop(0)
        self.made += 1
        return self.made

    async def close(self, client: int) -> None:
        self.closed.append(client)


async def test_equal_keys_share_one_client_that_the_last_user_closes() -> None:
    shared, backend = SharedClients(), Backend()
    clients = await asyncio.gather(*(shared.acquire(("host", 1), backend.create, backend.close) for _ in range(5)))
    other = await shared.acquire(("host", 2), backend.create, backend.close)
    assert clients == [1] * 5
    assert other == 2
    for _ in range(4):
        await shared.release(("host", 1))
    assert backend.closed == []
    await shared.release(("host", 1))
    assert backend.closed == [1]
    await shared.release(("host", 2))
    assert backend.closed == [1, 2]
    assert shared._entries == {}


async def test_a_client_is_made_anew_after_the_last_user_left() -> None:
    shared, backend = SharedClients(), Backend()
    for number in (1, 2):
        assert await shared.acquire("key", backend.create, backend.close) == number
        await shared.release("key")
    assert backend.closed == [1, 2]


async def test_a_failure_reaches_its_caller_only_and_the_next_one_tries_again() -> None:
    shared, backend = SharedClients(), Backend()
    backend.failures = [UnavailableError("down")]
    results = await asyncio.gather(
        *(shared.acquire("key", backend.create, backend.close) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [UnavailableError, int, int]
    assert backend.made == 1
    for _ in range(2):
        await shared.release("key")
    assert backend.closed == [1]
    assert shared._entries == {}


async def test_a_lone_failure_leaves_nothing_behind() -> None:
    shared, backend = SharedClients(), Backend()
    backend.failures = [UnavailableError("down")]
    with pytest.raises(UnavailableError):
        await shared.acquire("key", backend.create, backend.close)
    assert shared._entries == {}
    await shared.release("key")
    assert backend.closed == []


@pytest.mark.parametrize("cancelled", ["the one that creates", "one that waits"])
async def test_a_cancelled_user_does_not_disturb_the_others(cancelled: str) -> None:
    shared, backend = SharedClients(), Backend()
    backend.gate = Gate()
    users = [asyncio.create_task(shared.acquire("key", backend.create, backend.close)) for _ in range(3)]
    await backend.gate.reached.wait()
    await asyncio.sleep(0)
    victim = users.pop(0 if cancelled == "the one that creates" else 1)
    victim.cancel()
    await asyncio.wait([victim])
    assert victim.cancelled()
    backend.gate.go.set()
    assert await asyncio.gather(*users) == [1, 1]
    for _ in users:
        await shared.release("key")
    assert backend.closed == [1]
    assert shared._entries == {}


async def test_a_client_whose_last_user_is_cancelled_before_it_got_it_is_closed() -> None:
    shared, backend = SharedClients(), Backend()
    backend.gate = Gate()

    async def first() -> None:
        await shared.acquire("key", backend.create, backend.close)
        await shared.release("key")
        second.cancel()

    async def other() -> None:
        await shared.acquire("key", backend.create, backend.close)

    task = asyncio.create_task(first())
    await backend.gate.reached.wait()
    second = asyncio.create_task(other())
    await asyncio.sleep(0)
    backend.gate.go.set()
    await task
    await asyncio.wait([second])
    assert second.cancelled()
    assert backend.closed == [1]
    assert shared._entries == {}


async def test_a_client_that_does_not_close_is_forgotten_all_the_same() -> None:
    async def broken(client: int) -> None:
        raise OSError("cannot close")

    shared, backend = SharedClients(), Backend()
    await shared.acquire("key", backend.create, broken)
    with pytest.raises(OSError, match="cannot close"):
        await shared.release("key")
    await shared.release("key")
    assert await shared.acquire("key", backend.create, backend.close) == 2


async def test_someone_who_comes_while_the_client_closes_gets_a_new_one() -> None:
    shared, backend, gate = SharedClients(), Backend(), Gate()

    async def slowly(client: int) -> None:
        await gate()
        backend.closed.append(client)

    await shared.acquire("key", backend.create, slowly)
    leaving = asyncio.create_task(shared.release("key"))
    await gate.reached.wait()
    assert await shared.acquire("key", backend.create, backend.close) == 2
    gate.go.set()
    await leaving
    assert backend.closed == [1]
    await shared.release("key")
    assert backend.closed == [1, 2]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_every_client_is_closed_once_and_none_while_in_use(seed: int) -> None:
    chance = random.Random(seed)
    shared, open_clients, in_use = SharedClients(), set[int](), list[int]()
    made = 0

    async def create() -> int:
        nonlocal made
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            raise UnavailableError("down")
        made += 1
        open_clients.add(made)
        return made

    async def close(client: int) -> None:
        assert client not in in_use
        open_clients.remove(client)
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)

    async def use() -> None:
        key = chance.choice("ab")
        try:
            client = await shared.acquire(key, create, close)
        except UnavailableError:
            return
        in_use.append(client)
        try:
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
                assert client in open_clients
        finally:
            in_use.remove(client)
            await shared.release(key)

    users = [asyncio.create_task(use()) for _ in range(40)]
    while not all(user.done() for user in users):
        await asyncio.sleep(0)
        if chance.random() < 0.3:
            chance.choice(users).cancel()
    errors = [user.exception() for user in users if not user.cancelled()]
    assert errors == [None] * len(errors)
    assert open_clients == set()
    assert shared._entries == {}
    assert made > 0


def test_contexts_do_not_share_unless_told_to() -> None:
    assert DriverContext(component="a").shared is not DriverContext(component="b").shared
    assert DriverContext(component="a").logger.name == "lapel.component.a"
