"""Disks that are full, files that are read-only or damaged: a typed error with a cure; nothing confirmed is lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.embedded import CANARY

import lapel
from lapel.errors import ConfigurationError, StorageError
from lapel.state import SetOperation

FULL_DISK = Path(__file__).with_name("full_disk.py")
TINY_DISK = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'

Open = Callable[..., Any]
SQLITE: dict[str, Open] = {
    "state": lapel.open_state,
    "pubsub": lapel.open_pubsub,
    "configuration": lapel.open_configuration,
    "lock": lapel.open_lock,
}
every = pytest.mark.parametrize("open_", SQLITE.values(), ids=SQLITE)


def tiny_disk(folder: Path, *command: str) -> list[str]:
    """Return the command that runs another one with a file system of 2 MiB at `folder`; skip where not allowed."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", TINY_DISK, str(folder)]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    return [*prefix, *command]


@pytest.fixture(scope="module")
def on_a_full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    command = tiny_disk(tmp_path_factory.mktemp("disk"), sys.executable, str(FULL_DISK))
    folder = command[command.index("-c") + 2]
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", ["state", "pubsub", "files", "opening"])
def test_a_full_disk_is_a_storage_error_and_loses_nothing(on_a_full_disk: dict[str, Any], case: str) -> None:
    found = on_a_full_disk[case]
    assert found["error"].startswith("StorageError: component ")
    assert "free some space" in found["error"] or "No space left on device" in found["error"]
    assert "canary" not in found["error"]
    assert found["stored"] > 0
    assert found["whole"], "something confirmed is gone"
    assert found["exact"], "something refused is there"
    assert found["went on"], "with free space again it does not work"


async def test_a_database_at_its_page_limit_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = f"{tmp_path}/data.db?_pragma=max_page_count(40)"
    async with lapel.open_state("sqlite", connection_string=path) as store:
        written = 0
        with pytest.raises(StorageError, match=r"'sqlite' \(state.sqlite\) set: .*free some space \(SQLITE_FULL\)"):
            for written in range(100):
                await store.set(f"key-{written}", CANARY * 400)
        keys = [f"key-{number}" for number in range(written)]
        assert sorted((await store.keys()).keys) == sorted(keys)
        with pytest.raises(StorageError) as caught:
            await store.transaction([SetOperation("small", 1), SetOperation("large", CANARY * 4000)])
        assert CANARY not in str(caught.value)
        assert await store.get("small") is None
        await store.bulk_delete(keys)
        await store.set("after", "value")


READ_ONLY = """\
import asyncio, os, sys
import lapel

async def main(path):
    async with lapel.open_state("sqlite", connection_string=path) as store:
        await store.set("key", "value")
    os.chmod(path, 0o444)
    os.chmod(os.path.dirname(path), 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    for opening in (
        lapel.open_state("sqlite", connection_string=path),
        lapel.open_pubsub("sqlite", connection_string=path),
        lapel.open_lock("sqlite", connection_string=path),
        lapel.open_output_binding("localstorage", root_path=os.path.dirname(path) + "/files"),
    ):
        try:
            await opening
        except lapel.LapelError as exc:
            print(type(exc).__name__, exc)
    async with lapel.open_state("sqlite", connection_string=f"file:{path}?mode=ro&immutable=1") as store:
        print((await store.get("key")).json())

asyncio.run(main(sys.argv[1]))
"""


def test_a_read_only_file_says_what_to_do_and_can_be_read_when_asked_for(tmp_path: Path) -> None:
    """As another user, because permissions do not bind root; below the folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "data")
        folder.mkdir()
        Path(name).chmod(0o755)
        command = [sys.executable, "-c", READ_ONLY, str(folder / "data.db")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
        assert [path.name for path in folder.iterdir()] == ["data.db"]
        folder.chmod(0o755)
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout + done.stderr
    for line, driver in zip(lines, ("state.sqlite", "pubsub.sqlite", "lock.sqlite"), strict=False):
        assert line.startswith("StorageError component 'sqlite' (")
        assert f"({driver}) open:" in line
        assert "allow this user to write the file and its directory" in line
    assert lines[3].startswith(
        "PermissionDeniedError component 'localstorage' (bindings.localstorage) open: cannot make"
    )
    assert lines[4] == "value"


@every
@pytest.mark.parametrize("content", [b"no database at all " * 99, b"SQLite format 3\0" + bytes(range(256)) * 32])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    tmp_path: Path, open_: Open, content: bytes
) -> None:
    file = tmp_path / "data.db"
    file.write_bytes(content)
    with pytest.raises(StorageError, match=f"open: cannot open, database '{file}'.*check the path|damaged"):
        await open_("sqlite", connection_string=str(file))
    assert file.read_bytes() == content
    assert os.listdir(tmp_path) == ["data.db"]


@every
@pytest.mark.parametrize("path", ["", "there/is/no/folder/data.db"])
async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, open_: Open, path: str) -> None:
    with pytest.raises((StorageError, ConfigurationError), match=r"component 'sqlite' \(.*(directory|folder)"):
        await open_("sqlite", connection_string=str(tmp_path / path))
    assert os.listdir(tmp_path) == []


async def test_a_file_damaged_while_it_is_open_gives_errors_and_never_wrong_data(tmp_path: Path) -> None:
    file = tmp_path / "data.db"
    expected = {f"key-{number}": f"{CANARY} {number}".encode().ljust(3000, b".") for number in range(200)}
    async with lapel.open_state("sqlite", connection_string=str(file)) as store:
        await store.bulk_set([SetOperation(key, data) for key, data in expected.items()])
    async with lapel.open_state("sqlite", connection_string=str(file)) as store:
        size = file.stat().st_size
        with file.open("r+b") as stream:
            # From the second page on; the first has the schema, which is read already.
            stream.seek(4096)
            stream.write(b"\xa5" * (size - 4096))
        errors = [outcome.error for outcome in await store.bulk_get(list(expected)) if outcome.item is None]
        assert errors
        for outcome in await store.bulk_get(list(expected)):
            assert outcome.error is not None or (outcome.item and outcome.item.data == expected[outcome.key])
        for call in (store.set("key-1", 1), store.keys(), store.delete("key-2")):
            with pytest.raises(StorageError, match="the file is damaged; restore it from a backup") as caught:
                await call
            assert CANARY not in str(caught.value)


async def test_a_table_that_disappears_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "data.db"
    async with lapel.open_state("sqlite", connection_string=str(file)) as store:
        await store.set("key", 1)
        other = sqlite3.connect(file)
        other.execute("DROP TABLE state")
        other.close()
        for call in (store.get("key"), store.set("key", 2)):
            with pytest.raises(lapel.LapelError, match=f"'sqlite' .*database '{file}'"):
                await call


async def test_a_file_of_secrets_that_breaks_is_told_by_health_and_the_last_good_one_stays(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"name": CANARY}))
    async with lapel.open_secret_store("local.file", secrets_file=str(file)) as store:
        file.write_text(f'{{"name": "another {CANARY}", ')
        assert (await store.get("name")).value == CANARY
        health = await store.health()
        assert not health.ok
        assert str(file) in str(health.reason)
        assert CANARY not in repr(health)
    with pytest.raises(ConfigurationError, match=f"'local.file' .* open: secretsFile {file}") as caught:
        await lapel.open_secret_store("local.file", secrets_file=str(file))
    assert CANARY not in str(caught.value)
