"""Files below one folder as a binding."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lapel.bindings import OutputBinding
from lapel.driver import DriverContext
from lapel.errors import (
    ConfigurationError,
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    SettingsError,
    StorageError,
)
from lapel.testing import row
from lapel_contrib.local.binding import LocalStorageBinding
from lapel_contrib.local.settings import LocalStorageSettings

ALL_BYTES = bytes(range(256))

# The first use of a settings class looks for plugins of pydantic on the disk, which no event loop should wait for.
LocalStorageSettings.parse({"rootPath": "/nowhere"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
async def binding(root: Path) -> AsyncIterator[OutputBinding]:
    async with made(root) as opened:
        yield opened


def made(root: Path) -> OutputBinding:
    settings = LocalStorageSettings.parse({"rootPath": str(root)})
    return OutputBinding(LocalStorageBinding(settings, DriverContext(component="files")))


def named(name: str) -> dict[str, str]:
    return {"fileName": name}


async def listed(binding: OutputBinding, folder: str = "") -> list[str]:
    reply = await binding.invoke("list", metadata=named(folder))
    assert reply.content_type == "application/json"
    found: list[str] = json.loads(await reply.read())
    return found


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("data", [ALL_BYTES, b"", b"test", b"dGVzdA==", b'"quoted"', b"\xef\xbb\xbf{}"])
async def test_data_is_stored_exactly_as_given(binding: OutputBinding, root: Path, data: bytes) -> None:
    reply = await binding.invoke("create", data, metadata=named("a/b.bin"))
    assert json.loads(await reply.read()) == {"fileName": "a/b.bin"}
    assert (root / "a/b.bin").read_bytes() == data
    assert (await binding.invoke("get", metadata=named("a/b.bin"))).data == data


async def test_a_file_without_a_name_gets_a_new_one(binding: OutputBinding, root: Path) -> None:
    names = [json.loads(await (await binding.invoke("create", b"x")).read())["fileName"] for _ in range(2)]
    assert len({uuid.UUID(name) for name in names}) == 2
    assert sorted(os.listdir(root)) == sorted(names)


async def test_create_replaces_and_keeps_the_mode(binding: OutputBinding, root: Path) -> None:
    await binding.invoke("create", b"a longer text", metadata=named("f"))
    (root / "f").chmod(0o640)
    await binding.invoke("create", b"short", metadata=named("f"))
    assert (root / "f").read_bytes() == b"short"
    assert (root / "f").stat().st_mode & 0o777 == 0o640


async def test_list_gives_absolute_paths_of_all_files_below_a_folder(binding: OutputBinding, root: Path) -> None:
    assert await listed(binding) == []
    for name in ("z", "a/one", "a/b/two"):
        await binding.invoke("create", b"", metadata=named(name))
    (root / "empty").mkdir()
    assert await listed(binding) == [f"{root}/a/b/two", f"{root}/a/one", f"{root}/z"]
    assert await listed(binding, "a/b") == [f"{root}/a/b/two"]
    # What a listing returns can be asked for.
    assert (await binding.invoke("get", metadata=named(f"{root}/a/one"))).data == b""


async def test_what_is_missing_is_not_found(binding: OutputBinding) -> None:
    await binding.invoke("create", b"", metadata=named("file"))
    for operation in ("get", "delete", "list"):
        for name in ("missing", "missing/too", "file/below"):
            with pytest.raises(NotFoundError, match=name):
                await binding.invoke(operation, metadata=named(name))


async def test_delete_removes_files_and_empty_folders(binding: OutputBinding, root: Path) -> None:
    await binding.invoke("create", b"", metadata=named("folder/file"))
    with pytest.raises(OperationFailedError, match="not empty"):
        await binding.invoke("delete", metadata=named("folder"))
    assert (await binding.invoke("delete", metadata=named("folder/file"))).data is None
    await binding.invoke("delete", metadata=named("folder"))
    assert os.listdir(root) == []


@pytest.mark.parametrize("operation", ["create", "get", "delete", "list"])
@pytest.mark.parametrize(
    "name",
    ["../secret", "a/../../secret", "..", "a/..", "/etc/passwd", "nul\0l", ".lapel-partial-1", "x" * 300, "\ud800x"],
)
async def test_names_that_leave_the_root_or_are_no_names_are_refused(
    binding: OutputBinding, root: Path, operation: str, name: str
) -> None:
    (root.parent / "secret").write_bytes(b"secret")
    with pytest.raises(InvalidArgumentError, match="fileName"):
        await binding.invoke(operation, b"evil" if operation == "create" else None, metadata=named(name))
    assert (root.parent / "secret").read_bytes() == b"secret"
    assert os.listdir(root) == []


@pytest.mark.parametrize(("operation", "name"), [("create", ""), ("create", "."), ("create", "f/"), ("get", "")])
async def test_a_name_that_names_no_file_is_refused(binding: OutputBinding, operation: str, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="names no file"):
        await binding.invoke(operation, metadata=named(name))


async def test_get_and_delete_need_a_name(binding: OutputBinding) -> None:
    for operation in ("get", "delete"):
        with pytest.raises(InvalidArgumentError, match="'fileName'"):
            await binding.invoke(operation)


async def test_a_folder_is_no_file_and_a_file_no_folder(binding: OutputBinding, root: Path) -> None:
    (root / "folder").mkdir()
    (root / "file").write_bytes(b"")
    for operation, name in (("get", "folder"), ("create", "folder"), ("list", "file"), ("create", "file/below")):
        with pytest.raises(InvalidArgumentError):
            await binding.invoke(operation, metadata=named(name))


async def test_a_pipe_is_refused_and_does_not_hang(binding: OutputBinding, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(InvalidArgumentError):
        await binding.invoke("get", metadata=named("pipe"))
    assert await listed(binding) == []


@pytest.mark.parametrize("operation", ["create", "get", "delete", "list"])
@pytest.mark.parametrize("target", ["{outside}", "../outside", "inner/../../outside", "/etc"])
async def test_links_that_leave_the_root_are_refused(
    binding: OutputBinding, root: Path, operation: str, target: str
) -> None:
    outside = root.parent / "outside"
    (root / "inner").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_bytes(b"kept")
    (root / "link").symlink_to(target.format(outside=outside))
    for name in ("link", "link/file", "link/new"):
        with pytest.raises(InvalidArgumentError, match="symbolic link"):
            await binding.invoke(operation, b"evil" if operation == "create" else None, metadata=named(name))
    assert (outside / "file").read_bytes() == b"kept"
    assert os.listdir(outside) == ["file"]
    assert await listed(binding) == []


async def test_links_that_stay_below_the_root_are_followed(binding: OutputBinding, root: Path) -> None:
    (root / "data/deep").mkdir(parents=True)
    (root / "data/deep/file").write_bytes(b"1")
    (root / "relative").symlink_to("data/deep/../deep/file")
    (root / "absolute").symlink_to(root / "data")
    (root / "loop").symlink_to("loop")
    assert (await binding.invoke("get", metadata=named("relative"))).data == b"1"
    await binding.invoke("create", b"2", metadata=named("absolute/deep/file"))
    await binding.invoke("create", b"3", metadata=named("relative"))
    assert (root / "data/deep/file").read_bytes() == b"3"
    assert (root / "relative").is_symlink()
    assert await listed(binding) == [f"{root}/data/deep/file", f"{root}/relative"]
    await binding.invoke("delete", metadata=named("relative"))
    assert (root / "data/deep/file").exists()
    with pytest.raises(InvalidArgumentError, match="too many"):
        await binding.invoke("get", metadata=named("loop"))


async def test_a_folder_swapped_for_a_link_meanwhile_leads_nowhere(
    binding: OutputBinding, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "folder").mkdir(parents=True)
    look = os.lstat

    def swap(path: str, *, dir_fd: int | None = None) -> os.stat_result:
        found = look(path, dir_fd=dir_fd)
        if path == "folder":
            (root / "folder").rmdir()
            (root / "folder").symlink_to(outside)
        return found

    monkeypatch.setattr(os, "lstat", swap)
    with pytest.raises(LapelError):
        await binding.invoke("create", b"evil", metadata=named("folder/file"))
    assert os.listdir(outside) == []


async def test_a_stream_is_stored_whole(binding: OutputBinding, root: Path) -> None:
    parts = [os.urandom(100_000) for _ in range(7)] + [b""]
    await binding.invoke("create", chunks(*parts), metadata=named("big"))
    assert (root / "big").read_bytes() == b"".join(parts)


async def test_a_stream_that_breaks_leaves_the_old_file_and_nothing_else(binding: OutputBinding, root: Path) -> None:
    await binding.invoke("create", b"old", metadata=named("f"))

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        await binding.invoke("create", broken(), metadata=named("f"))
    assert os.listdir(root) == ["f"]
    assert (root / "f").read_bytes() == b"old"


async def test_an_upload_under_way_is_invisible_and_a_cancelled_one_leaves_nothing(
    binding: OutputBinding, root: Path
) -> None:
    written, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        written.set()
        await go_on.wait()

    task = asyncio.create_task(binding.invoke("create", slow(), metadata=named("f")))
    await written.wait()
    assert len(os.listdir(root)) == 1
    assert await listed(binding) == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.listdir(root) == []


async def test_a_big_file_is_read_as_a_stream_of_bounded_pieces(binding: OutputBinding, root: Path) -> None:
    content = os.urandom(1_000_000)
    root.mkdir(exist_ok=True)
    (root / "big").write_bytes(content)
    reply = await binding.invoke("get", metadata=named("big"), stream=True)
    assert not isinstance(reply.data, bytes)
    assert reply.data is not None
    pieces = [piece async for piece in reply.data]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 256 * 1024
    assert (await binding.invoke("get", metadata=named("big"))).data == content


async def test_a_reader_keeps_its_version_while_another_is_written(binding: OutputBinding) -> None:
    old, new = b"a" * 700_000, b"b" * 700_000
    await binding.invoke("create", old, metadata=named("f"))
    reply = await binding.invoke("get", metadata=named("f"), stream=True)
    await binding.invoke("create", new, metadata=named("f"))
    assert await reply.read() == old


async def test_concurrent_writers_of_one_file_never_mix(binding: OutputBinding) -> None:
    contents = [bytes([65 + number]) * 50_000 for number in range(20)]
    await asyncio.gather(*(binding.invoke("create", content, metadata=named("f")) for content in contents))
    assert (await binding.invoke("get", metadata=named("f"))).data in contents
    assert len(await listed(binding)) == 1


async def test_unread_streams_are_let_go_at_close(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    async with made(root) as binding:
        await binding.invoke("create", b"x" * 700_000, metadata=named("f"))
        reply = await binding.invoke("get", metadata=named("f"), stream=True)
        await (await binding.invoke("get", metadata=named("f"), stream=True)).aclose()
    with pytest.raises(LapelError, match="closed"):
        await reply.read()
    async with asyncio.timeout(10):
        while threading.active_count() > threads:
            await asyncio.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_errors_of_the_disk_are_typed(
    binding: OutputBinding, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        await binding.invoke("create", b"x", metadata=named("f"))
    assert os.listdir(root) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
async def test_a_root_that_may_not_be_read_is_permission_denied(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(PermissionDeniedError, match="rootPath"):
        await made(tmp_path / "closed").open()


async def test_a_root_that_is_a_file_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="rootPath"):
        await made(tmp_path / "file").open()


@pytest.mark.parametrize("path", ["/proc", "/sys/kernel", "/boot/../boot", "/var/run/secrets/x"])
def test_folders_of_the_system_are_refused_offline(path: str) -> None:
    with pytest.raises(SettingsError, match="rootPath"):
        LocalStorageSettings.parse({"rootPath": path})


async def test_a_link_to_a_folder_of_the_system_is_refused_at_open(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    with pytest.raises(ConfigurationError, match="not allowed"):
        await made(tmp_path / "link").open()


@row("stricter-073")
async def test_a_root_that_was_away_is_noticed_and_used_again(binding: OutputBinding, root: Path) -> None:
    assert (await binding.health()).ok
    root.rmdir()
    health = await binding.health()
    assert not health.ok
    assert "rootPath" in (health.reason or "")
    with pytest.raises(LapelError):
        await binding.invoke("create", b"", metadata=named("f"))
    root.mkdir()
    await binding.invoke("create", b"", metadata=named("f"))
    assert (await binding.health()).ok
