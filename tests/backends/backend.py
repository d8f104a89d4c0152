"""What every backend is to a test: where it came from, where it listens, and the handles to break it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .process import PortTaken, Process

Nature = Literal["real", "emulator", "mock", "stub"]

_ATTEMPTS = 5


@dataclass(frozen=True)
class Facts:
    """What a report says of a backend."""

    nature: Nature
    version: str
    origin: str
    """`own process`, `docker compose`, or the environment variable that named it."""


class NotOurs(Exception):  # noqa: N818 - a state with a reason
    """The backend was not started by this run, so the run must not stop or freeze it."""


class Backend:
    """One or several servers that make one backend; without any, somebody else's."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.processes: Sequence[Process] = ()

    @property
    def properties(self) -> dict[str, str]:
        """The connection fields of a component file, all as text."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The same in one line, as an environment variable names an endpoint. Holds the password."""
        raise NotImplementedError

    @property
    def ours(self) -> bool:
        """Whether this run started it, so that it can be stopped and frozen."""
        return bool(self.processes)

    def launch(self) -> None:
        """Start it for the first time; return when it serves. A port that something else took is replaced."""
        for attempts_left in reversed(range(_ATTEMPTS)):
            self.configure()
            try:
                self.start()
                break
            except PortTaken:
                self.kill()
                if not attempts_left:
                    raise
            except BaseException:
                self.kill()
                raise

    def configure(self) -> None:
        """Choose ports, write the settings, and fill `processes`; nothing runs yet."""

    def wait_ready(self) -> None:
        """Return when every process serves, and all of them together do."""
        for process in self.processes:
            process.wait_ready()

    def start(self) -> None:
        """Start what is stopped, with the ports and data it had; return when it serves."""
        for process in self._owned():
            process.spawn()
        self.wait_ready()

    def stop(self) -> None:
        """End it politely; return when it is gone."""
        for process in self._owned():
            process.terminate()
        if self.processes:
            with concurrent.futures.ThreadPoolExecutor(len(self.processes)) as pool:
                list(pool.map(Process.finish, self.processes))

    def kill(self) -> None:
        """End it at once; return when it is gone."""
        for process in self._owned():
            process.kill()

    def restart(self) -> None:
        """Stop and start it: same ports, and the data it keeps over a restart."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it from running with its connections open: what is sent is taken by the system, and never answered."""
        for process in self._owned():
            process.freeze()

    def thaw(self) -> None:
        """Let it run on, and answer what it was sent."""
        for process in self._owned():
            process.thaw()

    def close(self) -> None:
        """End it if this run started it."""
        if self.ours:
            self.stop()

    def _owned(self) -> Sequence[Process]:
        if not self.ours:
            raise NotOurs(f"the backend comes from {self.facts.origin}; this run must not stop or freeze it")
        return self.processes
