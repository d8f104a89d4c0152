"""Assembly when components fail: all is reported and closed, or, where it is tolerated, tried until it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.unit import sample_drivers
from tests.unit.assembly_support import failures, opening, secrets, state
from tests.unit.assembly_support import world as world
from tests.unit.sample_drivers import World

from lapel import assembly as assembly_module
from lapel import component as component_module
from lapel.assembly import Components
from lapel.component import HealthState
from lapel.errors import AssemblyError, ClosedError, OperationFailedError, UnavailableError
from lapel.manifest import Manifest, SecretRef


@pytest.fixture
def quick_revival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component_module, "REOPEN_SECONDS", (0.001, 0.002))
    monkeypatch.setattr(assembly_module, "REOPEN_SECONDS", (0.001, 0.002))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.001)


# failures


async def test_every_failure_is_reported_and_everything_is_closed(world: World) -> None:
    world.down |= {"b2", "vault"}
    world.secrets = {"s": {"k": "v"}}
    manifests = [
        state("good"),
        state("bad", "b2"),
        secrets("vault"),
        state("needy", metadata={"password": SecretRef("s", "k")}, secret_store="vault"),
        Manifest.of("broken", "state.sample", version="v2"),
    ]
    with pytest.raises(AssemblyError) as caught:
        await opening(*manifests)
    found = failures(caught)
    assert set(found) == {"bad", "vault", "needy", "broken"}
    assert "its secret store 'vault' did not open" in str(found["needy"])
    assert isinstance(found["broken"], OperationFailedError)
    assert "4 of 5 components failed to open" in str(caught.value)
    assert "component 'bad' (state.sample) open: the backend 'b2' does not answer" in str(caught.value)
    assert world.open == []
    assert world.clients == 0


async def test_a_backend_that_never_answers_fails_by_init_timeout(world: World) -> None:
    world.hang("b1")
    slow = Manifest.of("slow", "state.sample", {"backend": "b1"}, init_timeout=timedelta(seconds=0.01))
    with pytest.raises(AssemblyError) as caught:
        await opening(slow)
    assert isinstance(failures(caught)["slow"], UnavailableError)
    assert world.clients == 0


async def test_cancelled_opening_leaves_nothing_open(world: World) -> None:
    arrived = world.hang("b2")
    task = asyncio.ensure_future(opening(secrets("vault"), state("quick"), state("slow", "b2")).__aenter__())
    await arrived.wait()
    await until(lambda: _true("quick" in world.open))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.open == []
    assert world.clients == 0
    assert world.journal[-1] == "close vault"


async def test_a_second_cancellation_does_not_stop_the_closing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, closing, gate = world.hang("b2"), asyncio.Event(), asyncio.Event()
    close = sample_drivers.SampleState.close

    async def slow_close(self: sample_drivers.SampleState) -> None:
        if self.context.component == "quick":
            closing.set()
            await gate.wait()
        await close(self)

    monkeypatch.setattr(sample_drivers.SampleState, "close", slow_close)
    task = asyncio.ensure_future(opening(secrets("vault"), state("quick"), state("slow", "b2")).__aenter__())
    await arrived.wait()
    await until(lambda: _true("quick" in world.open))
    task.cancel()
    await closing.wait()
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.open == []


async def _true(value: bool) -> bool:
    return value


# ignoreErrors


@pytest.mark.usefixtures("quick_revival")
async def test_a_tolerated_failure_starts_degraded_and_recovers(world: World) -> None:
    world.down.add("b2")
    async with opening(state("good"), state("bad", "b2", ignore_errors=True)) as components:
        assert (await components.health())["bad"].state is HealthState.DEGRADED
        store = components.state("bad")
        with pytest.raises(UnavailableError, match="keeps trying"):
            await store.get("key")
        world.down.clear()
        await until(lambda: _healthy(components, "bad"))
        await store.set("key", b"value")
    assert world.open == []


async def _healthy(components: Components, name: str) -> bool:
    return (await components.health())[name].ok


@pytest.mark.usefixtures("quick_revival")
async def test_a_degraded_component_stops_trying_when_it_closes(world: World) -> None:
    world.down.add("b2")
    async with opening(state("bad", "b2", ignore_errors=True)):
        pass
    world.down.clear()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("lapel")]
    assert world.open == []


async def test_a_degraded_component_may_be_closed_from_several_tasks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component_module, "REOPEN_SECONDS", (0.001, 0.002))
    closed: list[object] = []
    close = sample_drivers.SampleState.close

    async def counting(self: sample_drivers.SampleState) -> None:
        closed.append(self)
        await asyncio.sleep(0)
        await close(self)

    monkeypatch.setattr(sample_drivers.SampleState, "close", counting)
    world.down.add("b2")
    components = await opening(state("bad", "b2", ignore_errors=True))
    arrived = world.hang("b2")
    await arrived.wait()
    store = components.state("bad")
    await asyncio.gather(store.aclose(), store.aclose(), components.aclose())
    await store.aclose()
    assert len(closed) == len(set(map(id, closed)))
    assert (await store.health()).state is HealthState.CLOSED
    with pytest.raises(ClosedError):
        await store.get("key")


async def test_a_tolerated_component_that_cannot_be_built_is_left_out(world: World) -> None:
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault", ignore_errors=True)
    async with opening(db, secrets("vault")) as components:
        assert list(components.failures) == ["db"]
        assert (await components.health())["db"].state is HealthState.DEGRADED
        with pytest.raises(UnavailableError, match=r"was left out when the components opened: .*needs the secret"):
            components.state("db")
        world.secrets = {"s": {"k": "v"}}
        await components.add(db)
        assert components.failures == {}
        assert components.state("db").name == "db"


@pytest.mark.usefixtures("quick_revival")
async def test_a_component_opens_as_soon_as_its_tolerated_secret_store_answers(world: World) -> None:
    world.down.add("vault")
    world.secrets = {"s": {"k": "v"}}
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault", ignore_errors=True)
    async with opening(db, secrets("vault", ignore_errors=True)) as components:
        assert list(components.failures) == ["db"]
        world.down.clear()
        await until(lambda: _true("db" in components))
        assert (await components.health())["db"].ok
        assert components.failures == {}
    assert world.open == []


@pytest.mark.usefixtures("quick_revival")
@pytest.mark.parametrize("end", ["close", "remove", "replace"])
async def test_waiting_for_a_secret_store_ends_with_the_component(world: World, end: str) -> None:
    world.down.add("vault")
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault", ignore_errors=True)
    components = await opening(db, secrets("vault", ignore_errors=True))
    if end == "remove":
        await components.remove("db")
    elif end == "replace":
        await components.replace(state("db"))
    else:
        await components.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "lapel reopen db"]
    await components.aclose()
    assert world.open == []


@pytest.mark.usefixtures("quick_revival")
async def test_a_degraded_component_may_be_replaced_by_another(world: World) -> None:
    world.down |= {"b1", "b2"}
    async with opening(state("db", "b1", ignore_errors=True)) as components:
        await components.replace(state("db", "b2", ignore_errors=True))
        world.down.discard("b2")
        await until(lambda: _healthy(components, "db"))
        settings: Any = world.seen["db"]
        assert settings.backend == "b2"
