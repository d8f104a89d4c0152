"""Key listings of state.redis."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from lapel.state.like import Wildcard, compile_like, parse_like
from lapel.state.types import KeysPage, KeysRequest

from .client import RedisClient
from .errors import ReplyError

__all__ = ["glob_of", "list_keys", "readable", "scan", "scan_documents"]

HASH, DOCUMENT = "hash", "ReJSON-RL"
COUNT = 1000
"""Keys that the server looks at in one step of a scan, during which it does nothing else."""
THREAD_KEYS = 2000
"""From this many keys on, a listing is sorted on a thread."""
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "*?[]\\^-"})


async def list_keys(client: RedisClient, request: KeysRequest, *, documents: bool) -> KeysPage:
    """Return one page. Each is a scan of the whole database, so that nothing need be remembered between pages."""
    kinds = (HASH, DOCUMENT) if documents else (HASH,)
    glob = glob_of(request.pattern)
    found = await scan(client, glob, kinds)
    token, size = request.token, request.page_size

    def page() -> KeysPage:
        fits = compile_like(request.pattern).fullmatch
        keys = sorted(key for key in readable(found) if fits(key))
        if token is not None:
            del keys[: bisect_right(keys, token)]
        if size is None or len(keys) <= size:
            return KeysPage(keys=keys)
        return KeysPage(keys=keys[:size], token=keys[size - 1])

    return await asyncio.to_thread(page) if len(found) > THREAD_KEYS else page()


async def scan_documents(client: RedisClient, prefix: str) -> list[str]:
    """Return the keys of all documents that start with the prefix."""
    return readable(await scan(client, f"{prefix.translate(_SPECIAL)}*", (DOCUMENT,)))


def glob_of(pattern: str) -> str:
    """Return a pattern of Redis that matches at least what the LIKE pattern does."""
    text = ""
    for part in parse_like(pattern):
        # A character may be several of the bytes that Redis counts.
        text += "*" if isinstance(part, Wildcard) else part.translate(_SPECIAL)
    return text


async def scan(client: RedisClient, glob: str, kinds: tuple[str, ...]) -> set[bytes]:
    """Collect the keys of all servers; again when slots moved meanwhile, with keys that might have been passed over."""
    found: set[bytes] = set()
    while True:
        nodes = client.primaries
        for node in nodes:
            for kind in kinds:
                await _scan_node(client, node, glob, kind, found)
        if not client.cluster:
            return found
        await client.refresh()
        if client.primaries == nodes:
            return found


async def _scan_node(client: RedisClient, node: Any, glob: str, kind: str, found: set[bytes]) -> None:
    cursor: bytes | int = 0
    while True:
        command = ("SCAN", cursor, "MATCH", glob, "COUNT", COUNT, "TYPE", kind)
        (reply,) = await client.apart(command, node=node, writes=False)
        if isinstance(reply, ReplyError):
            raise client.translate(reply) from None
        cursor, keys = reply
        found.update(keys)
        if cursor == b"0":
            return


def readable(keys: Iterable[bytes]) -> list[str]:
    """Return the keys that are text."""
    texts = []
    for key in keys:
        try:
            texts.append(key.decode())
        except UnicodeDecodeError:
            continue  # not one of ours: those are text
    return texts
