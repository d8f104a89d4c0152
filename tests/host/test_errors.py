"""The error tables of the API, row by row: status, code, message and details."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.host.rows import TYPE, Row
from tests.host.rows_crypto import crypto_rows
from tests.host.rows_other import other_rows
from tests.host.rows_pubsub import pubsub_rows
from tests.host.rows_state import STATE, state_rows
from tests.host.support import Embedded, body, component, embedded

from lapel.descriptor import Limits
from lapel.host import AccessRules, SecretScope

ROWS = [*state_rows(), *pubsub_rows(), *other_rows(), *crypto_rows()]


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Embedded]:
    folder = tmp_path / "resources"
    folder.mkdir()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "k").write_bytes(b"k" * 32)
    (tmp_path / "secrets.json").write_text('{"k": "v", "private": "x"}')
    (tmp_path / "config.yaml").write_text("a: {value: one}")
    component(folder, "store", "state.in-memory")
    component(folder, "small", "state.in-memory")
    component(folder, "simple", "state.in-memory")
    component(folder, "bus", "pubsub.in-memory")
    component(folder, "scoped", "pubsub.in-memory", publishingScopes="myapp=other")
    component(folder, "files", "bindings.localstorage", rootPath=str(tmp_path))
    component(folder, "cron", "bindings.cron", schedule="@every 1h")
    component(folder, "secrets", "secretstores.local.file", secretsFile=str(tmp_path / "secrets.json"))
    component(folder, "config", "configuration.local.file", path=str(tmp_path / "config.yaml"))
    component(folder, "locks", "lock.in-memory")
    component(folder, "keys", "crypto.dapr.localstorage", path=str(tmp_path / "keys"))
    rules = AccessRules(secrets={"secrets": SecretScope(denied=frozenset({"private"}))})
    async with embedded(folder, rules=rules) as running:
        simple = running.host.components.state("simple").driver
        for flag in ("TRANSACTIONAL", "QUERY_API"):
            simple.withdraw(type(simple.capabilities)[flag], "the test wants it so")
        small = type(running.host.components.state("small"))
        limits = small.limits
        monkeypatch.setattr(
            small,
            "limits",
            property(lambda self: Limits(transaction_operations=2) if self.name == "small" else limits.fget(self)),  # type: ignore[attr-defined]
        )
        yield running


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
async def test_error_tables(host: Embedded, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    if row.fails is not None:
        name, methods = row.fails
        driver = next(each for each in host.host.components if each.name == name).driver

        async def fail(*_: object) -> NoReturn:
            raise row.error

        for method in methods.split():
            monkeypatch.setattr(driver, method, fail)
    arguments: dict[str, Any] = {"json": row.json} if row.json is not None else {"content": row.content or b""}
    answer = await host.ask(*row.ask, headers=row.headers, **arguments)
    assert answer.headers["content-type"] == "application/json"
    document = body(answer)
    assert (answer.status_code, document["errorCode"]) == (row.status, row.code), document
    assert row.message in (None, document["message"])
    details = document.get("details", [])
    assert row.kinds in (None, tuple(detail["@type"].removeprefix(TYPE) for detail in details)), details
    if row.reason is not None:
        info = details[-1]
        assert (info["reason"], info["domain"]) == (row.reason, "dapr.io")
    for detail in details:
        if detail["@type"] == TYPE + "ResourceInfo":
            assert detail.keys() == {"@type", "resource_type", "resource_name", "owner", "description"}
            assert detail["resource_type"] in ("state", "pubsub")
    # Whatever went wrong, nothing was half done.
    assert (await host.ask("GET", f"{STATE}/k")).status_code == 204 or row.fails is not None


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status", "code", "message"),
    [
        ("GET", "/v1.0/state/s/k", {}, 500, "ERR_STATE_STORE_NOT_CONFIGURED", "state store s is not configured"),
        ("POST", "/v1.0/publish/p/t", {}, 400, "ERR_PUBSUB_NOT_CONFIGURED", None),
        ("GET", "/v1.0/secrets/s/k", {}, 500, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured"),
        (
            "GET",
            "/v1.0/configuration/s",
            {},
            500,
            "ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
            "configuration stores not configured",
        ),
        (
            "POST",
            "/v1.0-alpha1/lock/s",
            {"json": {"expiryInSeconds": 1}},
            500,
            "ERR_LOCK_STORE_NOT_CONFIGURED",
            "lock store is not configured",
        ),
        ("POST", "/v1.0-alpha1/unlock/s", {}, 500, "ERR_LOCK_STORE_NOT_CONFIGURED", "lock store is not configured"),
        (
            "PUT",
            "/v1.0-alpha1/crypto/s/encrypt",
            {},
            500,
            "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED",
            "crypto providers not configured",
        ),
        ("POST", "/v1.0/bindings/b", {"json": {"operation": "get"}}, 500, "ERR_INVOKE_OUTPUT_BINDING", None),
    ],
)
async def test_a_host_without_components_of_a_kind(
    method: str, path: str, arguments: dict[str, Any], status: int, code: str, message: str | None
) -> None:
    async with embedded() as host:
        answer = await host.ask(method, path, **arguments)
        document = body(answer)
        assert (answer.status_code, document["errorCode"]) == (status, code)
        assert message in (None, document["message"])
        if code == "ERR_STATE_STORE_NOT_CONFIGURED":
            assert document["details"] == [
                {
                    "@type": TYPE + "ErrorInfo",
                    "reason": "DAPR_STATE_NOT_CONFIGURED",
                    "domain": "dapr.io",
                    "metadata": {"appID": "myapp"},
                }
            ]


async def test_an_error_of_lapel_itself_shows_nothing_of_its_inside(
    host: Embedded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(_: str) -> NoReturn:
        raise ZeroDivisionError("a detail that is nobody's business")

    monkeypatch.setattr(host.host.components, "state", break_down)
    answer = await host.ask("GET", f"{STATE}/k")
    assert (answer.status_code, body(answer)) == (500, {"errorCode": "ERROR", "message": "internal error"})
    assert "nobody's business" in caplog.text
