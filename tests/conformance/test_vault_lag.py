"""The event loop is never held up by Vault, from the first import on."""

from __future__ import annotations

import asyncio

from tests.backends.vault import VaultBackend
from tests.benchmarks.vault_lag import LIMIT, measure

ATTEMPTS = 10


async def test_neither_imports_nor_log_in_nor_reads_nor_close_hold_up_the_loop(vault_server: VaultBackend) -> None:
    # A driver that holds it up does so every time; a machine that does something else, only now and then.
    found = []
    for _ in range(ATTEMPTS):
        found.append(await asyncio.to_thread(measure, vault_server.properties))
        if all(min(one[phase] for one in found) < LIMIT for phase in found[0]):
            return
    raise AssertionError(f"milliseconds that the event loop was held up: {found}")
