"""Where the servers are: asked of sentinels, or of the nodes of a cluster.

Done with plain commands over our own connections, after Redis' rules for clients, and not by redis-py's sentinel and
cluster clients: those bring retries, connections and a TLS set-up of their own.
"""

from __future__ import annotations

import asyncio
import ssl
from binascii import crc_hqx
from collections.abc import Iterable
from contextvars import Context
from typing import Any

import msgspec

from lapel.errors import LapelError, UnavailableError

from .errors import ReplyError, translate
from .joining import join
from .link import Link, LinkLostError, open_link
from .options import Address, RedisOptions
from .scripts import pack

__all__ = ["SLOTS", "SlotTable", "ask", "find_primary", "slot_of"]

SLOTS = 16384
HESITATION = 0.3
"""Seconds without an answer after which the next node is asked too."""


def slot_of(key: str | bytes) -> int:
    """Return the hash slot of a key: of the part in the first braces, if there is any."""
    text = key.encode() if isinstance(key, str) else key
    start = text.find(b"{")
    if start >= 0:
        end = text.find(b"}", start + 1)
        if end > start + 1:
            text = text[start + 1 : end]
    return crc_hqx(text, 0) % SLOTS


async def ask(link: Link, place: str, timeout: float | None, *command: str | int) -> Any:
    """Return the reply to one reading command; raises what `translate` makes, and `UnavailableError`."""
    try:
        (reply,) = await link.send(pack(command), 1, timeout)
    except LinkLostError:
        raise UnavailableError(f"{place}: gave no answer to {command[0]}") from None
    if isinstance(reply, ReplyError):
        raise translate(reply, place) from None
    return reply


async def find_primary(options: RedisOptions, tls: ssl.SSLContext | None) -> Address:
    """Ask the sentinels, one after the other, for the primary, and the primary whether it is one.

    Raises the last failure, an `UnavailableError` as a rule, when none knows one.
    """
    name = options.sentinel_master or ""
    # One that hangs must not use up the time of all.
    patience = max(0.5, options.dial_timeout / len(options.hosts))
    options = msgspec.structs.replace(options, dial_timeout=min(patience, options.dial_timeout))
    failure: LapelError = UnavailableError(f"{options.place}: no sentinel is named")
    for host, port in options.hosts:
        place = f"Redis sentinel {host}:{port}"
        try:
            link = await open_link((host, port), options, tls, sentinel=True)
            try:
                reply = await ask(link, place, options.dial_timeout, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
            finally:
                link.close()
            if reply is None:
                failure = UnavailableError(f"{place}: knows no primary {name!r}; check sentinelMasterName")
                continue
            found = (reply[0].decode(), int(reply[1]))
            link = await open_link(found, options, tls)
            try:
                role = await ask(link, f"Redis {found[0]}:{found[1]}", options.dial_timeout, "ROLE")
            finally:
                link.close()
            if role[0] == b"master":
                return found
            failure = UnavailableError(f"{place}: names {found[0]}:{found[1]}, which is not the primary (any more)")
        except LapelError as exc:
            failure = exc
    raise failure


class SlotTable:
    """Which node serves which slot; refreshed when a node says that it changed, or does not answer."""

    def __init__(self, options: RedisOptions, tls: ssl.SSLContext | None) -> None:
        self._options = options
        self._tls = tls
        self._slots: list[Address | None] = [None] * SLOTS
        self._known: list[Address] = list(options.hosts)
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def primaries(self) -> list[Address]:
        """The nodes that serve slots, in the order of their first one."""
        return list(dict.fromkeys(address for address in self._slots if address is not None))

    def knows(self, address: Address) -> bool:
        """Tell whether a node is in the cluster as it was last heard of, or named in the settings."""
        return address in self._known

    def address(self, slot: int) -> Address | None:
        """Return the node of a slot, None if none serves it."""
        return self._slots[slot]

    def move(self, slot: int, address: Address) -> None:
        """Note what a redirection said."""
        self._slots[slot] = address
        if address not in self._known:
            self._known.append(address)

    async def refresh(self) -> None:
        """Ask the nodes anew; calls at the same time share the answer. Raises `UnavailableError` when none answers."""
        await join(self.start_refresh())

    def start_refresh(self) -> asyncio.Task[None]:
        """Begin to ask the nodes anew, unless that is under way, and return the task that does it."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(
                self._refresh(), name="lapel redis slots", context=Context()
            )
            self._refreshing.add_done_callback(self._refreshed)
        return self._refreshing

    async def close(self) -> None:
        """End a refresh under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # seen by those who waited, if any is left

    async def _refresh(self) -> None:
        """Ask one node after the other, the next one as soon as one fails or hesitates; the first answer counts."""
        loop = asyncio.get_running_loop()
        waiting = [*self._known]
        asking: set[asyncio.Task[tuple[Any, str]]] = set()
        failure: LapelError = UnavailableError(f"{self._options.place}: no node is known")
        try:
            while waiting or asking:
                if waiting:
                    asking.add(loop.create_task(self._ask(waiting.pop(0)), name="lapel redis slots of a node"))
                done, asking = await asyncio.wait(
                    asking, timeout=HESITATION if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    try:
                        self._take(*task.result())
                        return
                    except LapelError as exc:
                        failure = exc
            raise failure
        finally:
            for task in asking:
                task.cancel()
            if asking:
                await asyncio.wait(asking)

    async def _ask(self, address: Address) -> tuple[Any, str]:
        host, port = address
        link = await open_link(address, self._options, self._tls)
        try:
            place = f"Redis node {host}:{port}"
            return await ask(link, place, self._options.dial_timeout, "CLUSTER", "SLOTS"), host
        finally:
            link.close()

    def _take(self, reply: Iterable[Any], asked: str) -> None:
        slots: list[Address | None] = [None] * SLOTS
        nodes: dict[Address, None] = {}
        for first, last, *served in reply:
            # An empty host is the one that was asked.
            found = [((node[0] or b"").decode() or asked, int(node[1])) for node in served]
            nodes |= dict.fromkeys(found)
            slots[first : last + 1] = [found[0]] * (last + 1 - first)
        self._slots = slots
        self._known = list(nodes | dict.fromkeys(self._options.hosts))
