"""What holds for every output binding: operations, data, repeats and errors; and which directions may be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.bindings_support import DESCRIPTOR, ScriptedBinding, chunks, fail

from lapel.bindings import BindingResponse, BindingSettings, InputBinding, InvokeRequest, OutputBinding
from lapel.descriptor import Capability
from lapel.errors import (
    ClosedError,
    InvalidArgumentError,
    LapelError,
    NotOpenError,
    SettingsError,
    UnavailableError,
    UnsupportedError,
)
from lapel.policy import Effect

# invoke


async def test_operations_match_without_case_and_reach_the_driver_as_declared() -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        for name in ("bulkGet", "BULKGET", "bulkget"):
            await binding.invoke(name)
        driver = binding.driver
        assert isinstance(driver, ScriptedBinding)
        assert [request.operation for request in driver.requests] == ["bulkGet"] * 3
        assert binding.operations == ("create", "get", "bulkGet")


@pytest.mark.parametrize("name", ["delete", "", " get"])
async def test_an_operation_that_is_not_offered_is_refused_with_those_that_are(name: str) -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        with pytest.raises(UnsupportedError, match="create, get, bulkGet"):
            await binding.invoke(name)


@pytest.mark.parametrize(
    ("data", "sent"),
    [(None, None), (b"\x00\xff", b"\x00\xff"), (b"", b""), ("text", b'"text"'), ({"a": [1, None]}, b'{"a":[1,null]}')],
)
async def test_bytes_go_out_as_they_are_and_values_as_json(data: Any, sent: bytes | None) -> None:
    driver = ScriptedBinding()
    async with OutputBinding(driver) as binding:
        await binding.invoke("create", data, metadata={"k": "v"})
    assert driver.requests == [InvokeRequest("create", sent, {"k": "v"})]


@pytest.mark.parametrize("data", [float("nan"), object(), "\ud800"])
async def test_what_json_cannot_hold_is_refused(data: Any) -> None:
    driver = ScriptedBinding()
    async with OutputBinding(driver) as binding:
        with pytest.raises(InvalidArgumentError):
            await binding.invoke("create", data)
    assert driver.requests == []


async def test_metadata_that_is_not_text_is_refused() -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        for metadata in ({"a": 1}, {1: "a"}, ["a"]):
            with pytest.raises(InvalidArgumentError, match="metadata"):
                await binding.invoke("create", metadata=metadata)  # type: ignore[arg-type]  # wrong on purpose


async def test_reading_operations_are_repeated_and_others_never() -> None:
    driver = ScriptedBinding()

    def fail_once(request: InvokeRequest) -> BindingResponse:
        if len(driver.requests) == 1:
            raise UnavailableError("not now")
        return BindingResponse(b"done")

    driver.script = fail_once
    async with OutputBinding(driver) as binding:
        assert (await binding.invoke("get")).data == b"done"
        for operation in ("create", "bulkGet"):
            driver.requests.clear()
            with pytest.raises(UnavailableError):
                await binding.invoke(operation)
            assert len(driver.requests) == 1


async def test_a_driver_may_declare_what_an_operation_does() -> None:
    class Reading(ScriptedBinding):
        def effect(self, operation: str) -> Effect:
            return Effect.SAFE

    driver = Reading()
    driver.script = lambda request: BindingResponse(b"done") if len(driver.requests) > 1 else fail()
    async with OutputBinding(driver) as binding:
        assert (await binding.invoke("create")).data == b"done"


async def test_the_callers_metadata_and_data_stay_as_they_were() -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        metadata, data = {"a": "b"}, {"x": [1]}
        await binding.invoke("create", data, metadata=metadata)
        assert metadata == {"a": "b"}
        assert data == {"x": [1]}


async def test_used_before_open_and_after_close() -> None:
    binding = OutputBinding(ScriptedBinding())
    for data in (b"", chunks()):
        with pytest.raises(NotOpenError):
            await binding.invoke("create", data)
    await binding.open()
    await binding.aclose()
    for name in ("create", "unknown"):
        with pytest.raises(ClosedError):
            await binding.invoke(name)


def test_reply_errors_are_also_the_general_ones() -> None:
    from lapel import bindings
    from lapel.errors import NotFoundError

    response = BindingResponse(b"why")
    error: LapelError = bindings.NotFoundReplyError("gone", response)
    assert isinstance(error, NotFoundError)
    assert isinstance(error, bindings.ReplyError)
    assert error.response is response
    assert "why" not in str(error)
    assert bindings.ThrottledReplyError("slow", response).retryable
    assert not bindings.ReplyError("no", response).retryable


# direction


async def test_a_direction_that_the_file_rules_out_does_not_open() -> None:
    with pytest.raises(UnsupportedError, match="direction"):
        await OutputBinding(ScriptedBinding("input")).open()
    with pytest.raises(UnsupportedError, match="direction"):
        await InputBinding(ScriptedBinding("output")).open()
    async with OutputBinding(ScriptedBinding("input, output")), InputBinding(ScriptedBinding("Input")):
        pass


async def test_a_direction_that_the_driver_lacks_does_not_open() -> None:
    class OutputOnly(ScriptedBinding):
        descriptor = replace(DESCRIPTOR, capabilities=Capability.OUTPUT)

    with pytest.raises(UnsupportedError, match="no input side"):
        await InputBinding(OutputOnly()).open()


def test_a_direction_that_the_driver_does_not_have_is_a_wrong_setting() -> None:
    class Settings(BindingSettings):
        offered_directions = ("input",)

    for direction in ("output", "input, output"):
        with pytest.raises(SettingsError, match="only input"):
            Settings.parse({"direction": direction})
    Settings.parse({"direction": "input"})
