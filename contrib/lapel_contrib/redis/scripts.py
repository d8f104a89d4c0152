"""Commands and Lua scripts, and the bytes that go out for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, cast

import hiredis
import msgspec

__all__ = ["Argument", "Call", "Script", "pack", "pack_script"]

Argument = str | bytes | int | float


class Script:
    """A script for `EVALSHA`: sent by its hash, and in full when the server does not know it (any more).

    `stride` other than None says that it treats its keys one by one, with so many arguments for each, and returns a
    list with one reply for each key, in order: then calls of several tasks are sent as one. Such a script must not
    raise after it has changed something; what is wrong with one key goes into that key's reply.
    """

    __slots__ = ("name", "sha", "source", "stride")

    def __init__(self, name: str, source: str, *, stride: int | None = None) -> None:
        self.name = name
        self.source = source.strip()
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        self.stride = stride

    def __repr__(self) -> str:
        return f"<Script {self.name}>"


class Call(msgspec.Struct, gc=False):
    """One command, or one run of a script over `keys`. `writes` tells whether sending it twice could do harm.

    Without a script `args` is the whole command and `keys` only says where it goes.
    """

    script: Script | None
    keys: tuple[str | bytes, ...]
    args: tuple[Argument, ...]
    writes: bool = True

    def pack(self, *, in_full: bool = False) -> bytes:
        """Return the bytes to send, with the source of the script if `in_full`."""
        if self.script is None:
            return pack(self.args)
        return pack_script(self.script, self.keys, self.args, in_full=in_full)


def pack(command: Iterable[Argument]) -> bytes:
    """Return the bytes of a command."""
    return cast("bytes", hiredis.pack_command(cast("Any", tuple(command))))


def pack_script(script: Script, keys: Iterable[Argument], args: Iterable[Argument], *, in_full: bool = False) -> bytes:
    """Return the bytes that run a script over keys, by its hash unless `in_full`."""
    names = tuple(keys)
    head = ("EVAL", script.source) if in_full else ("EVALSHA", script.sha)
    return pack((*head, len(names), *names, *args))
