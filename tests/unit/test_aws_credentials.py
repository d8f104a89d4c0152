"""Credentials are renewed once for all who want them, and a renewal that fails costs nothing while others are valid."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import cast

import pytest
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError

from lapel_contrib.aws import credentials
from lapel_contrib.aws.credentials import AGAIN_SECONDS, Keys, RenewedCredentials, from_chain


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(credentials, "time", made)
    return made


class Issuer:
    """Issues keys for an hour, numbered, unless `error` says otherwise; waits for `go` first."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    async def __call__(self, expired: bool, threads: Executor) -> Keys:
        self.count += 1
        await asyncio.get_running_loop().run_in_executor(threads, self.go.wait, 20)
        if self.error is not None:
            raise self.error
        return Keys(ReadOnlyCredentials(f"ASIA{self.count}", "s", "t", None), 3600.0)


async def ended(made: RenewedCredentials) -> None:
    """Wait for a renewal that nobody waits for."""
    async with asyncio.timeout(20):
        while made._renewing is not None:
            await asyncio.sleep(0.001)


async def key(made: RenewedCredentials) -> str:
    return str((await made.get_frozen_credentials()).access_key)


async def test_keys_that_are_valid_serve_while_they_cannot_be_renewed(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer()
    made = RenewedCredentials("role", issuer)
    assert await key(made) == "ASIA1"
    issuer.error = OSError("no route to the very secret host")
    clock.now += 3000
    assert await key(made) == "ASIA1"
    await ended(made)
    assert "could not be renewed and go on for 600 s" in caplog.text
    assert "very secret" not in caplog.text
    assert await key(made) == "ASIA1"
    assert issuer.count == 2
    clock.now += AGAIN_SECONDS
    assert await key(made) == "ASIA1"
    await ended(made)
    assert issuer.count == 3
    # So near the end those who ask wait for the outcome, and still get what is valid.
    clock.now = 1000 + 3600 - 1
    assert await key(made) == "ASIA1"
    assert issuer.count == 4
    clock.now += 2 * AGAIN_SECONDS
    with pytest.raises(OSError, match="no route"):
        await key(made)
    issuer.error = None
    assert await key(made) == "ASIA6"
    await made.close()


async def test_nobody_waits_for_a_renewal_ahead_of_time(clock: Clock) -> None:
    issuer = Issuer()
    made = RenewedCredentials("role", issuer)
    assert await key(made) == "ASIA1"
    issuer.go.clear()
    clock.now += 3000
    assert [await key(made) for _ in range(3)] == ["ASIA1"] * 3
    issuer.go.set()
    await ended(made)
    assert await key(made) == "ASIA2"
    assert issuer.count == 2
    await made.close()


async def test_what_a_service_calls_expired_serves_no_longer() -> None:
    issuer = Issuer()
    made = RenewedCredentials("role", issuer)
    assert await key(made) == "ASIA1"
    made.expire()
    issuer.error = OSError("no route")
    with pytest.raises(OSError, match="no route"):
        await key(made)
    issuer.error = None
    assert await key(made) == "ASIA3"
    await made.close()


async def test_all_share_a_renewal_which_no_deadline_of_theirs_ends() -> None:
    issuer = Issuer()
    issuer.go.clear()
    made = RenewedCredentials("role", issuer)
    calls = [asyncio.create_task(key(made)) for _ in range(20)]
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(key(made), 0.01)
    calls[0].cancel()
    await asyncio.wait(calls[:1])
    issuer.go.set()
    assert await asyncio.gather(*calls[1:]) == ["ASIA1"] * 19
    assert issuer.count == 1
    await made.close()


async def test_closing_ends_a_renewal_and_those_who_wait_for_it() -> None:
    issuer = Issuer()
    issuer.go.clear()
    made = RenewedCredentials("role", issuer)
    call = asyncio.create_task(key(made))
    await asyncio.sleep(0)
    await made.close()
    issuer.go.set()
    with pytest.raises(CredentialRetrievalError):
        await call
    with pytest.raises(CredentialRetrievalError):
        await key(made)


class Chain:
    """What the SDK found: it renews under a lock, which belongs to the loop that first had to wait for it."""

    method = "web-identity"

    def __init__(self) -> None:
        self.count = 0
        self.begun, self.go = threading.Event(), threading.Event()
        self._lock = asyncio.Lock()

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        async with self._lock:
            self.count += 1
            self.begun.set()
            while not self.go.is_set():
                await asyncio.sleep(0.001)
            return ReadOnlyCredentials(f"ASIA{self.count}", "s", "t", None)

    def _seconds_remaining(self) -> float:
        return 3600.0


async def test_a_caller_who_gives_up_leaves_no_second_thread_at_the_lock_of_the_sdk() -> None:
    chain = Chain()
    made = from_chain(cast("RefreshableCredentials", chain))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(key(made), 0.01)
    calls = [asyncio.create_task(key(made)) for _ in range(3)]
    assert await asyncio.to_thread(chain.begun.wait, 20)
    chain.go.set()
    assert await asyncio.gather(*calls) == ["ASIA1"] * 3
    await made.close()


async def test_a_renewal_does_not_wait_for_the_threads_of_others() -> None:
    chain, busy = Chain(), threading.Event()
    chain.go.set()
    made = from_chain(cast("RefreshableCredentials", chain))
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    others = loop.run_in_executor(None, busy.wait, 20)
    try:
        async with asyncio.timeout(10):
            assert await key(made) == "ASIA1"
    finally:
        busy.set()
        await others
        await made.close()


async def test_a_renewal_that_takes_too_long_is_no_outcome_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "RENEWAL_SECONDS", 0.01)
    made = from_chain(cast("RefreshableCredentials", Chain()))
    with pytest.raises(CredentialRetrievalError):
        await key(made)
    await made.close()
