"""Secrets and configuration in files: formats, errors that show no content, and what happens when a file changes."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from hypothesis import given
from hypothesis import strategies as st

from lapel.component import HealthState
from lapel.configuration import ConfigurationEvent, ConfigurationItem, ConfigurationStore
from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, LapelError, NotFoundError, PermissionDeniedError, StorageError
from lapel.secretstores import SecretStore
from lapel_contrib.local import parsed_file
from lapel_contrib.local.configuration import FileConfiguration
from lapel_contrib.local.file_secrets import FileSecretStore
from lapel_contrib.local.json_text import parse_object
from lapel_contrib.local.settings import FileConfigurationSettings, FileSecretsSettings

CANARY = "canary-5f1c"

# Made while no event loop runs: pydantic reads files when it builds its first validator.
FileSecretsSettings.parse({"secretsFile": "x"})
FileConfigurationSettings.parse({"path": "x"})


def secret_store(path: Path, **fields: str) -> SecretStore:
    settings = FileSecretsSettings.parse({"secretsFile": str(path), **fields})
    return SecretStore(FileSecretStore(settings, DriverContext(component="secrets")))


def configuration_store(path: Path) -> ConfigurationStore:
    settings = FileConfigurationSettings.parse({"path": str(path)})
    return ConfigurationStore(FileConfiguration(settings, DriverContext(component="settings")))


def replace(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    other.replace(path)


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


def everything_about(exc: BaseException) -> str:
    """All texts that a log or an error tracker could show of an error and what is behind it."""
    parts: list[str] = []
    behind: BaseException | None = exc
    while behind is not None:
        parts += [repr(behind), str(behind), repr(vars(behind)), *traceback.format_exception(behind)]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(parts)


# secretstores.local.file


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


async def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"a": "1"}')
    os.utime(path, (1, 1))
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


# configuration.local.file


YAML = """
plain: text
number: 0644
truth: yes
float: 1.10
nothing:
quoted: "a\\nb ☃"
full:
  value: 12:30
  version: 1.0
  metadata: {owner: ops, level: 007}
bare: {value: x}
"""


async def test_yaml_values_are_the_text_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    async with configuration_store(path) as store:
        items = await store.get()
        assert {key: item.value for key, item in items.items()} == {
            "plain": "text",
            "number": "0644",
            "truth": "yes",
            "float": "1.10",
            "nothing": "",
            "quoted": "a\nb ☃",
            "full": "12:30",
            "bare": "x",
        }
        assert items["full"] == ConfigurationItem("12:30", "1.0", {"owner": "ops", "level": "007"})
        assert await store.get(["full", "unknown"]) == {"full": items["full"]}


async def test_json_is_read_as_json(tmp_path: Path) -> None:
    path = tmp_path / "c.JSON"
    path.write_text('{"a":\t"b\\/\\ud83d\\ude00", "n": 1.0, "t": true, "x": {"value": null, "version": 2}}')
    async with configuration_store(path) as store:
        assert await store.get() == {
            "a": ConfigurationItem("b/😀"),
            "n": ConfigurationItem("1.0"),
            "t": ConfigurationItem("true"),
            "x": ConfigurationItem("", "2"),
        }


async def test_a_caller_cannot_change_what_others_get(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: {value: x, metadata: {m: '1'}}")
    async with configuration_store(path) as store:
        metadata = (await store.get())["a"].metadata
        assert isinstance(metadata, dict)
        metadata["m"] = "2"
        assert (await store.get())["a"].metadata == {"m": "1"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "write {} for no items"),
        ("# nothing\n", "write {} for no items"),
        ("- a\n", "must be a mapping"),
        ("a: 1\n---\nb: 2\n", "several documents"),
        ("a: 1\na: 2\n", ":2 .*twice"),
        ("a: 1\nb: [\n", "not valid YAML"),
        ("a: [1]\n", "'a'"),
        ("a: {value: [1]}\n", "'a'"),
        ("a: {value: 1, valeu: 2}\n", "'valeu'"),
        ("a: {version: 1}\n", "no field 'value'"),
        ("a: {value: 1, metadata: x}\n", "'metadata'"),
        ("'': 1\n", "empty key"),
    ],
)
async def test_a_malformed_configuration_fails_to_open(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        await configuration_store(path).open()
    path.write_text("{}")
    async with configuration_store(path) as store:
        assert await store.get() == {}


class Inbox:
    """Collects events and what they add up to."""

    def __init__(self) -> None:
        self.events: list[ConfigurationEvent] = []
        self.state: dict[str, str | None] = {}

    def __call__(self, event: ConfigurationEvent) -> None:
        self.events.append(event)
        self.state.update({key: None if item.deleted else item.value for key, item in event.items.items()})

    async def holds(self, **wanted: str | None) -> None:
        async def arrived() -> bool:
            return wanted.items() <= self.state.items()

        await until(arrived)


@pytest.fixture(params=["events", "no events"])
def _events(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run once as usual and once where the system offers no events about files."""
    if request.param == "no events":

        def refuse(*arguments: Any, **options: Any) -> Any:
            raise OSError(errno.ENOSPC, "no watches left")

        monkeypatch.setattr(watchfiles, "watch", refuse)


@pytest.mark.usefixtures("_events")
async def test_replaced_edited_and_vanished_files_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: '0'\ngone: x\n")
    async with configuration_store(path) as store:
        inbox = Inbox()
        await store.subscribe([], inbox)
        replace(path, "a: '1'\n")  # right after subscribe returned
        await inbox.holds(a="1", gone=None)
        path.write_text("a: '2'\n")
        await inbox.holds(a="2")
        path.write_text("a: [")
        path.unlink()
        assert {key: item.value for key, item in (await store.get()).items()} == {"a": "2"}
        path.write_text("a: '3'\nb: '4'\n")
        await inbox.holds(a="3", b="4")
    assert not any(event.items.get("a", ConfigurationItem("")).deleted for event in inbox.events)


@pytest.mark.usefixtures("_events")
async def test_a_link_that_is_turned_to_another_file_is_noticed(tmp_path: Path) -> None:
    for folder, value in (("v1", "1"), ("v2", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c.yaml").write_text(f"a: '{value}'\n")
    (tmp_path / "current").symlink_to("v1")
    (tmp_path / "c.yaml").symlink_to("current/c.yaml")
    async with configuration_store(tmp_path / "c.yaml") as store:
        inbox = Inbox()
        await store.subscribe(["a"], inbox, initial=True)
        await inbox.holds(a="1")
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(tmp_path / "current")
        await inbox.holds(a="2")
        (tmp_path / "v2" / "c.yaml").write_text("a: '3'\n")
        await inbox.holds(a="3")


async def test_closing_ends_the_watching_thread(tmp_path: Path) -> None:
    def running() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "lapel-file-watch"]

    path = tmp_path / "c.yaml"
    path.write_text("a: 1\n")
    async with configuration_store(path) as store:
        await store.subscribe([], Inbox())
        await store.subscribe([], Inbox())
        assert len(running()) == 1

    async def ended() -> bool:
        return not running()

    await until(ended)
