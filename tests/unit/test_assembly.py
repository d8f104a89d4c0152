"""Assembly: what opens, in which order, what is shared, what is closed again, and what a failure says."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit import sample_drivers
from tests.unit.sample_drivers import World, registry

import lapel
from lapel import assembly as assembly_module
from lapel import component as component_module
from lapel.assembly import Components, open_components
from lapel.component import HealthState
from lapel.errors import (
    AssemblyError,
    ClosedError,
    LapelError,
    ManifestError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from lapel.manifest import Manifest, SecretRef
from lapel.opening import Opening


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    fresh = World()
    monkeypatch.setattr(sample_drivers, "world", fresh)
    return fresh


@pytest.fixture
def quick_revival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component_module, "REOPEN_SECONDS", (0.001, 0.002))
    monkeypatch.setattr(assembly_module, "REOPEN_SECONDS", (0.001, 0.002))


def state(name: str, backend: str = "b1", **more: Any) -> Manifest:
    metadata = {"backend": backend, **more.pop("metadata", {})}
    return Manifest.of(name, "state.sample", metadata, **more)


def secrets(name: str, **more: Any) -> Manifest:
    return Manifest.of(name, "secretstores.sample", **more)


def opening(*manifests: Any, **more: Any) -> Opening[Components]:
    return open_components(list(manifests), registry=more.pop("registry", None) or registry(), **more)


def failures(caught: pytest.ExceptionInfo[AssemblyError]) -> dict[str | None, LapelError]:
    return {error.component: error for error in caught.value.exceptions if isinstance(error, LapelError)}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.001)


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


# files


async def test_files_scopes_environment_and_secrets_work_together(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMPLE_BACKEND", "from-environment")
    world.secrets = {"database": {"password": "hunter2"}}
    (tmp_path / "state.yaml").write_text("""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: db}
spec:
  type: state.sample
  version: v1
  metadata:
  - {name: backend, envRef: SAMPLE_BACKEND}
  - name: password
    secretKeyRef: {name: database, key: password}
auth: {secretStore: vault}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: not-ours}
spec: {type: state.sample, metadata: [{name: backend, value: b9}]}
scopes: [another-app]
""")
    (tmp_path / "vault.yml").write_text("""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.sample}
