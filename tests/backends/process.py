"""One server process in a group of its own: started, asked until it answers, frozen, killed, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .guard import guard

POLL = 0.005
"""Seconds between two questions to a server that is not ready yet."""

_ASK_AGAIN = 0.5


class NotReady(Exception):  # noqa: N818 - a state to wait out, seldom an error
    """The server does not answer as it should, yet."""


class Died(Exception):  # noqa: N818 - what happened, named
    """The process ended by itself."""


class PortTaken(Died):
    """It ended because something else has its port."""


class Process:
    """A server owned by this run. Only process groups that it started are ever signalled."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        check: Callable[[int], None],
        environment: Mapping[str, str] | None = None,
        patience: float = 30.0,
        grace: float = 10.0,
    ) -> None:
        """Describe the process; `check` gets its pid and raises `NotReady` or `OSError` until it serves."""
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._command = [str(part) for part in command]
        self._environment = environment
        self._check = check
        self._patience = patience
        self._grace = grace
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now, frozen or not; None if there is none."""
        if self._running is None or self._running.poll() is not None:
            return None
        return self._running.pid

    def start(self) -> None:
        """Start it and return when it serves."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start it without waiting."""
        if self.pid is not None:
            return
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=None if self._environment is None else {**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        guard().watch(self._running.pid)

    def wait_ready(self) -> None:
        """Return when it serves; raise `Died` with the end of its log if it never will."""
        deadline = time.monotonic() + self._patience
        while True:
            if (pid := self.pid) is None:
                raise self._post_mortem()
            try:
                return self._check(pid)
            except (NotReady, OSError) as error:
                if time.monotonic() > deadline:
                    raise Died(
                        f"{self.name} was not ready after {self._patience:g} s: {error}\n{self.tail()}"
                    ) from error
            time.sleep(POLL)

    def terminate(self) -> None:
        """Ask it to end, without waiting; a frozen one is thawed to hear it."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it politely, by force after the grace; return when it is gone."""
        self.terminate()
        self.finish()

    def finish(self) -> None:
        """Wait for one that was asked to end, and end it by force after the grace."""
        # Redis refuses to end while it writes its first append-only file, so it is asked again.
        deadline = time.monotonic() + self._grace
        while self._running is not None and self.pid is not None and time.monotonic() < deadline:
            try:
                self._running.wait(_ASK_AGAIN)
            except subprocess.TimeoutExpired:
                self.terminate()
        self.kill()

    def kill(self) -> None:
        """End it and what it started at once; return when it is gone."""
        self._signal(signal.SIGKILL)
        if self._running is not None:
            self._running.wait()
            guard().release(self._running.pid)
            self._running = None

    def restart(self) -> None:
        """End it and start it again with the same ports and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it from running, its connections open; return when it does not run any more."""
        self._signal(signal.SIGSTOP)
        while (pid := self.pid) is not None and not os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT):
            time.sleep(POLL)

    def thaw(self) -> None:
        """Let it run on."""
        self._signal(signal.SIGCONT)

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _post_mortem(self) -> Died:
        code = None if self._running is None else self._running.returncode
        self.kill()
        kind = PortTaken if "already in use" in self.tail().lower() else Died
        return kind(f"{self.name} ended with {code}\n{self.tail()}")
