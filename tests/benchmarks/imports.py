"""What `import lapel` and listing the catalogue cost a fresh process, over `import asyncio`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from statistics import median

from tests.benchmarks.rows import PAIRS, Row

PROGRAM = """
from time import thread_time as now
began = now()
import asyncio
alone = now()
import lapel
imported = now()
from lapel.registry import default_registry
entries = default_registry().entries()
listed = now()
lapel.open_components, lapel.open_state, lapel.StateStore
usable = now()
import json
assert any(entry.descriptor for entry in entries)
print(json.dumps([1000 * (later - sooner) for sooner, later in (
    (began, alone), (alone, imported), (imported, listed), (listed, usable))]))
"""


def _measure() -> list[float]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    times: list[float] = json.loads(done.stdout)
    return times


async def run() -> list[Row]:
    """Return milliseconds of processor time, medians over fresh processes; the system has the files in its cache."""
    await asyncio.to_thread(_measure)
    runs = [await asyncio.to_thread(_measure) for _ in range(PAIRS)]
    alone, imported, listed, usable = (median(times) for times in zip(*runs, strict=True))
    both = alone + imported
    return [
        {
            "name": "import lapel, over import asyncio",
            "unit": "ms",
            "ours": both,
            "baseline": alone,
            "ratio": both / alone,
            "overhead": imported,
            "target": "overhead <= 40 ms",
            "ok": imported <= 40,
        },
        {
            "name": "listing the catalogue, over import lapel",
            "unit": "ms",
            "ours": both + listed,
            "baseline": both,
            "ratio": (both + listed) / both,
            "overhead": listed,
            "target": "overhead <= 50 ms",
            "ok": listed <= 50,
        },
        {
            "name": "first use of open_components and StateStore, over the catalogue",
            "unit": "ms",
            "ours": both + listed + usable,
            "baseline": both + listed,
            "ratio": (both + listed + usable) / (both + listed),
            "overhead": usable,
            "target": "none",
            "ok": True,
        },
    ]
