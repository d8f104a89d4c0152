"""Secret stores: what `SecretStore` adds, and `secretstores.local.env`. Files are tested in test_local_files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.plain_component import Clock

from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
)
from lapel.secretstores import BulkSecretsRequest, GetSecretRequest, SecretStore, SecretValues
from lapel_contrib.local.env_secrets import EnvSecretStore
from lapel_contrib.local.settings import EnvSecretsSettings

CANARY = "canary-5f1c"

PLAIN = EnvSecretsSettings.parse({})
PREFIXED = EnvSecretsSettings.parse({"PREFIX": "LAPELTEST_"})


def env_store(settings: EnvSecretsSettings = PLAIN) -> SecretStore:
    return SecretStore(EnvSecretStore(settings, DriverContext(component="secrets")))


# the front


def test_values_are_shown_by_neither_repr_nor_str_and_cannot_be_edited() -> None:
    values = SecretValues("db", {"password": CANARY})
    assert CANARY not in f"{values!r} {values}"
    assert "password" in repr(values)
    with pytest.raises(TypeError):
        values["password"] = "other"  # type: ignore[index]  # what a careless caller writes


def test_values_compare_as_a_mapping() -> None:
    assert SecretValues("db", {"a": "1"}) == {"a": "1"}
    assert dict(SecretValues("db", {"a": "1", "b": "2"})) == {"a": "1", "b": "2"}


def test_value_is_the_only_field_and_several_fields_have_none() -> None:
    assert SecretValues("db", {"db": "1"}).value == "1"
    with pytest.raises(ValueError, match="2 fields") as caught:
        _ = SecretValues("db", {"a": CANARY, "b": CANARY}).value
    assert CANARY not in str(caught.value)


async def test_what_a_driver_returned_is_copied() -> None:
    shared = {"a": "1"}

    class Sharing(EnvSecretStore):
        async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
            return shared

    async with SecretStore(Sharing(PLAIN, DriverContext(component="secrets"))) as store:
        values = await store.get("x")
        shared["a"] = "2"
        assert values["a"] == "1"


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", 5, None])
async def test_names_that_are_not_usable_text_are_refused(name: Any) -> None:
    async with env_store() as store:
        with pytest.raises(InvalidArgumentError):
            await store.get(name)


async def test_calls_after_close_raise() -> None:
    store = await env_store().open()
    await store.aclose()
    for call in (store.get("x"), store.bulk_get()):
        with pytest.raises(ClosedError):
            await call


class Paged(EnvSecretStore):
    """Answers in three pages, each of which takes `seconds`, and is read by a task of its own."""

    def __init__(self, clock: Clock, seconds: float, *, steps: bool = True) -> None:
        super().__init__(PLAIN, DriverContext(component="secrets"))
        self._clock, self._seconds, self._steps = clock, seconds, steps
        self.request = BulkSecretsRequest()

    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Mapping[str, str]]:
        self.request = request

        async def page() -> None:
            self._clock.advance(self._seconds)
            for _ in range(5):
                # The loop has looked at its clock by then.
                await asyncio.sleep(0)
            if self._steps:
                request.step()

        for _ in range(3):
            await asyncio.create_task(page())
        return {"a": {"a": "1"}}


async def test_the_deadline_of_a_bulk_holds_for_each_page() -> None:
    clock = Clock()
    async with SecretStore(Paged(clock, 3)) as store:
        assert await store.bulk_get() == {"a": {"a": "1"}}
    for driver in (Paged(clock, 3, steps=False), Paged(clock, 6)):
        async with SecretStore(driver) as store:
            with pytest.raises(DeadlineExceededError, match="no answer within 5 s"):
                await store.bulk_get()


async def test_a_step_after_the_end_of_a_bulk_does_nothing() -> None:
    driver = Paged(Clock(), 0)
    async with SecretStore(driver) as store:
        await store.bulk_get()
        driver.request.step()
        assert store._deadlines is not None
        assert not store._deadlines.busy


# secretstores.local.env


async def test_a_variable_is_a_secret_with_one_field_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPELTEST_A", CANARY)
    async with env_store() as store:
        assert await store.get("LAPELTEST_A") == {"LAPELTEST_A": CANARY}


async def test_a_missing_variable_is_not_found_and_an_empty_one_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPELTEST_EMPTY", "")
    monkeypatch.delenv("LAPELTEST_MISSING", raising=False)
    async with env_store() as store:
        assert await store.get("LAPELTEST_EMPTY") == {"LAPELTEST_EMPTY": ""}
        for missing in ("LAPELTEST_MISSING", "a=b", "ü \n:/."):
            with pytest.raises(NotFoundError):
                await store.get(missing)


@pytest.mark.parametrize("value", ["ünïcode ☃", "-----BEGIN KEY-----\nabc\n-----END KEY-----\n", "x" * 65536, " a\tb "])
async def test_values_come_back_exactly(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LAPELTEST_A", value)
    async with env_store(PREFIXED) as store:
        assert (await store.get("A")).value == value
        assert (await store.bulk_get())["A"].value == value


async def test_the_prefix_is_put_before_names_and_taken_off_listed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LAPELTEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAPELTEST_A", "1")
    monkeypatch.setenv("LAPELTEST_", "the prefix itself has no name")
    monkeypatch.setenv("OTHER_B", "2")
    async with env_store(PREFIXED) as store:
        assert await store.get("A") == {"A": "1"}
        assert await store.bulk_get() == {"A": {"A": "1"}}
        with pytest.raises(NotFoundError):
            await store.get("OTHER_B")


async def test_changes_after_open_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    async with env_store() as store:
        for value in ("1", "2"):
            monkeypatch.setenv("LAPELTEST_A", value)
            assert (await store.get("LAPELTEST_A")).value == value


@pytest.mark.parametrize("variable", ["APP_API_TOKEN", "DAPR_API_TOKEN", "dapr_x", "App_Api_Token"])
async def test_the_runtimes_own_variables_are_hidden_in_get_and_bulk(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, CANARY)
    async with env_store() as store:
        with pytest.raises(NotFoundError) as caught:
            await store.get(variable)
        assert CANARY not in str(caught.value)
        assert variable not in await store.bulk_get()


async def test_a_prefix_does_not_uncover_hidden_variables(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("APP_API_TOKEN", CANARY)
    monkeypatch.setenv("DAPR_X", CANARY)
    async with env_store(EnvSecretsSettings.parse({"prefix": "APP_"})) as store:
        with pytest.raises(NotFoundError):
            await store.get("API_TOKEN")
        assert "API_TOKEN" not in await store.bulk_get()
    with caplog.at_level(logging.WARNING):
        async with env_store(EnvSecretsSettings.parse({"prefix": "DAPR_"})) as store:
            assert await store.bulk_get() == {}
    assert "hides every secret" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="the environment is text there")
async def test_a_value_that_is_not_text_is_an_error_and_left_out_of_bulk_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LAPELTEST_BYTES", os.fsdecode(b"\xff" + CANARY.encode()))
    async with env_store() as store:
        with pytest.raises(OperationFailedError, match="LAPELTEST_BYTES") as caught:
            await store.get("LAPELTEST_BYTES")
        assert "LAPELTEST_BYTES" not in await store.bulk_get()
    assert "LAPELTEST_BYTES" in caplog.text
    assert CANARY not in f"{caught.value} {caplog.text}"
