"""Objects under names: their life, their content, names that lead elsewhere, and writers in parallel."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ...bindings import OutputBinding
from ...descriptor import Capability
from ...errors import InvalidArgumentError, NotFoundError
from ..marks import contract, needs, row
from ..subject import Subject
from .base import BindingBase

__all__ = ["ObjectTests"]

CONTENTS = [
    bytes(range(256)),
    b"",
    b"test",
    b"dGVzdA==",
    b'"a quoted string"',
    b"`raw`",
    b'{"json": [1.0, null]}',
    "text \u00fc \U0001f600".encode(),
    b"\xef\xbb\xbfmark",
    b"line\r\nline\n",
]


class ObjectTests(BindingBase):
    """What a binding does that keeps objects under names."""

    @row("BD-04", "BD-05", "stricter-061")
    @needs(Capability.OUTPUT)
    @contract
    async def test_what_was_created_comes_back(self, output: OutputBinding, target: str, base: str) -> None:
        metadata = {target: _name(base)}
        for data in (b'[{"id": "1"}]', b"another", b""):
            await output.invoke("create", data, metadata=metadata)
            assert await _got(output, metadata) == data

    @row("BD-08", "stricter-061")
    @needs(Capability.OUTPUT)
    @contract
    async def test_what_was_deleted_is_gone(self, output: OutputBinding, target: str, base: str) -> None:
        metadata = {target: _name(base)}
        await output.invoke("create", b"x", metadata=metadata)
        assert not await (await output.invoke("delete", metadata=metadata)).read()
        with pytest.raises(NotFoundError):
            await output.invoke("get", metadata=metadata)
        await output.invoke("create", b"again", metadata=metadata)
        assert await _got(output, metadata) == b"again"

    @row("stricter-061")
    @needs(Capability.OUTPUT)
    @contract
    @pytest.mark.parametrize("operation", ["get", "delete"])
    async def test_a_missing_object_is_not_found(
        self, output: OutputBinding, target: str, base: str, operation: str
    ) -> None:
        with pytest.raises(NotFoundError):
            await output.invoke(operation, metadata={target: _name(base)})

    @row("BD-06", "stricter-061")
    @needs(Capability.OUTPUT)
    @contract
    async def test_a_listing_has_what_was_created_and_not_what_was_deleted(
        self, output: OutputBinding, target: str, base: str
    ) -> None:
        if "list" not in output.operations:
            pytest.skip("offers no list")
        kept, gone = f"{_name(base)}-kept", f"{_name(base)}-gone"
        for name in (kept, gone):
            await output.invoke("create", b"x", metadata={target: name})
        await output.invoke("delete", metadata={target: gone})
        text = await (await output.invoke("list")).read()
        assert json.loads(text) is not None
        assert kept.encode() in text
        assert gone.encode() not in text

    @row("stricter-063")
    @needs(Capability.OUTPUT)
    @contract
    @pytest.mark.parametrize("data", CONTENTS, ids=range(len(CONTENTS)))
    async def test_content_is_stored_unchanged(
        self, output: OutputBinding, target: str, base: str, data: bytes
    ) -> None:
        metadata = {target: _name(base)}
        await output.invoke("create", data, metadata=metadata)
        assert await _got(output, metadata) == data

    @row("stricter-063")
    @needs(Capability.OUTPUT)
    async def test_a_long_stream_goes_in_and_comes_out_unchanged(
        self, output: OutputBinding, target: str, base: str
    ) -> None:
        parts = [os.urandom(100_000) for _ in range(25)]

        async def stream() -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        metadata = {target: _name(base)}
        await output.invoke("create", stream(), metadata=metadata)
        assert await _got(output, metadata) == b"".join(parts)
        response = await output.invoke("get", metadata=metadata, stream=True)
        assert await response.read() == b"".join(parts)

    @row("stricter-064")
    @needs(Capability.OUTPUT)
    @contract
    @pytest.mark.parametrize("operation", ["create", "get", "delete", "list"])
    @pytest.mark.parametrize("kind", ["parent", "deep", "absolute", "nul", "link", "linked folder"])
    async def test_names_that_lead_out_of_the_root_are_refused(
        self, subject: Subject, output: OutputBinding, target: str, base: str, operation: str, kind: str
    ) -> None:
        root = str(self.option(subject, "root"))
        if not root or operation not in output.operations:
            pytest.skip("the component file names no `root`: the binding does not work on files")
        outside = Path(root).parent / f"outside-{_name(base)}"
        await asyncio.to_thread(_prepare, Path(root), outside, _name(base))
        name = {
            "parent": f"../{outside.name}/kept",
            "deep": f"a/b/../../../{outside.name}/kept",
            "absolute": f"{outside}/kept",
            "nul": f"{_name(base)}\0kept",
            "link": f"{_name(base)}-link",
            "linked folder": f"{_name(base)}-folder/kept",
        }[kind]
        with pytest.raises(InvalidArgumentError):
            await output.invoke(operation, b"evil" if operation == "create" else None, metadata={target: name})
        assert await asyncio.to_thread(_found, outside) == {"kept": b"kept"}

    @row("stricter-065")
    @needs(Capability.OUTPUT)
    @contract
    async def test_fifty_writers_of_fifty_objects_leave_all(
        self, output: OutputBinding, target: str, base: str
    ) -> None:
        names = [f"{_name(base)}-{number}" for number in range(50)]
        await asyncio.gather(*(output.invoke("create", name.encode(), metadata={target: name}) for name in names))
        found = await asyncio.gather(*(_got(output, {target: name}) for name in names))
        assert found == [name.encode() for name in names]

    @row("stricter-065")
    @needs(Capability.OUTPUT)
    @contract
    async def test_fifty_writers_of_one_object_leave_one_of_them_whole(
        self, output: OutputBinding, target: str, base: str
    ) -> None:
        metadata = {target: _name(base)}
        contents = [bytes([number]) * (10_000 + number) for number in range(50)]
        await output.invoke("create", contents[0], metadata=metadata)
        writers = [asyncio.create_task(output.invoke("create", data, metadata=metadata)) for data in contents]
        while not all(writer.done() for writer in writers):
            # A driver in memory never waits, and its writers need a turn too.
            await asyncio.sleep(0)
            assert await _got(output, metadata) in contents
        await asyncio.gather(*writers)
        assert await _got(output, metadata) in contents


async def _got(output: OutputBinding, metadata: dict[str, str]) -> bytes:
    """Return the content of an object."""
    return await (await output.invoke("get", metadata=metadata)).read()


def _name(base: str) -> str:
    return base.strip("{}")


def _prepare(root: Path, outside: Path, name: str) -> None:
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    (root / f"{name}-link").symlink_to(outside / "kept")
    (root / f"{name}-folder").symlink_to(outside)


def _found(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
