"""What a Vault client sends, how it keeps its token alive, and that it shares requests; against a stub."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import Any

import hvac  # type: ignore[import-untyped]  # it has no annotations
import pytest
from tests.unit.plain_component import Clock
from tests.unit.vault_stub import Asked, VaultStub, store_on, until

from lapel.driver import DriverContext, SharedClients
from lapel.errors import (
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    UnavailableError,
)
from lapel_contrib.vault.crypto import VaultCrypto
from lapel_contrib.vault.settings import VaultCryptoSettings

SECRET = "secret/data/dapr/db"
DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}


async def test_a_read_says_who_asks_and_from_where() -> None:
    with VaultStub() as stub:
        async with store_on(stub, vaultNamespace="team-a/app") as store:
            assert await store.get("db") == {"user": "ops"}
            assert (await store.health()).ok
        (read,) = stub.of(SECRET)
        assert (read.method, read.query) == ("GET", {})
        assert read.headers["x-vault-token"] == "t"
        assert read.headers["x-vault-request"] == "true"
        assert read.headers["x-vault-namespace"] == "team-a/app"
        for health in stub.of("sys/health"):
            assert health.token is None, "the health of the server is nobody's secret"
            assert "x-vault-namespace" not in health.headers, "namespaces have no such path"
        assert stub.of("auth/token/revoke-self") == [], "a token from the settings is not ours to end"


async def test_a_server_that_would_ignore_the_namespace_is_refused_and_gets_no_token() -> None:
    with VaultStub(lambda asked: (200, {"enterprise": False}) if asked.path == "sys/health" else (404, None)) as stub:
        with pytest.raises(ConfigurationError, match="vaultNamespace"):
            await store_on(stub, vaultNamespace="team-a").open()
        assert [asked.path for asked in stub.asked] == ["sys/health"]
        async with store_on(stub) as store:
            assert await store.get("db") == {"user": "ops"}


@pytest.mark.parametrize(
    ("fields", "name", "metadata", "path", "query"),
    [
        ({}, "db", {}, "secret/data/dapr/db", {}),
        ({}, "a/b c", {}, "secret/data/dapr/a/b%20c", {}),
        ({}, "50%", {}, "secret/data/dapr/50%25", {}),
        ({}, "db", {"version_id": "3"}, "secret/data/dapr/db", {"version": "3"}),
        ({}, "db", {"version_id": "0"}, "secret/data/dapr/db", {}),
        ({"enginePath": "team/kv", "vaultKVPrefix": "app/x"}, "db", {}, "team/kv/data/app/x/db", {}),
        ({"vaultKVUsePrefix": "false"}, "db", {}, "secret/data/db", {}),
        ({"vaultKVVersion": "1"}, "db", {}, "secret/dapr/db", {}),
    ],
)
async def test_fields_and_metadata_choose_what_is_read(
    fields: dict[str, str], name: str, metadata: dict[str, str], path: str, query: dict[str, str]
) -> None:
    with VaultStub() as stub:
        async with store_on(stub, fields) as store:
            await store.get(name, metadata=metadata)
        assert [(read.path, read.query) for read in stub.asked[1:]] == [(path, query)]


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "a//b", "/a", "a/", "."])
async def test_a_name_that_would_leave_the_prefix_is_refused_before_anything_is_sent(name: str) -> None:
    with VaultStub() as stub:
        async with store_on(stub) as store:
            sent = len(stub.asked)
            with pytest.raises(InvalidArgumentError):
                await store.get(name)
            assert len(stub.asked) == sent


async def test_values_that_are_no_text_become_the_json_that_they_were() -> None:
    data = '{"text":"a\\u00fc","number":1.10,"large":12345678901234567890,"flag":true,"none":null,"tree":{"a":[1,"x"]}}'
    body = f'{{"data":{{"data":{data},"metadata":{{"version":1}}}}}}'.encode()
    with VaultStub(lambda asked: (200, body) if asked.path == SECRET else (404, None)) as stub:
        async with store_on(stub) as store:
            assert await store.get("db") == {
                "text": "aü",
                "number": "1.10",
                "large": "12345678901234567890",
                "flag": "true",
                "none": "null",
                "tree": '{"a":[1,"x"]}',
            }
        async with store_on(stub, vaultValueType="text") as store:
            assert (await store.get("db")) == {"db": data}
            assert "MULTIPLE" in str(store.withdrawn)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": 5}', b'{"data": {"data": [1]}}', b"\xff"])
async def test_an_answer_of_another_kind_is_an_error_that_repeats_nothing_of_it(body: bytes) -> None:
    with VaultStub(lambda asked: (200, body) if asked.path == SECRET else (404, None)) as stub:
        async with store_on(stub) as store:
            with pytest.raises((OperationFailedError, NotFoundError)) as caught:
                await store.get("db")
    assert "<html>" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_two_hundred_readers_of_twenty_secrets_share_twenty_requests() -> None:
    with VaultStub() as stub:
        async with store_on(stub) as store:
            names = [f"s{number % 20}" for number in range(200)]
            found = await asyncio.gather(*(store.get(name) for name in names))
            assert all(one == {"user": "ops"} for one in found)
            assert len({id(one) for one in found}) == 200, "every caller has its own"
        assert sum(asked.path.startswith("secret/") for asked in stub.asked) == 20


async def test_a_reader_that_is_cancelled_disturbs_nobody() -> None:
    go = threading.Event()

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path == SECRET:
            go.wait(10)
        return 404, None

    with VaultStub(answer) as stub:
        async with store_on(stub) as store:
            readers = [asyncio.create_task(store.get("db")) for _ in range(5)]
            await until(lambda: bool(stub.of(SECRET)), "nothing was sent")
            readers[0].cancel()
            await asyncio.sleep(0)
            go.set()
            done = await asyncio.gather(*readers, return_exceptions=True)
            assert isinstance(done[0], asyncio.CancelledError)
            assert [str(dict(one)) for one in done[1:] if not isinstance(one, BaseException)] == ["{'user': 'ops'}"] * 4
        assert len(stub.of(SECRET)) == 1


async def test_when_all_readers_are_cancelled_the_next_one_asks_anew() -> None:
    go = threading.Event()

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path == SECRET and len(stub.of(SECRET)) == 1:
            go.wait(10)
        return 404, None

    with VaultStub(answer) as stub:
        async with store_on(stub) as store:
            reader = asyncio.create_task(store.get("db"))
            await until(lambda: bool(stub.of(SECRET)), "nothing was sent")
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            assert await store.get("db") == {"user": "ops"}
            go.set()


async def test_a_bulk_get_follows_folders_and_leaves_out_what_is_not_there() -> None:
    lists = {"": ["a", "deep/", "gone"], "/deep": ["b", "deeper/"], "/deep/deeper": ["c"]}

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.method == "LIST":
            return 200, {"data": {"keys": lists[asked.path.removeprefix("secret/metadata/dapr")]}}
        return (404, {"errors": []}) if asked.path.endswith("gone") else (404, None)

    with VaultStub(answer) as stub:
        async with store_on(stub) as store:
            assert set(await store.bulk_get(metadata={"version_id": "2"})) == {"a", "deep/b", "deep/deeper/c"}
            assert {asked.query.get("version") for asked in stub.asked if "/data/" in asked.path} == {"2"}
            with pytest.raises(InvalidArgumentError):
                await store.bulk_get(metadata={"version_id": "two"})


async def test_a_bulk_get_has_a_deadline_for_each_answer() -> None:
    clock = Clock()
    lists = {"": ["a", "gone", "deep/"], "/deep": ["b"]}

    def answer(asked: Asked) -> tuple[int, Any]:
        if not asked.path.startswith("secret/"):
            return 404, None
        clock.advance(2)
        if asked.method == "LIST":
            return 200, {"data": {"keys": lists[asked.path.removeprefix("secret/metadata/dapr")]}}
        return (404, {"errors": []}) if asked.path.endswith("gone") else (404, None)

    with VaultStub(answer) as stub:
        # One thread, so that the answers come one after the other.
        async with store_on(stub, poolSize="1") as store:
            assert set(await store.bulk_get()) == {"a", "deep/b"}


async def test_a_bulk_get_with_one_unreadable_secret_fails_as_a_whole() -> None:
    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.method == "LIST":
            return 200, {"data": {"keys": ["a", "b"]}}
        return (403, DENIED) if asked.path.endswith("/b") else (404, None)

    with VaultStub(answer) as stub:
        async with store_on(stub) as store:
            with pytest.raises(PermissionDeniedError, match="'b'"):
                await store.bulk_get()


async def test_an_empty_engine_has_no_secrets() -> None:
    with VaultStub(lambda asked: (404, {"errors": []}) if asked.method == "LIST" else (404, None)) as stub:
        async with store_on(stub) as store:
            assert await store.bulk_get() == {}


# the client


async def test_components_with_one_connection_share_a_client() -> None:
    shared = SharedClients()
    with VaultStub() as stub:
        settings = VaultCryptoSettings.parse({"vaultAddr": stub.address, "vaultToken": "t"})
        crypto = VaultCrypto(settings, DriverContext(component="transit", shared=shared))
        async with store_on(stub, shared=shared) as one, store_on(stub, shared=shared, vaultKVPrefix="other") as two:
            await crypto.open()
            assert one.unwrap(hvac.Client) is two.unwrap(hvac.Client) is crypto.unwrap(hvac.Client)
            await crypto.close()
            assert await one.get("db")
        assert len(stub.of("auth/token/lookup-self")) == 1
    with pytest.raises(LookupError):
        crypto.unwrap(hvac.Client)


async def test_a_redirect_is_followed_to_the_active_server() -> None:
    with VaultStub() as active:

        def answer(asked: Asked) -> tuple[int, Any]:
            return 307, {"location": f"{active.address}/v1/{asked.path}"}

        with VaultStub(answer) as standby:
            async with store_on(standby) as store:
                assert await store.get("db") == {"user": "ops"}
            assert active.of(SECRET)[0].token == "t"


async def test_no_more_requests_are_under_way_than_the_pool_has_threads() -> None:
    changed, under_way, most = threading.Condition(), 0, 0

    def answer(asked: Asked) -> tuple[int, Any]:
        nonlocal under_way, most
        if not asked.path.startswith("secret/"):
            return 404, None
        with changed:
            under_way += 1
            most = max(most, under_way)
            changed.notify_all()
            assert changed.wait_for(lambda: most >= 3, 20)
        time.sleep(0.005)  # room for one too many
        with changed:
            under_way -= 1
        return 404, None

    with VaultStub(answer) as stub:
        async with store_on(stub, poolSize="3") as store:
            await asyncio.gather(*(store.get(f"s{number}") for number in range(30)))
    assert most == 3


async def test_an_unreachable_server_is_told_with_its_address() -> None:
    with VaultStub() as stub:
        pass
    with pytest.raises(UnavailableError, match=r"Vault at 127\.0\.0\.1:\d+: cannot be reached"):
        await store_on(stub).open()


async def test_what_was_answered_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    body = {"data": {"data": {"password": "hunter2"}}}
    with (
        caplog.at_level(logging.DEBUG),
        VaultStub(lambda asked: (200, body) if asked.path == SECRET else (404, None)) as stub,
    ):
        async with store_on(stub, vaultToken="hunter3") as store:
            assert json.dumps(dict(await store.get("db"))) == '{"password": "hunter2"}'
    assert "hunter" not in caplog.text
