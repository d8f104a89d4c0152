"""Configuration in files: values are the text that was written, and every change of a file is noticed."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from tests.unit.configuration_support import Inbox
from tests.unit.local_files_support import replace

from lapel.configuration import ConfigurationItem, ConfigurationStore
from lapel.driver import DriverContext
from lapel.errors import ConfigurationError
from lapel_contrib.local.configuration import FileConfiguration
from lapel_contrib.local.settings import FileConfigurationSettings

# Made while no event loop runs: pydantic reads files when it builds its first validator.
FileConfigurationSettings.parse({"path": "x"})


def configuration_store(path: Path) -> ConfigurationStore:
    settings = FileConfigurationSettings.parse({"path": str(path)})
    return ConfigurationStore(FileConfiguration(settings, DriverContext(component="settings")))


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


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
