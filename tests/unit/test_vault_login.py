"""How a Vault client comes to its token and keeps it alive; against a stub."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.vault_stub import Answer, Asked, VaultStub, store_on, until

from lapel.errors import OperationFailedError, PermissionDeniedError
from lapel.testing.lifecycle import wait_until
from lapel_contrib.vault import tokens

SECRET = "secret/data/dapr/db"
LOOK_UP = "auth/token/lookup-self"
RENEW = "auth/token/renew-self"
REVOKE = "auth/token/revoke-self"
DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
BAD_TOKEN = {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}


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


@pytest.mark.parametrize("hidden", ["auth/token/lookup-self", "sys/health"])
async def test_a_path_that_a_proxy_hides_is_not_missed(hidden: str) -> None:
    with VaultStub(lambda asked: (404, {"errors": []}) if asked.path == hidden else (404, None)) as stub:
        async with store_on(stub) as store:
            assert await store.get("db") == {"user": "ops"}
            assert (await store.health()).ok


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
            await until(lambda: len(stub.of("auth/token/renew-self")) >= 2, "no renewal")
            assert time.monotonic() - begun > 1.0
            assert (await store.health()).ok
        assert len(stub.of("auth/approle/login")) == (1 if role else 0)


async def test_a_token_that_cannot_be_renewed_is_replaced_before_it_expires() -> None:
    with VaultStub(logging_in(["one", "two", "three"], seconds=1)) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            await until(lambda: len(stub.of("auth/approle/login")) >= 3, "no second log-in")
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
            await until(lambda: len(stub.of("auth/approle/login")) == 2, "no second log-in")
            assert renewals == 1
            await until(lambda: [asked.token for asked in stub.of(REVOKE)] == ["one"], "the first is not given back")


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


async def test_a_denial_by_policy_does_not_log_in_again() -> None:
    inner = logging_in(["one", "two", "three"])
    with VaultStub(lambda asked: (403, DENIED) if asked.path == SECRET else inner(asked)) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            for _ in range(5):
                with pytest.raises(PermissionDeniedError, match="policy"):
                    await store.get("db")
            assert (await store.health()).ok
        assert len(stub.of("auth/approle/login")) == 1
        assert len(stub.of(LOOK_UP)) == 2, "one at the start, and one for all denials"


async def test_a_token_whose_end_shows_in_the_look_up_only_is_replaced() -> None:
    inner = logging_in(["one", "two"])
    ended = False

    def answer(asked: Asked) -> tuple[int, Any]:
        if ended and asked.token == "one":
            return 403, BAD_TOKEN if asked.path == LOOK_UP else DENIED
        return inner(asked)

    with VaultStub(answer) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            ended = True
            assert await store.get("db") == {"user": "ops"}
        assert [read.token for read in stub.of(SECRET)] == ["one", "two"]


def not_saying(asked: Asked) -> tuple[int, Any]:
    """Answer as a Vault whose policies let nobody look a token up, nor read."""
    return (403, DENIED) if asked.path in (LOOK_UP, SECRET) else (404, None)


async def test_where_vault_does_not_say_a_log_in_is_tried_once_and_the_token_before_is_given_back() -> None:
    inner = logging_in(["one", "two", "three"])

    def answer(asked: Asked) -> tuple[int, Any]:
        denied = not_saying(asked)
        return inner(asked) if denied == (404, None) else denied

    with VaultStub(answer) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            for _ in range(3):
                with pytest.raises(PermissionDeniedError, match="policy"):
                    await store.get("db")
            assert len(stub.of("auth/approle/login")) == 2
            await until(lambda: [asked.token for asked in stub.of(REVOKE)] == ["one"], "the first is not given back")
        assert [asked.token for asked in stub.of(REVOKE)] == ["one", "two"]


async def test_a_log_in_that_fails_while_the_token_works_is_no_problem_of_the_component(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inner = logging_in(["one"])

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path.endswith("/login") and stub.of(SECRET):
            return 400, {"errors": ["invalid secret id"]}
        denied = not_saying(asked)
        return inner(asked) if denied == (404, None) else denied

    with VaultStub(answer) as stub:
        async with store_on(stub, vaultToken="", vaultAppRoleID="role") as store:
            with pytest.raises(PermissionDeniedError, match="policy"):
                await store.get("db")
            assert await store.get("other") == {"user": "ops"}
            assert (await store.health()).ok
        assert len(stub.of("auth/approle/login")) == 2
    assert "vaultAppRoleSecretID" in caplog.text


# answers that are not Vault's


PAGES = [b"<html>", b"{}", b'{"auth": {"client_token": "\xff"}}', b'{"data": {"ttl": "soon"}}']


@pytest.mark.parametrize("page", PAGES)
async def test_a_renewal_that_something_else_answers_is_logged_and_done_again(
    page: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    inner = logging_in(["t"], seconds=1, renewable=True)
    inner(Asked("POST", "x/login", {}, {}, None))

    def answer(asked: Asked) -> tuple[int, Any]:
        return (200, page) if asked.path == RENEW and len(stub.of(RENEW)) == 1 else inner(asked)

    with VaultStub(answer) as stub:
        async with store_on(stub) as store:
            await until(lambda: len(stub.of(RENEW)) >= 3, "it is not renewed any more")
            assert (await store.health()).ok
    assert "not one of Vault" in caplog.text
    assert "html" not in caplog.text


@pytest.mark.parametrize("page", PAGES)
async def test_a_look_up_that_something_else_answers_is_logged_and_done_again(
    page: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokens, "_PAUSE_AFTER_END", 0.05)
    file = tmp_path / "token"
    file.write_text("first")
    pages = 3

    def answer(asked: Asked) -> tuple[int, Any]:
        nonlocal pages
        if asked.path != LOOK_UP or asked.token == "first":
            return 404, None
        pages -= 1
        return (200, page) if pages >= 0 else (200, {"data": {"ttl": 1, "renewable": True}})

    with VaultStub(answer) as stub:
        async with store_on(stub, vaultToken="", vaultTokenMountPath=str(file)) as store:
            file.write_text("second")
            await store.get("db")
            await until(lambda: bool(stub.of(RENEW)), "no renewal")
            assert (await store.health()).ok
        assert caplog.text.count("not one of Vault") == 1


async def test_a_token_that_nobody_vouches_for_fails_to_open() -> None:
    with (
        VaultStub(lambda asked: (200, b"<html>") if asked.path == LOOK_UP else (404, None)) as stub,
        pytest.raises(OperationFailedError, match="vaultAddr"),
    ):
        await store_on(stub).open()


async def test_a_token_of_which_nothing_could_be_learnt_is_asked_about_again_and_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_PAUSE_AFTER_END", 0.05)
    file = tmp_path / "token"
    file.write_text("first")
    failures = 3

    def answer(asked: Asked) -> tuple[int, Any]:
        nonlocal failures
        if asked.token != "second":
            return 404, None
        if asked.path == "auth/token/lookup-self" and failures:
            failures -= 1
            return 503, {"errors": ["Vault is sealed"]}
        if asked.path == "auth/token/lookup-self":
            return 200, {"data": {"ttl": 1, "renewable": True}}
        return 404, None

    with VaultStub(answer) as stub:
        async with store_on(stub, vaultToken="", vaultTokenMountPath=str(file)) as store:
            file.write_text("second")
            await store.get("db")
            await until(lambda: bool(stub.of("auth/token/renew-self")), "no renewal")
            assert stub.of("auth/token/renew-self")[0].token == "second"