""")
    async with open_components(tmp_path, app_id="shop", registry=registry()) as components:
        assert set(components.manifests) == {"db", "vault"}
        settings: Any = world.seen["db"]
        assert settings.backend == "from-environment"
        assert settings.password.reveal() == "hunter2"
        assert components.state("db").options.app_id == "shop"


def document(spec: str) -> str:
    return f"{{apiVersion: dapr.io/v1alpha1, kind: Component, metadata: {{name: x}}, spec: {{{spec}}}}}"


BROKEN = {
    "yaml": ("metadata: [unclosed", r"broken\.yaml:\d+"),
    "empty": ("", "is empty"),
    "type": (document("type: state.smaple"), "did you mean 'sample'"),
    "version": (document("type: state.sample, version: v7"), "version 'v7' is not installed; there is v1, v2"),
    "field": (
        document("type: state.sample, metadata: [{name: backend, value: b}, {name: sise, value: '3'}]"),
        "did you mean 'size'",
    ),
    "required": (document("type: state.sample"), "is required"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_faulty_file_is_refused_before_anything_opens(tmp_path: Path, world: World, case: str) -> None:
    text, expected = BROKEN[case]
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ManifestError, match=expected) as caught:
        await opening(tmp_path, state("good"))
    assert world.journal == []
    assert any(problem.file == str(tmp_path / "broken.yaml") for problem in caught.value.problems)


async def test_all_faults_of_all_files_come_in_one_error(tmp_path: Path) -> None:
    for case, (text, _) in BROKEN.items():
        (tmp_path / f"{case}.yaml").write_text(text.replace("name: x", f"name: {case}"))
    with pytest.raises(ManifestError) as caught:
        await opening(tmp_path)
    assert {Path(problem.file or "").stem for problem in caught.value.problems} == set(BROKEN)


async def test_a_direction_that_a_binding_does_not_have_is_found_offline(world: World) -> None:
    with pytest.raises(
        ManifestError, match=r"'direction': direction names 'input', but bindings\.sample offers output"
    ):
        await opening(Manifest.of("out", "bindings.sample", {"direction": "input"}), state("db"))
    assert world.journal == []


async def test_settings_that_do_not_load_are_found_offline(world: World) -> None:
    odd = replace(sample_drivers.STATE, name="odd", settings="tests.unit.sample_drivers:Absent")
    with pytest.raises(ManifestError, match=r"state\.odd v1: the settings '.*:Absent' of lapel do not load"):
        await opening(Manifest.of("x", "state.odd"), state("db"), registry=registry(odd))
    assert world.journal == []


async def test_two_components_of_one_name_are_refused(world: World) -> None:
    with pytest.raises(ManifestError, match="the name is taken already"):
        await opening(state("db"), state("db", "b2"))
    assert world.journal == []


async def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ManifestError, match="the folder cannot be read: Permission denied"):
        await opening(tmp_path)


async def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent: does not exist"):
        await opening(tmp_path / "absent")


async def test_unknown_fields_can_be_tolerated(caplog: pytest.LogCaptureFixture) -> None:
    async with opening(state("db", metadata={"sise": "3"}), unknown="warn") as components:
        assert "db" in components
    assert [record.getMessage() for record in caplog.records if "did you mean 'size'" in record.getMessage()] != []
    assert sum("sise" in record.getMessage() for record in caplog.records) == 1


# secrets


async def test_a_circle_of_secret_stores_is_named(world: World) -> None:
    ring = [
        secrets(name, metadata={"token": SecretRef("s", "k")}, secret_store=store)
        for name, store in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    with pytest.raises(ManifestError, match=r"in a circle: \w( -> \w){3}") as caught:
        await opening(*ring, state("db"))
    assert len(caught.value.problems) == 1
    assert world.journal == []


async def test_a_secret_store_that_is_not_there_is_named() -> None:
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="absent")
    with pytest.raises(ManifestError, match="there is no secret store 'absent'; there are: vault"):
        await opening(db, secrets("vault"))


async def test_a_secret_without_a_store_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"names no store; set auth\.secretStore"):
        await opening(state("db", metadata={"password": SecretRef("s", "k")}))


@pytest.mark.parametrize("stored", [{}, {"s": {"another": "x"}}])
async def test_a_secret_that_does_not_exist_fails_its_component(
    world: World, stored: dict[str, dict[str, str]]
) -> None:
    world.secrets = stored
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault")
    with pytest.raises(AssemblyError) as caught:
        await opening(db, secrets("vault"))
    error = failures(caught)["db"]
    assert isinstance(error, SettingsError)
    assert "field 'password': needs the secret 's' with key 'k'" in str(error)
    assert world.open == []


async def test_a_secret_that_may_not_be_read_names_component_and_store(world: World) -> None:
    world.down.add("s-forbidden")
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault")
    with pytest.raises(AssemblyError) as caught:
        await opening(db, secrets("vault"))
    error = failures(caught)["db"]
    assert isinstance(error, PermissionDeniedError)
    assert "cannot read the secret 's': component 'vault'" in str(error)


async def test_no_error_shows_a_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.secrets = {"s": {"k": "canary-4711"}}
    db = state("db", metadata={"size": SecretRef("s", "k")}, secret_store="vault")
    with pytest.raises(AssemblyError) as caught:
        await opening(db, secrets("vault"))
    assert "expected" in str(failures(caught)["db"])
    assert "canary" not in "".join([str(caught.value), *map(str, caught.value.exceptions), caplog.text])


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


@pytest.mark.usefixtures("quick_revival")
async def test_a_degraded_component_may_be_replaced_by_another(world: World) -> None:
    world.down |= {"b1", "b2"}
    async with opening(state("db", "b1", ignore_errors=True)) as components:
        await components.replace(state("db", "b2", ignore_errors=True))
        world.down.discard("b2")
        await until(lambda: _healthy(components, "db"))
        settings: Any = world.seen["db"]
        assert settings.backend == "b2"


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


# with the drivers that ship with lapel


async def test_a_secret_from_a_file_opens_a_database(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    (tmp_path / "secrets.json").write_text(json.dumps({"database": {"path": str(database)}}))
    (tmp_path / "components.yaml").write_text(f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.sqlite
  version: v1
  metadata:
  - name: connectionString
    secretKeyRef: {{name: "database:path", key: "database:path"}}
auth: {{secretStore: files}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: files}}
spec:
  type: secretstores.local.file
  version: v1
  metadata:
  - {{name: secretsFile, value: "{tmp_path / "secrets.json"}"}}
""")
    for _ in range(2):
        async with lapel.open_components(tmp_path / "components.yaml", app_id="shop") as components:
            store = components.state("statestore")
            if await store.get("key") is None:
                await store.set("key", {"kept": True})
                continue
            item = await store.get("key")
            assert item is not None
            assert item.json() == {"kept": True}
    assert database.exists()
