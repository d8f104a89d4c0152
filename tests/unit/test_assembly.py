"""Assembly: what opens, in which order, what is shared, how a component is found, changed and closed again."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.unit import sample_drivers
from tests.unit.assembly_support import opening, secrets, state
from tests.unit.assembly_support import world as world
from tests.unit.sample_drivers import World

from lapel.component import HealthState
from lapel.errors import AssemblyError, ClosedError, ManifestError, NotFoundError, UnavailableError
from lapel.manifest import Manifest, SecretRef

# order and sharing


async def test_secret_stores_open_before_and_close_after_everything_else(world: World) -> None:
    world.secrets = {"inner": {"token": "t"}, "outer": {"password": "p"}}
    manifests = [
        state("db", metadata={"password": SecretRef("outer", "password")}, secret_store="second"),
        secrets("second", metadata={"token": SecretRef("inner", "token")}, secret_store="first"),
        secrets("first"),
    ]
    async with opening(*manifests):
        assert world.journal == ["open first", "open second", "open db"]
    assert world.journal[3:] == ["close db", "close second", "close first"]


async def test_components_of_one_wave_open_concurrently(world: World) -> None:
    arrivals = [world.hang("b1"), world.hang("b2")]
    task = asyncio.ensure_future(opening(state("one", "b1"), state("two", "b2")).__aenter__())
    for arrived in arrivals:
        await asyncio.wait_for(arrived.wait(), 10)
    for gate in world.hanging.values():
        gate.set()
    components = await task
    assert sorted(world.open) == ["one", "two"]
    await components.aclose()


async def test_one_backend_has_one_client_until_its_last_component_closes(world: World) -> None:
    async with opening(state("one"), state("two"), state("other", "b2")) as components:
        assert world.clients == 2
        await components.state("one").set("key", b"value")
        item = await components.state("two").get("key")
        assert item is not None
        assert item.data == b"value"
        await components.remove("one")
        assert world.clients == 2
        await components.remove("two")
        assert world.clients == 1
    assert world.clients == 0


# access


async def test_components_are_found_by_name_and_kind() -> None:
    async with opening(state("db"), secrets("vault")) as components:
        assert components.state("db").name == "db"
        assert components.secret_store("vault").type == "secretstores.sample"
        assert len(components) == 2
        assert {each.name for each in components} == {"db", "vault"}
        assert "db" in components
        with pytest.raises(NotFoundError, match="there is no component 'nope'; there are: db, vault"):
            components.state("nope")
        with pytest.raises(NotFoundError, match=r"'db' is a state\.sample, not of kind lock"):
            components.lock("db")


async def test_a_binding_without_the_side_asked_for_says_so() -> None:
    async with opening(Manifest.of("out", "bindings.sample")) as components:
        assert components.output_binding("out").name == "out"
        with pytest.raises(NotFoundError, match="has no input side"):
            components.input_binding("out")


async def test_health_covers_every_component(world: World) -> None:
    async with opening(state("good", "b1"), state("bad", "b2")) as components:
        world.down.add("b2-ping")
        health = await components.health()
    assert health["good"].ok
    assert health["bad"].state is HealthState.RECONNECTING
    assert "no pong" in (health["bad"].reason or "")


# add, replace, remove


async def test_components_are_added_and_removed_one_at_a_time(world: World) -> None:
    async with opening(secrets("vault")) as components:
        world.secrets = {"s": {"k": "v"}}
        await components.add(state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault"))
        assert world.open == ["vault", "db"]
        with pytest.raises(ManifestError, match="a component of this name is open already"):
            await components.add(state("db"))
        await components.remove("db")
        assert world.open == ["vault"]
        with pytest.raises(NotFoundError):
            await components.remove("db")


async def test_a_load_that_fails_leaves_what_was_open(world: World) -> None:
    world.down.add("b2")
    async with opening(state("db")) as components:
        with pytest.raises(AssemblyError):
            await components.load([state("more"), state("bad", "b2")])
        assert world.open == ["db"]
        assert set(components.manifests) == {"db"}


async def test_replacing_opens_the_new_one_before_the_old_one_closes(world: World) -> None:
    async with opening(state("db", "b1")) as components:
        old = components.state("db")
        world.journal.clear()
        await components.replace(state("db", "b2"))
        assert world.journal == ["open db", "close db"]
        assert components.state("db") is not old
        with pytest.raises(ClosedError):
            await old.get("key")
        assert await components.state("db").get("key") is None
    assert world.clients == 0


async def test_replacing_a_name_that_is_not_open_adds_it(world: World) -> None:
    async with opening() as components:
        await components.replace(state("db"))
        assert world.open == ["db"]
    assert world.open == []


@pytest.mark.parametrize("tolerated", [False, True])
@pytest.mark.parametrize("down", ["b2", "b2-ping"])
async def test_the_old_one_stays_when_the_new_one_fails(world: World, down: str, tolerated: bool) -> None:
    world.down.add(down)
    async with opening(state("db", "b1")) as components:
        old = components.state("db")
        with pytest.raises(UnavailableError):
            await components.replace(state("db", "b2", ignore_errors=tolerated))
        assert components.state("db") is old
        assert await old.get("key") is None
        assert world.clients == 1
        with pytest.raises(ManifestError):
            await components.replace(Manifest.of("db", "state.sample", {"nonsense": "1"}))
        assert components.state("db") is old


async def test_cancelled_replacing_keeps_the_old_one(world: World) -> None:
    arrived = world.hang("b2")
    async with opening(state("db", "b1")) as components:
        task = asyncio.create_task(components.replace(state("db", "b2")))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await components.state("db").get("key") is None
        assert world.clients == 1


# the end


async def test_closing_is_idempotent_and_final(world: World) -> None:
    components = await opening(state("db"), secrets("vault"))
    await asyncio.gather(components.aclose(), components.aclose())
    await components.aclose()
    assert world.journal.count("close db") == 1
    assert world.journal[-1] == "close vault"
    with pytest.raises(ClosedError):
        components.state("db")
    with pytest.raises(ClosedError):
        await components.add(state("more"))


async def test_a_component_that_fails_to_close_does_not_keep_the_others_open(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    close = sample_drivers.SampleState.close

    async def failing(self: sample_drivers.SampleState) -> None:
        await close(self)
        raise OSError("no")

    monkeypatch.setattr(sample_drivers.SampleState, "close", failing)
    async with opening(state("one"), state("two", "b2"), secrets("vault")):
        caplog.set_level(logging.ERROR)
    assert world.open == []
    assert "closing one failed" in caplog.text


async def test_a_cancelled_close_still_closes_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    components = await opening(state("db"), secrets("vault"))
    reached, gate = asyncio.Event(), asyncio.Event()
    close = sample_drivers.SampleState.close

    async def slow(self: sample_drivers.SampleState) -> None:
        reached.set()
        await gate.wait()
        await close(self)

    monkeypatch.setattr(sample_drivers.SampleState, "close", slow)
    task = asyncio.create_task(components.aclose())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await components.aclose()
    assert world.open == []
