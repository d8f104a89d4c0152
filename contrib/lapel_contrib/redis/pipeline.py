"""Calls of many tasks, written as one buffer and answered in one go."""

from __future__ import annotations

import asyncio
import random
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any

from lapel.coalesce import Coalescer, mark_not_sent
from lapel.errors import ClosedError, LapelError, UnavailableError

from .errors import ReplyError, lost, translate
from .joining import join
from .link import Link, LinkLostError
from .scripts import Call, pack, pack_script

__all__ = ["Pipeline"]

MAX_CALLS = 32
MAX_BYTES = 256 * 1024
MAX_KEYS = 128
"""Most keys of one script run, so that other clients of the server get their turn."""
ROUND_TRIPS = 3
"""Batches under way at a time: while the server works on one, this process reads and packs another."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

_REDIRECTIONS = ("MOVED", "ASK")


class _Group:
    """Consecutive calls that go out as one command."""

    __slots__ = ("args", "calls", "keys", "reply", "script")

    def __init__(self, call: Call) -> None:
        self.script = call.script
        self.calls = [call]
        self.keys = call.keys
        self.args = call.args
        self.reply: Any = None

    def pack(self, *, in_full: bool = False) -> bytes:
        if self.script is None:
            return pack(self.args)
        return pack_script(self.script, self.keys, self.args, in_full=in_full)

    def split(self) -> list[_Group]:
        return [_Group(call) for call in self.calls]


class Pipeline:
    """One connection to one server, shared by everybody; opened when needed, again after it was lost.

    Calls may overlap and are sent in order. `connect` returns an open link; its failures pause further attempts, up to
    a second. With `merge` consecutive calls of a script with a stride are sent as one. With `failover` a server that
    has become a replica is left. With `redirections` replies that name another server are raised as `ReplyError`.
    `on_trouble` is called when connecting failed or a connection was lost with calls under way.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Link]],
        *,
        place: str,
        timeout: float | None,
        merge: bool = True,
        failover: bool = False,
        redirections: bool = False,
        on_trouble: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._place = place
        self._timeout = timeout
        self._merge = merge
        self._failover = failover
        self._redirections = redirections
        self._on_trouble = on_trouble
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._closing = False
        self._coalescer: Coalescer[Call, Any] = Coalescer(
            self._flush, max_items=MAX_CALLS, max_bytes=MAX_BYTES, concurrency=ROUND_TRIPS, name="lapel redis"
        )

    @property
    def link(self) -> Link | None:
        """The connection, if there is one now."""
        return self._link if self._link is not None and self._link.open else None

    @property
    def busy(self) -> bool:
        """Whether a call is under way, or a connection is being made."""
        waiting = self._connecting is not None or self._coalescer.pending > 0
        return waiting or (self.link is not None and not self.link.idle)

    def submit(self, call: Call, size: int = 0) -> Coroutine[Any, Any, Any]:
        """Send a call with the next buffer and return its reply, to be awaited at once. `size` is in bytes.

        For a script with a stride the reply of a single key, a list for several. Raises what `translate`, `lost` and
        `unreachable` make, and `ClosedError`.
        """
        link = self._link
        if link is not None and link.open:
            return self._coalescer.submit(call, size)
        return self._connect_and_submit(call, size)

    async def connected(self) -> Link:
        """Return the connection, opened if there is none. Raises `UnavailableError`, `PermissionDeniedError`."""
        while True:
            if (link := self.link) is not None:
                return link
            if self._closing:
                raise ClosedError(f"{self._place}: the client is closed; nothing was done")
            if self._connecting is None:
                self._connecting = asyncio.get_running_loop().create_task(
                    self._open(), name="lapel redis connect", context=Context()
                )
                self._connecting.add_done_callback(self._opened)
            connecting = self._connecting
            try:
                await join(connecting)
            except CancelledError:
                if not connecting.cancelled() or not self._is_closing():
                    raise

    async def close(self, deadline: float = 2.0) -> None:
        """Let what is under way finish, for `deadline` seconds, and close the connection. Idempotent."""
        self._closing = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._coalescer.close(deadline)
        if self._link is not None:
            self._link.close()
            self._link = None

    def _is_closing(self) -> bool:
        return self._closing

    async def _connect_and_submit(self, call: Call, size: int) -> Any:
        try:
            await self.connected()
        except CancelledError as exc:
            mark_not_sent(exc)
            raise
        return await self._coalescer.submit(call, size)

    async def _open(self) -> None:
        now = asyncio.get_running_loop().time
        if (pause := self._not_before - now()) > 0:
            await asyncio.sleep(pause)
        try:
            self._link = await self._connect()
        except LapelError:
            ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
            self._failures += 1
            self._on_trouble()
            self._not_before = now() + ceiling * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load only
            raise
        self._failures = 0

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # seen by those who waited, if any is left

    async def _flush(self, calls: list[Call]) -> Sequence[Any]:
        link = self.link
        if link is None:
            raise UnavailableError(f"{self._place}: the connection was lost just before; nothing was done")
        groups = self._group(calls)
        await self._exchange(link, groups, in_full=False)
        if any(type(group.reply) is ReplyError for group in groups):
            groups = await self._recover(link, groups)
        results: list[Any] = []
        for group in groups:
            self._answer(group, results)
        return results

    def _group(self, calls: list[Call]) -> list[_Group]:
        group = _Group(calls[0])
        groups = [group]
        if len(calls) == 1:
            return groups
        if not self._merge:
            return [_Group(call) for call in calls]
        script, many, keys, args = group.script, group.calls, list(group.keys), list(group.args)
        for call in calls[1:]:
            if call.script is script and script is not None and script.stride is not None and len(keys) < MAX_KEYS:
                many.append(call)
                keys += call.keys
                args += call.args
                continue
            group.keys, group.args = tuple(keys), tuple(args)
            group = _Group(call)
            groups.append(group)
            script, many, keys, args = group.script, group.calls, list(group.keys), list(group.args)
        group.keys, group.args = tuple(keys), tuple(args)
        return groups

    async def _exchange(self, link: Link, groups: list[_Group], *, in_full: bool) -> None:
        buffer = b"".join([group.pack(in_full=in_full) for group in groups])
        try:
            replies = await link.send(buffer, len(groups), self._timeout)
        except LinkLostError as exc:
            self._on_trouble()
            replies = exc.replies + [exc] * (len(groups) - len(exc.replies))
        for group, reply in zip(groups, replies, strict=True):
            group.reply = reply

    async def _recover(self, link: Link, groups: list[_Group]) -> list[_Group]:
        """Send once more what the server certainly did not do, and could: a script it forgot, neighbours of a key.

        Returns the groups, some of them split into single calls.
        """
        unknown = [group for group in groups if _code(group) == "NOSCRIPT"]
        if unknown:
            await self._exchange(link, unknown, in_full=True)
        if any(_code(group) == "READONLY" for group in groups) and self._failover:
            if self._link is link:
                self._link = None
            link.retire()
        if not any(_code(group) == "NOPERM" and len(group.calls) > 1 for group in groups):
            return groups
        # Access is checked for all keys of a command before any of them is touched.
        refused = [group.split() if _code(group) == "NOPERM" else [group] for group in groups]
        again = [part for parts in refused if len(parts) > 1 for part in parts]
        await self._exchange(link, again, in_full=True)
        return [part for parts in refused for part in parts]

    def _answer(self, group: _Group, results: list[Any]) -> None:
        reply, calls, script = group.reply, group.calls, group.script
        if isinstance(reply, Exception):
            results += [self._error(reply, call) for call in calls]
        elif script is None or script.stride is None:
            results.append(reply)
        elif len(reply) == len(calls):
            results += [self._error(item, calls[0]) if type(item) is ReplyError else item for item in reply]
        else:
            start = 0
            for call in calls:
                count = len(call.keys)
                part = reply[start] if count == 1 else reply[start : start + count]
                results.append(self._error(part, call) if type(part) is ReplyError else part)
                start += count

    def _error(self, error: Exception, call: Call) -> Exception:
        if isinstance(error, LinkLostError):
            return lost(self._place, writes=call.writes, timed_out=error.timed_out)
        assert isinstance(error, ReplyError)
        if self._redirections and error.code in _REDIRECTIONS:
            return error
        return translate(error, self._place, failover=self._failover)


def _code(group: _Group) -> str:
    return group.reply.code if type(group.reply) is ReplyError else ""
