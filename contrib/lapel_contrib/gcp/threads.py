"""A bounded number of threads for blocking clients, and what a client of any service needs besides."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from asyncio import CancelledError, get_running_loop
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import requests
import requests.utils
from typing_extensions import override
from urllib3.connection import HTTPConnection

from lapel.coalesce import mark_not_sent
from lapel.errors import LapelError, UnavailableError

from .errors import EXPECTED, translated
from .transport import Step, Turns, WatchedAdapter, note_answer

__all__ = ["TIMEOUT", "Threads"]

TIMEOUT: Final = (5.0, 60.0)
"""Seconds to connect, and between two pieces of an answer. Callers' deadlines are shorter and break a call off."""
RUNNING: Final = 2
"""How many of the threads run Python code at a time; all others wait for the network."""
CLOSE_SECONDS: Final = 2.0
TIDY_SECONDS: Final = 1.0

_Args = TypeVarTuple("_Args")
_T = TypeVar("_T")


class Threads:
    """Runs the blocking calls of one client. Belongs to one event loop; calls may overlap."""

    def __init__(self, name: str, size: int) -> None:
        self._size = size
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._turns = Turns(RUNNING)
        self._sessions: list[requests.Session] = []
        self._steps: set[Step] = set()
        self._tidying: set[asyncio.Task[None]] = set()
        self._closed = False

    def adopt(self, session: requests.Session, endpoint: str | None = None) -> None:
        """Make a session one whose requests can be broken off and are not repeated; `close` closes it.

        The environment is read now: `requests` would read it for each request, and put `.netrc` before a token. A
        session without an endpoint, as for tokens, which come from several hosts, asks for the proxy of each request.
        """
        self._sessions.append(session)
        adapter = _ProxiedAdapter(self._size) if endpoint is None else WatchedAdapter(self._size)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        session.hooks["response"].append(note_answer)
        session.trust_env = False
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        session.proxies = {} if endpoint is None else _proxies_for(endpoint)

    async def run(
        self,
        work: Callable[[*_Args], _T],
        *args: *_Args,
        place: str,
        writes: bool,
        connection: HTTPConnection | None = None,
    ) -> _T:
        """Do blocking work on a thread and return its result; a caller that is cancelled breaks it off.

        The cancellation is marked as not sent where that is certain. `place` and `writes` are for `translated`, and
        `connection` is for a `Step`.
        """
        if self._closed:
            raise UnavailableError(f"{place}: the component is closed; nothing was done")
        step = Step(self._turns, connection)
        self._steps.add(step)
        try:
            return await get_running_loop().run_in_executor(self._executor, step.run, work, args)
        except CancelledError as exc:
            if step.break_off():
                mark_not_sent(exc)
            raise
        except LapelError:
            raise
        except EXPECTED as exc:
            raise translated(exc, place, writes=writes, sent=step.sent) from None
        finally:
            self._steps.discard(step)

    def tidy(self, work: Callable[[], object]) -> None:
        """Do blocking work whose result nobody waits for, if that is possible within a moment; `close` ends it."""
        task = get_running_loop().create_task(self._tidy(work), name="lapel gcp tidy")
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _tidy(self, work: Callable[[], object]) -> None:
        with suppress(LapelError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.run(work, place="tidying", writes=True)

    async def close(self) -> None:
        """Break off what is under way and let go of all connections, in a few seconds at most. Idempotent."""
        if self._tidying:
            await asyncio.wait(self._tidying, timeout=TIDY_SECONDS)
        self._closed = True
        for task in self._tidying:
            task.cancel()
        for step in self._steps:
            step.break_off()
        ending = get_running_loop().run_in_executor(None, self._end)
        # A thread that looks up a name or connects cannot be broken off; it ends by itself.
        await asyncio.wait([ending], timeout=CLOSE_SECONDS)

    def _end(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        for session in self._sessions:
            session.close()


class _ProxiedAdapter(WatchedAdapter):
    """Goes through the proxy that the environment names for the host of a request, which may be none."""

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        return super().send(request, *args, **{**kwargs, "proxies": _proxies_for(request.url or "")})


def _proxies_for(url: str) -> dict[str, str]:
    return {} if _is_loopback(url) else requests.utils.get_environ_proxies(url)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
