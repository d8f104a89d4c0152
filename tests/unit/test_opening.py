"""`open_state` and its siblings: components without files."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit import sample_drivers
from tests.unit.sample_drivers import STATE, World, registry

import lapel
from lapel.descriptor import Capability
from lapel.errors import (
    ConfigurationError,
    DriverNotFoundError,
    MissingExtraError,
    OperationFailedError,
    SettingsError,
    UnavailableError,
    UnsupportedError,
)
from lapel.policy import RetryPolicy


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    fresh = World()
    monkeypatch.setattr(sample_drivers, "world", fresh)
    return fresh


@pytest.mark.parametrize("given", [{"backend": "b7"}, {"host": "b7"}, {"settings": {"Backend": "b7"}}])
async def test_settings_are_keywords_or_a_mapping(world: World, given: dict[str, Any]) -> None:
    async with lapel.open_state("sample", registry=registry(), **given) as store:
        settings: Any = world.seen["sample"]
        assert settings.backend == "b7"
        assert store.name == "sample"
    assert world.open == []


async def test_awaiting_opens_and_leaves_closing_to_the_caller(world: World) -> None:
    store = await lapel.open_state("sample", backend="b1", name="db", registry=registry())
    assert world.open == ["db"]
    await store.aclose()
    assert world.open == []


async def test_options_shape_the_component_and_are_no_settings() -> None:
    opening = lapel.open_state(
        "sample",
        backend="b1",
        name="db",
        app_id="shop",
        namespace="prod",
        retries=RetryPolicy.off(),
        call_timeout=timedelta(seconds=1),
        init_timeout=timedelta(seconds=2),
        envelope=False,
        registry=registry(),
    )
    async with opening as store:
        assert store.options == lapel.ComponentOptions(
            app_id="shop",
            namespace="prod",
            retries=store.options.retries,
            call_timeout=timedelta(seconds=1),
            init_timeout=timedelta(seconds=2),
            envelope=False,
        )


async def test_wrong_settings_come_in_one_error(world: World) -> None:
    with pytest.raises(SettingsError) as caught:
        await lapel.open_state("sample", sise=1, size=0, password="canary", registry=registry())
    assert {problem.field for problem in caught.value.problems} == {"sise", "size", "backend"}
    assert "component 'sample' (state.sample)" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert world.journal == []


async def test_a_capability_that_is_required_and_missing_stops_before_opening(world: World) -> None:
    with pytest.raises(UnsupportedError, match=r"does not offer QUERY_API; installed drivers that do: .*in-memory"):
        await lapel.open_state(
            "sample", backend="b1", require=Capability.ETAG | Capability.QUERY_API, registry=registry()
        )
    assert world.journal == []


async def test_a_required_capability_that_opening_withdraws_closes_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = sample_drivers.SampleState.open

    async def withdrawing(self: sample_drivers.SampleState) -> None:
        await open_(self)
        self.withdraw(Capability.ETAG, "the server is too old")

    monkeypatch.setattr(sample_drivers.SampleState, "open", withdrawing)
    with pytest.raises(UnsupportedError, match="withdrawn at open: the server is too old"):
        await lapel.open_state("sample", backend="b1", require=Capability.ETAG, registry=registry())
    assert world.open == []
    assert world.clients == 0


async def test_a_required_capability_that_is_there_opens() -> None:
    async with lapel.open_state("sample", backend="b1", require=Capability.ETAG, registry=registry()) as store:
        assert Capability.ETAG in store.capabilities


async def test_an_unknown_driver_or_version_lists_what_there_is() -> None:
    with pytest.raises(DriverNotFoundError, match="did you mean 'sample'"):
        await lapel.open_state("smaple", registry=registry())
    with pytest.raises(DriverNotFoundError, match="there is v1, v2"):
        await lapel.open_state("sample", version="v3", registry=registry())


async def test_a_missing_extra_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = replace(STATE, name="needy", extra="rare", driver="tests.unit.needs_an_sdk:Driver")

    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'rare_sdk'", name="rare_sdk")

    monkeypatch.setattr("lapel.registry.import_module", absent)
    with pytest.raises(MissingExtraError) as caught:
        await lapel.open_state("needy", backend="b1", registry=registry(needy))
    assert caught.value.command == 'pip install "lapel[rare]"'
    assert caught.value.command in str(caught.value)


async def test_a_driver_that_cannot_be_built_or_described_is_named() -> None:
    with pytest.raises(OperationFailedError, match="raised ZeroDivisionError while it was built"):
        await lapel.open_state("sample", version="v2", registry=registry())
    odd = replace(STATE, name="odd", settings="tests.unit.sample_drivers:Absent")
    with pytest.raises(
        ConfigurationError, match=r"the settings 'tests\.unit\.sample_drivers:Absent' of lapel do not load"
    ):
        await lapel.open_state("odd", registry=registry(odd))


async def test_a_binding_opens_one_side_only(world: World) -> None:
    async with lapel.open_output_binding("sample", registry=registry()) as binding:
        assert world.open == ["sample"]
        response = await binding.invoke("create", b"data")
        assert await response.read() == b"data"
    with pytest.raises(ConfigurationError, match="has no input side"):
        await lapel.open_input_binding("sample", registry=registry())
    with pytest.raises(ConfigurationError, match=r"direction names 'input', but bindings\.sample offers output"):
        await lapel.open_input_binding("sample", direction="input", registry=registry())


async def test_a_backend_that_is_down_fails(world: World) -> None:
    world.down.add("b1")
    with pytest.raises(UnavailableError, match="does not answer"):
        await lapel.open_state("sample", backend="b1", registry=registry())
    assert world.clients == 0


async def test_cancelled_opening_leaves_nothing_open(world: World) -> None:
    arrived = world.hang("b1")
    opening = lapel.open_state("sample", backend="b1", registry=registry())
    task = asyncio.ensure_future(opening.__aenter__())
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.clients == 0
    assert world.open == []


async def test_every_kind_has_its_function(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (tmp_path / "configuration.yaml").write_text("{a: b}")
    async with (
        lapel.open_state("in-memory") as state,
        lapel.open_pubsub("in-memory") as pubsub,
        lapel.open_output_binding("localstorage", rootPath=str(tmp_path)) as output,
        lapel.open_input_binding("cron", schedule="@every 1h") as input_,
        lapel.open_secret_store("local.env") as secrets,
        lapel.open_configuration("local.file", path=str(tmp_path / "configuration.yaml")) as configuration,
        lapel.open_lock("in-memory") as lock,
        lapel.open_crypto("dapr.localstorage", path=str(keys)) as crypto,
    ):
        opened: list[lapel.Component[Any]] = [state, pubsub, output, input_, secrets, configuration, lock, crypto]
        assert [each.type for each in opened] == [
            "state.in-memory",
            "pubsub.in-memory",
            "bindings.localstorage",
            "bindings.cron",
            "secretstores.local.env",
            "configuration.local.file",
            "lock.in-memory",
            "crypto.dapr.localstorage",
        ]
