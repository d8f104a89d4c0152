"""Secrets in files: formats, errors that show no content, and what happens when a file changes."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.local_files_support import replace

from lapel.component import HealthState
from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, LapelError, NotFoundError, PermissionDeniedError, StorageError
from lapel.secretstores import SecretStore
from lapel_contrib.local import parsed_file
from lapel_contrib.local.file_secrets import FileSecretStore
from lapel_contrib.local.json_text import parse_object
from lapel_contrib.local.settings import FileSecretsSettings

CANARY = "canary-5f1c"
# Made while no event loop runs: pydantic reads files when it builds its first validator.
FileSecretsSettings.parse({"secretsFile": "x"})


def secret_store(path: Path, **fields: str) -> SecretStore:
    settings = FileSecretsSettings.parse({"secretsFile": str(path), **fields})
    return SecretStore(FileSecretStore(settings, DriverContext(component="secrets")))


def everything_about(exc: BaseException) -> str:
    """All texts that a log or an error tracker could show of an error and what is behind it."""
    parts: list[str] = []
    behind: BaseException | None = exc
    while behind is not None:
        parts += [repr(behind), str(behind), repr(vars(behind)), *traceback.format_exception(behind)]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(parts)


async def read_secrets(path: Path, data: object, **fields: str) -> dict[str, dict[str, str]]:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    async with secret_store(path, **fields) as store:
        return {name: dict(values) for name, values in (await store.bulk_get()).items()}


TREE = {"a": {"b": "x", "list": ["p", {"q": "r"}]}, "n": 5, "yes": True, "no": False, "nothing": None, "empty": ""}


async def test_single_valued_secrets_are_the_flattened_leaves(tmp_path: Path) -> None:
    found = await read_secrets(tmp_path / "s.json", TREE)
    assert {name: values[name] for name, values in found.items()} == {
        "a:b": "x",
        "a:list:0": "p",
        "a:list:1:q": "r",
        "n": "5",
        "yes": "true",
        "no": "false",
        "nothing": "",
        "empty": "",
    }


async def test_multi_valued_secrets_are_the_entries_at_the_top(tmp_path: Path) -> None:
    assert await read_secrets(tmp_path / "s.json", TREE, multiValued="true", nestedSeparator="/") == {
        "a": {"b": "x", "list/0": "p", "list/1/q": "r"},
        "n": {"n": "5"},
        "yes": {"yes": "true"},
        "no": {"no": "false"},
        "nothing": {"nothing": ""},
        "empty": {"empty": ""},
    }


async def test_the_multi_value_capability_follows_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("{}")
    async with secret_store(path) as store:
        assert Capability.MULTIPLE_KEY_VALUES_PER_SECRET not in store.capabilities
        assert "multiValued" in store.withdrawn[Capability.MULTIPLE_KEY_VALUES_PER_SECRET]
    async with secret_store(path, multiValued="true") as store:
        assert Capability.MULTIPLE_KEY_VALUES_PER_SECRET in store.capabilities


async def test_numbers_come_out_as_written(tmp_path: Path) -> None:
    found = await read_secrets(tmp_path / "s.json", '{"a": 1.0, "b": 12345678901234567890, "c": 1e400, "d": -0}')
    assert [values[name] for name, values in found.items()] == ["1.0", "12345678901234567890", "1e400", "-0"]


@given(st.dictionaries(st.text(min_size=1).filter(lambda text: "\0" not in text), st.text(), max_size=5))
def test_any_flat_object_of_texts_is_read_back_exactly(data: dict[str, str]) -> None:
    for ascii_only in (True, False):
        assert parse_object(json.dumps(data, ensure_ascii=ascii_only)) == data


async def test_odd_names_and_big_values_are_exact(tmp_path: Path) -> None:
    data = {"with/slash.dot space": "x" * 65536, "ünïcode ☃": "-----BEGIN-----\nline\n", "a:b": "colon"}
    found = await read_secrets(tmp_path / "s.json", data)
    assert {name: values[name] for name, values in found.items()} == data


async def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    assert await read_secrets(tmp_path / "s.json", '\ufeff{"a": "1"}') == {"a": {"a": "1"}}


async def test_a_missing_secret_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"a": {"b": "x"}}')
    async with secret_store(path) as store:
        for name in ("a", "b", "a:b:c"):
            with pytest.raises(NotFoundError, match="no secret"):
                await store.get(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'{{"a": "{CANARY}",\n "b": }}', ":2 "),
        (f'{{"a": "{CANARY}"', ":1 "),
        (f'{{"a": "{CANARY}", "twice": "{CANARY}", "twice": "{CANARY}"}}', "'twice'"),
        (f'{{"a:b": "{CANARY}", "a": {{"b": "{CANARY}"}}}}', "'a:b'"),
        (f'["{CANARY}"]', "JSON object"),
        (f'"{CANARY}"', "JSON object"),
        (f'{{"a": "{CANARY}", "n": NaN}}', "NaN"),
        (f'{{"a": "{CANARY}", "s": "\\ud800"}}', "'s'"),
        ("", ":1 "),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_malformed_file_fails_to_open_and_shows_nothing_of_its_content(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        await secret_store(path).open()
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert CANARY not in everything_about(caught.value)


async def test_text_that_is_not_utf_8_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(b'{"a":\n"' + CANARY.encode() + b'\xff"}')
    with pytest.raises(ConfigurationError, match=":2 is not UTF-8") as caught:
        await secret_store(path).open()
    assert CANARY not in everything_about(caught.value)


async def test_a_file_that_is_missing_or_no_file_fails_to_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        await secret_store(tmp_path / "missing.json").open()
    with pytest.raises(LapelError, match="secretsFile"):
        await secret_store(tmp_path).open()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        await secret_store(tmp_path / "pipe").open()


@pytest.mark.parametrize(("code", "error"), [(errno.EACCES, PermissionDeniedError), (errno.EIO, StorageError)])
async def test_a_file_that_cannot_be_read_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[LapelError]
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(error, match=r"s\.json"):
        await secret_store(tmp_path / "s.json").open()


@pytest.mark.parametrize("write", [replace, Path.write_text])
async def test_a_changed_file_is_used_by_the_next_call(tmp_path: Path, write: Callable[[Path, str], Any]) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"a": "0", "old": ""}')
    async with secret_store(path) as store:
        for value in "1234":  # same size, within the resolution of file times
            write(path, f'{{"a": "{value}", "new": ""}}')
            assert (await store.get("a")).value == value
        assert (await store.get("new")).value == ""
        with pytest.raises(NotFoundError):
            await store.get("old")


@pytest.mark.parametrize("modified", [1, 2**33], ids=["long ago", "in the future"])
async def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modified: int
) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"a": "1"}')
    os.utime(path, (modified, modified))
    monkeypatch.setattr(parsed_file, "_SETTLED_NS", -(10**18))
    async with secret_store(path) as store:
        before = await store.driver.bulk_get(None)  # type: ignore[arg-type]  # looks at nothing in it
        assert await store.driver.bulk_get(None) is before  # type: ignore[arg-type]  # as above


async def test_a_broken_or_vanished_version_keeps_the_last_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "s.json"
    path.write_text(f'{{"a": "{CANARY}"}}')
    async with secret_store(path) as store:
        for breaking in (lambda: path.write_text(f'{{"a": "{CANARY}", '), path.unlink):
            caplog.clear()
            breaking()
            for _ in range(3):
                assert (await store.get("a")).value == CANARY
            assert len(caplog.records) == 1
            assert caplog.records[0].levelno == logging.WARNING
            health = await store.health()
            assert health.state is HealthState.RECONNECTING
            assert str(path) in str(health.reason)
            assert CANARY not in f"{caplog.text} {health}"
        caplog.clear()
        path.write_text('{"a": "2"}')
        assert (await store.get("a")).value == "2"
        assert "usable again" in caplog.text
        assert (await store.health()).ok


async def test_many_calls_at_once_share_looks_and_all_see_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"a": "1"}')
    looks = 0
    open_file = os.open

    def counting(*arguments: Any) -> int:
        nonlocal looks
        looks += 1
        return open_file(*arguments)

    async with secret_store(path) as store:
        monkeypatch.setattr(os, "open", counting)
        path.write_text('{"a": "2"}')
        values = await asyncio.gather(*(store.get("a") for _ in range(50)))
    assert {value.value for value in values} == {"2"}
    assert looks <= 2
