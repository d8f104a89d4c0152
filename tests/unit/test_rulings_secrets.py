"""Rulings on secrets, for texts that come from a secret store into fields that are not secret by themselves."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import traceback
from pathlib import Path

import pytest
from tests.unit.embedded import CANARY

import lapel
from lapel.concealment import conceal
from lapel.errors import AssemblyError, LapelError, StorageError
from lapel.settings import Property, Secret, Settings, setting

FIELD = {
    "state.sqlite": "connectionString",
    "pubsub.sqlite": "connectionString",
    "lock.sqlite": "connectionString",
    "configuration.sqlite": "connectionString",
    "configuration.local.file": "path",
    "secretstores.local.file": "secretsFile",
    "crypto.dapr.localstorage": "path",
    "bindings.localstorage": "rootPath",
}

COMPONENT = """apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: thing
spec:
  type: {type}
  version: v1
  ignoreErrors: {ignored}
  metadata:
  - name: {field}
    secretKeyRef:
      name: AUDITED
auth:
  secretStore: store
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: store
spec:
  type: secretstores.local.env
  version: v1
"""


class Fields(Settings):
    """Settings with a text, a list and a path that may come from a secret store."""

    text: str = setting("text", default="", doc="Text.")
    path: Path = setting("path", default=Path("/"), doc="Path.")
    password: Secret | None = setting("password", default=None, doc="Secret by itself.")


def resources(folder: Path, type: str, field: str, ignored: str = "false") -> Path:
    file = folder / "thing.yaml"
    file.write_text(COMPONENT.format(type=type, field=field, ignored=ignored))
    return file


@pytest.mark.parametrize("type", FIELD)
async def test_a_path_from_a_secret_store_is_shown_nowhere_when_it_cannot_be_opened(
    type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AUDITED", f"/dev/null/{CANARY}/file")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AssemblyError) as caught:
        await lapel.open_components(resources(tmp_path, type, FIELD[type]))
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(caught.value)
    async with lapel.open_components(resources(tmp_path, type, FIELD[type], ignored="true")) as components:
        assert CANARY not in repr(await components.health())
    assert CANARY not in caplog.text


async def test_a_database_from_a_secret_store_is_not_named_by_errors_of_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / f"{CANARY}.db"
    monkeypatch.setenv("AUDITED", f"file:{database}?_txlock=immediate")
    caplog.set_level(logging.DEBUG)
    async with lapel.open_components(resources(tmp_path, "state.sqlite", "connectionString")) as components:
        store = components.state("thing")
        await store.set("key", 1)
        other = sqlite3.connect(database)
        other.execute("DROP TABLE state")
        other.close()
        with pytest.raises(LapelError) as caught:
            await store.get("key")
        outcome = (await store.bulk_set([lapel.SetOperation("key", 2)]))[0]
        assert outcome.error is not None
        for error in (caught.value, outcome.error):
            assert CANARY not in "".join(traceback.format_exception(error))
            assert "database" in str(error)
        assert CANARY not in repr(asyncio.all_tasks())
    assert CANARY not in caplog.text


def test_a_wrong_connection_string_from_a_secret_store_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITED", f"file://{CANARY}/x.db")
    with pytest.raises(AssemblyError) as caught:
        asyncio.run(_open(resources(tmp_path, "state.sqlite", "connectionString")))
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "connectionString" in str(caught.value)


async def _open(source: Path) -> None:
    await lapel.open_components(source)


def test_scopes_from_a_secret_store_are_not_quoted_by_the_error_about_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITED", CANARY)
    with pytest.raises(AssemblyError) as caught:
        asyncio.run(_open(resources(tmp_path, "pubsub.in-memory", "publishingScopes")))
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "publishingScopes" in str(caught.value)


def test_the_message_of_an_error_loses_every_secret_of_the_settings() -> None:
    settings = Fields.parse(
        [
            Property("text", Secret("pin")),
            Property("path", Secret(f"/a/{CANARY}/c")),
            Property("password", Secret("pw-pw-pw")),
        ]
    )
    error = StorageError(f"spinning at /a/{CANARY}/b with pin, pw-pw-pw")
    error.__cause__ = OSError(f"no /a/{CANARY}")
    assert conceal(error, settings) is error
    assert error.message == "spinning at ***/b with ***, ***"
    assert "pw-pw-pw" not in repr(error)
    assert CANARY not in "".join(traceback.format_exception(error))
    plain = Fields(text="visible", path=Path("/a/b"))
    assert str(conceal(StorageError("visible at /a/b"), plain)) == "visible at /a/b"
