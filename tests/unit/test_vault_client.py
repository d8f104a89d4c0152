"""What a Vault client sends, how it keeps its token alive, and that it shares requests; against a stub."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hvac  # type: ignore[import-untyped]  # it has no annotations
import pytest
from tests.unit.vault_stub import Answer, Asked, VaultStub

from lapel.driver import DriverContext, SharedClients
from lapel.errors import (
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    UnavailableError,
)
from lapel.secretstores import SecretStore
from lapel.testing.lifecycle import wait_until
from lapel_contrib.vault.crypto import VaultCrypto
from lapel_contrib.vault.secretstore import VaultSecretStore
from lapel_contrib.vault.settings import VaultCryptoSettings, VaultSecretsSettings

SECRET = "secret/data/dapr/db"
DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
BAD_TOKEN = {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}


def store_on(
    stub: VaultStub, fields: Mapping[str, str] | None = None, *, shared: SharedClients | None = None, **more: str
) -> SecretStore:
    given = {"vaultAddr": stub.address, "vaultToken": "t", **(fields or {}), **more}
    settings = VaultSecretsSettings.parse(given, component="vault", driver="secretstores.hashicorp.vault")
    context = DriverContext(component="vault", shared=shared or SharedClients())
    return SecretStore(VaultSecretStore(settings, context))


def logging_in(tokens: list[str], *, seconds: float = 0, renewable: bool = False) -> Answer:
    """Answer log-ins with one token after the other; only the last one given out is valid."""
    valid: list[str] = []

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path.endswith("/login"):
            valid[:] = [tokens[min(len(given), len(tokens) - 1)]]
            given.append(valid[0])
            return 200, {"auth": {"client_token": valid[0], "lease_duration": seconds, "renewable": renewable}}
        if asked.token is not None and asked.token not in valid:
            return 403, BAD_TOKEN
        if asked.path == "auth/token/lookup-self":
            return 200, {"data": {"ttl": seconds, "renewable": renewable}}
        if asked.path == "auth/token/renew-self":
            return 200, {"auth": {"client_token": asked.token, "lease_duration": seconds, "renewable": renewable}}
        return 404, None

    given: list[str] = []
    return answer


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
        (health,) = stub.of("sys/health")
        assert health.token is None, "the health of the server is nobody's secret"
        assert "x-vault-namespace" not in health.headers, "namespaces have no such path"
        assert stub.of("auth/token/revoke-self") == [], "a token from the settings is not ours to end"


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
            await wait_until(lambda: _true(bool(stub.of(SECRET))), lambda: "nothing was sent")
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
            await wait_until(lambda: _true(bool(stub.of(SECRET))), lambda: "nothing was sent")
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


# logging in


async def test_a_token_from_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  first\n")
    with VaultStub() as stub:
        async with store_on(stub, vaultToken="", vaultTokenMountPath=str(file)) as store:
            await store.get("db")
            other = tmp_path / "other"
            other.write_text("second")
            other.rename(file)
            await store.get("db")
            file.write_text("")
            await store.get("db")
        assert [read.token for read in stub.of(SECRET)] == ["first", "second", "second"]


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"two\nlines"])
async def test_a_file_without_a_token_fails_to_open(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with VaultStub() as stub:
        store = store_on(stub, vaultToken="", vaultTokenMountPath=str(tmp_path / "token"))
        with pytest.raises(PermissionDeniedError, match="vaultTokenMountPath"):
            await store.open()


async def test_approle_sends_its_ids_and_gives_its_token_back() -> None:
    with VaultStub(logging_in(["made"])) as stub:
        fields = {
            "vaultToken": "",
            "vaultAppRoleID": "role",
            "vaultAppRoleSecretID": "id",
            "vaultAppRolePath": "team/a",
        }
        async with store_on(stub, fields) as store:
            await store.get("db")
        (login,) = stub.of("auth/team/a/login")
        assert (login.method, login.body, login.token) == ("POST", {"role_id": "role", "secret_id": "id"}, None)
        assert stub.of(SECRET)[0].token == "made"
        assert stub.asked[-1].path == "auth/token/revoke-self"
        assert stub.asked[-1].token == "made"


async def test_kubernetes_sends_role_and_the_token_of_the_service_account_as_it_is_now(tmp_path: Path) -> None:
    jwt = tmp_path / "jwt"
    jwt.write_text("jwt-1")
    with VaultStub(logging_in(["one", "two"])) as stub:
        fields = {"vaultKubernetesRole": "app", "vaultKubernetesTokenPath": str(jwt), "vaultKubernetesPath": "k8s"}
        async with store_on(stub, fields, vaultToken="") as store:
            jwt.write_text("jwt-2")
            stub.answer = logging_in(["two"])
            await store.get("db")
        bodies = [login.body for login in stub.of("auth/k8s/login")]
        assert bodies == [{"role": "app", "jwt": "jwt-1"}, {"role": "app", "jwt": "jwt-2"}]


@pytest.mark.parametrize("status", [400, 403])
async def test_a_refused_log_in_names_the_fields_and_not_their_values(status: int) -> None:
    with (
        VaultStub(lambda asked: (status, {"errors": ["invalid role id hunter2"]})) as stub,
        pytest.raises(PermissionDeniedError, match="vaultAppRoleSecretID") as caught,
    ):
        await store_on(stub, vaultToken="", vaultAppRoleID="hunter2").open()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("reply", "fails"), [(BAD_TOKEN, True), (DENIED, False)])
async def test_a_bad_token_fails_to_open_and_one_that_may_not_look_itself_up_does_not(
    reply: dict[str, Any], fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with VaultStub(lambda asked: (403, reply) if "lookup" in asked.path else (404, None)) as stub:
        store = store_on(stub)
        if fails:
            with pytest.raises(PermissionDeniedError, match="refused the token"):
                await store.open()
            return
        async with store:
            assert await store.get("db") == {"user": "ops"}
        assert "auth/token/lookup-self" in caplog.text


# keeping the token


@pytest.mark.parametrize("role", ["", "role"])
async def test_a_token_is_renewed_before_it_expires(role: str) -> None:
    answer = logging_in(["t"], seconds=1, renewable=True)
    answer(Asked("POST", "x/login", {}, {}, None))
    begun = time.monotonic()
    with VaultStub(answer) as stub:
        async with store_on(stub, vaultToken="" if role else "t", vaultAppRoleID=role) as store:
            await wait_until(lambda: _true(len(stub.of("auth/token/renew-self")) >= 2), lambda: "no renewal")
            assert time.monotonic() - begun > 1.0
            assert (await store.health()).ok
        assert len(stub.of("auth/approle/login")) == (1 if role else 0)


async def test_a_token_that_cannot_be_renewed_is_replaced_before_it_expires() -> None:
    with VaultStub(logging_in(["one", "two", "three"], seconds=1)) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            await wait_until(lambda: _true(len(stub.of("auth/approle/login")) >= 3), lambda: "no second log-in")
            await store.get("db")
            assert stub.of(SECRET)[-1].token == "three"


async def test_a_token_near_its_longest_life_is_replaced() -> None:
    renewals = 0

    def answer(asked: Asked) -> tuple[int, Any]:
        nonlocal renewals
        if asked.path == "auth/token/renew-self":
            renewals += 1
            return 200, {"auth": {"client_token": asked.token, "lease_duration": 0.2, "renewable": True}}
        return inner(asked)

    inner = logging_in(["one", "two"], seconds=1.5, renewable=True)
    with VaultStub(answer) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role"):
            await wait_until(lambda: _true(len(stub.of("auth/approle/login")) == 2), lambda: "no second log-in")
            assert renewals == 1


async def test_the_end_of_a_token_that_nobody_can_renew_is_logged_before_and_told_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = logging_in(["t"], seconds=0.5)
    answer(Asked("POST", "x/login", {}, {}, None))
    with VaultStub(answer) as stub:
        async with store_on(stub) as store:
            assert "expires in" in caplog.text

            async def told() -> bool:
                return "expired" in str((await store.health()).reason)

            await wait_until(told, lambda: "health does not tell")


async def test_a_token_that_is_refused_is_replaced_once_for_all_who_met_that() -> None:
    with VaultStub(logging_in(["one", "two"])) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            await store.get("db")
            stub.answer = logging_in(["two"])
            found = await asyncio.gather(*(store.get(f"s{number}") for number in range(30)))
            assert len(found) == 30
        assert len(stub.of("auth/approle/login")) == 2


async def test_a_denial_by_policy_logs_in_once_and_not_every_time() -> None:
    inner = logging_in(["one", "two", "three"])
    with VaultStub(lambda asked: (403, DENIED) if asked.path == SECRET else inner(asked)) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            for _ in range(5):
                with pytest.raises(PermissionDeniedError, match="policy"):
                    await store.get("db")
        assert len(stub.of("auth/approle/login")) == 2


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
    lock, under_way, most = threading.Lock(), 0, 0

    def answer(asked: Asked) -> tuple[int, Any]:
        nonlocal under_way, most
        if not asked.path.startswith("secret/"):
            return 404, None
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
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


async def _true(value: bool) -> bool:
    return value
