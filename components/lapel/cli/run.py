"""`lapel run`: the host as a program."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import AssemblyError, InvalidArgumentError, LapelError, MissingExtraError

__all__ = ["run_host"]

COMMAND = 'pip install "lapel[host]"'


def run_host(paths: Sequence[Path], *, log_level: str, **fields: Any) -> int:
    """Run a host until it is told to end, and return the exit code. `fields` are those of `HostOptions`.

    Raises `InvalidArgumentError` for a wrong option and `MissingExtraError` when the packages of the host are missing.
    """
    from ..host import HostApp, HostOptions, create_app

    try:
        from ..host.server import new_event_loop, serve
    except ImportError as exc:
        raise MissingExtraError(f"the host needs packages that are not there: {COMMAND}", command=COMMAND) from exc
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    options = HostOptions(**fields)

    def listening(address: str, port: int) -> None:
        # What there is now stays for good. Without this each full collection looks at all of it again, and every
        # request waits for that: tens of milliseconds, now and then.
        gc.collect()
        gc.freeze()
        logging.getLogger("lapel.host").info("%s is ready on http://%s:%d", options.app_id, address, port)

    async def main() -> None:
        app: HostApp = create_app([str(path) for path in paths], options=options)
        await serve(app, listening=listening)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
    except InvalidArgumentError:
        raise
    except (LapelError, AssemblyError) as exc:
        text = exc.message if isinstance(exc, AssemblyError) else str(exc)
        print(f"error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
