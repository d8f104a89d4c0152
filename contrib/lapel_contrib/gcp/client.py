"""The client of Google Cloud Storage, and the threads that its blocking calls run on."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from asyncio import CancelledError, get_running_loop
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import requests
import requests.utils
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from urllib3.connection import HTTPConnection

from lapel.coalesce import mark_not_sent
from lapel.driver import SharedClients
from lapel.errors import LapelError, UnavailableError

from .credentials import Identity, load_identity
from .errors import EXPECTED, translated
from .settings import Access
from .transport import Step, WatchedAdapter, note_answer

__all__ = ["THREADS", "TIMEOUT", "StorageClient", "StorageLease"]

THREADS: Final = 32
"""Most blocking calls at once; further ones wait their turn. More threads do not make more calls a second: they share
one interpreter, and the event loop with it."""
TIMEOUT: Final = (5.0, 60.0)
"""Seconds to connect, and between two pieces of an answer. Callers' deadlines are shorter and break a call off."""
CLOSE_SECONDS: Final = 2.0
TIDY_SECONDS: Final = 1.0

_PUBLIC: Final = "https://storage.googleapis.com"
_Args = TypeVarTuple("_Args")
_T = TypeVar("_T")


class StorageClient:
    """google-cloud-storage off the event loop. Belongs to one loop; calls may overlap.

    Nothing is repeated by it, except a request that was answered with 401: it was not done, and goes out once more with
    a new token.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="lapel-gcs")
        self._steps: set[Step] = set()
        self._tidying: set[asyncio.Task[None]] = set()
        self._closed = False
        self.sdk: storage.Client
        self.session: AuthorizedSession
        self.identity: Identity
        self.endpoint = _PUBLIC

    @classmethod
    async def open(cls, access: Access) -> StorageClient:
        """Make the client; nothing is sent but for what finding credentials needs.

        Raises `ConfigurationError` and `UnavailableError`.
        """
        client = cls()
        try:
            await client.run(client._make, access, place="credentials", writes=False)
        except BaseException:
            await client.close()
            raise
        return client

    def _make(self, access: Access) -> None:
        self.endpoint = access.endpoint or _PUBLIC
        self.identity = load_identity(access, storage.Client.SCOPE)
        self.session = _session(self.identity, self.endpoint)
        options = None if access.endpoint is None else {"api_endpoint": access.endpoint}
        self.sdk = storage.Client(
            project=access.project, credentials=self.identity.requests, _http=self.session, client_options=options
        )

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
        self._threads.shutdown(cancel_futures=True)
        session = getattr(self, "session", None)
        if session is not None:
            session.close()

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
        step = Step(connection)
        self._steps.add(step)
        try:
            return await get_running_loop().run_in_executor(self._threads, step.run, work, args)
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
        task = get_running_loop().create_task(self._tidy(work), name="lapel gcs tidy")
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _tidy(self, work: Callable[[], object]) -> None:
        with suppress(LapelError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.run(work, place="tidying", writes=True)


class StorageLease:
    """A component's share in a client. Components of one assembly with equal access have the same.

    `acquire` once, then `release`; not to be used again.
    """

    def __init__(self, access: Access, shared: SharedClients) -> None:
        self._access = access
        self._shared = shared
        self._key: Hashable | None = None

    async def acquire(self) -> StorageClient:
        """Make the client, or join those who have. Raises as `StorageClient.open` does."""
        key = ("gcp.storage", self._access)
        client = await self._shared.acquire(key, lambda: StorageClient.open(self._access), StorageClient.close)
        self._key = key
        return client

    async def release(self) -> None:
        """Give the client back; the last one closes it. Idempotent, and without effect when nothing was acquired."""
        key, self._key = self._key, None
        if key is not None:
            await self._shared.release(key)


def _session(identity: Identity, endpoint: str) -> AuthorizedSession:
    tokens = requests.Session()
    _mount(tokens, 2)
    session = AuthorizedSession(identity.requests, auth_request=Request(tokens))
    _mount(session, THREADS)
    session.hooks["response"].append(note_answer)
    # The environment is read once: `requests` would do it for each request, and put `.netrc` in place of the token.
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    if not _is_loopback(endpoint):
        session.proxies = requests.utils.get_environ_proxies(endpoint)
    return session


def _mount(session: requests.Session, size: int) -> None:
    adapter = WatchedAdapter(size)
    session.mount("https://", adapter)
    session.mount("http://", adapter)


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
