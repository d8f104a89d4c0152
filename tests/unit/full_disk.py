"""Fill the file system below the folder given, write on until drivers refuse, and print what they said as JSON.

Run by `test_bad_storage` with a tiny file system of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lapel

CANARY = "canary-77b1"


def data(number: int) -> bytes:
    """Return the data of one write: some kilobytes that no error may show."""
    return f"{number} {CANARY}".encode().ljust(4000, b".")


async def until_full(write: Callable[[int], Awaitable[object]]) -> tuple[int, str]:
    """Write until it fails; return how often it worked, and the error."""
    for number in range(10_000):
        try:
            await write(number)
        except lapel.LapelError as exc:
            return number, f"{type(exc).__name__}: {exc}"
    raise AssertionError("the disk never became full")


async def state(folder: Path, free: Callable[[], None]) -> dict[str, Any]:
    """Fill a store one by one, then with many at once; read back; free some space and go on."""
    async with lapel.open_state("sqlite", connection_string=str(folder / "state.db")) as store:
        stored, error = await until_full(lambda number: store.set(f"key-{number}", data(number)))
        results = await asyncio.gather(
            *(store.set(f"late-{number}", data(number)) for number in range(20)), return_exceptions=True
        )
        kept = [f"late-{number}" for number, result in enumerate(results) if isinstance(result, str)]
        strangers = [repr(one) for one in results if not isinstance(one, str | lapel.LapelError)]
        items = [await store.get(f"key-{number}") for number in range(stored)]
        whole = all(item is not None and item.data == data(number) for number, item in enumerate(items))
        listed = set((await store.keys()).keys) == {f"key-{number}" for number in range(stored)} | set(kept)
        free()
        await store.set("after", b"")
    async with lapel.open_state("sqlite", connection_string=str(folder / "state.db")) as store:
        again = len((await store.keys()).keys) == stored + len(kept) + 1
    return {
        "stored": stored,
        "error": error,
        "whole": whole,
        "exact": listed and not strangers,
        "went on": again,
    }


async def pubsub(folder: Path, free: Callable[[], None]) -> dict[str, Any]:
    """Fill a broker; free some space; what arrives is what was confirmed."""
    received: list[bytes] = []
    done = asyncio.Event()

    async def keep(message: lapel.Message) -> None:
        received.append(message.data)
        if message.data == b"after":
            done.set()

    async with lapel.open_pubsub("sqlite", connection_string=str(folder / "messages.db")) as broker:
        # The group exists from here on, so that messages are kept for it.
        await (await broker.subscribe("topic", keep, raw=True)).aclose()
        stored, error = await until_full(lambda number: broker.publish("topic", data(number), raw=True))
        free()
        await broker.publish("topic", b"after", raw=True)
        await broker.subscribe("topic", keep, raw=True, ordering="all")
        await asyncio.wait_for(done.wait(), 20)
    exact = received == [*(data(number) for number in range(stored)), b"after"]
    return {"stored": stored, "error": error, "whole": exact, "exact": exact, "went on": True}


async def files(folder: Path, free: Callable[[], None]) -> dict[str, Any]:
    """Fill a folder through the binding; a file is there whole or not at all."""
    root = folder / "files"
    async with lapel.open_output_binding("localstorage", root_path=str(root)) as binding:

        async def write(number: int) -> None:
            await binding.invoke("create", data(number), metadata={"fileName": str(number)})

        stored, error = await until_full(write)
        whole = all((root / str(number)).read_bytes() == data(number) for number in range(stored))
        exact = sorted(os.listdir(root)) == sorted(map(str, range(stored)))
        free()
        await write(stored)
    return {"stored": stored, "error": error, "whole": whole, "exact": exact, "went on": True}


async def opening(folder: Path, free: Callable[[], None]) -> dict[str, Any]:
    """Open on a disk that is full already; afterwards the same file opens."""
    fill(folder / "rest", 1 << 22)
    path = str(folder / "late.db")
    try:
        async with lapel.open_lock("sqlite", connection_string=path):
            raise AssertionError("opened on a full disk")
    except lapel.LapelError as exc:
        error = f"{type(exc).__name__}: {exc}"
    free()
    async with lapel.open_lock("sqlite", connection_string=path) as locks:
        taken = bool(await locks.try_lock("resource", "owner", 1))
    return {"stored": 1, "error": error, "whole": True, "exact": True, "went on": taken}


def fill(path: Path, size: int) -> None:
    """Write up to `size` bytes, or as many as there is room for."""
    with path.open("wb", buffering=0) as file:
        try:
            for _ in range(size // 1024):
                file.write(bytes(1024))
        except OSError:
            pass


async def main(folder: Path) -> None:
    """Run all cases, each with a ballast that it may throw off."""
    found = {}
    for case in (state, pubsub, files, opening):
        place = folder / case.__name__
        place.mkdir()
        ballast = place / "ballast"
        fill(ballast, 1 << 20)
        found[case.__name__] = await case(place, ballast.unlink)
        for path in sorted(place.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
