"""Ends what a run started when the run itself is gone, however it went: crash, `kill -9`, closed terminal.

Run as a script it is that watcher: it reads `+group`, `-group` and `folder` lines until its input closes, which the
system does when the run dies. Imported, it is the run's end of the pipe.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


class Guard:
    """The watcher of this run: a process in a session of its own, so that Ctrl-C does not reach it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        atexit.register(self.close)

    def watch(self, group: int) -> None:
        """Have the process group killed if the run dies."""
        self._tell(f"+{group}")

    def release(self, group: int) -> None:
        """Forget a process group that has ended."""
        self._tell(f"-{group}")

    def folder(self) -> Path:
        """Return a new folder that goes with the run. Others may enter it, as a server under a user of its own must."""
        path = Path(tempfile.mkdtemp(prefix="lapel-backends-"))
        path.chmod(0o755)
        self._tell(str(path))
        return path

    def close(self) -> None:
        """Let the watcher do its work now, and wait for it."""
        assert self._watcher.stdin is not None
        with self._lock, contextlib.suppress(OSError):
            self._watcher.stdin.close()
        self._watcher.wait()

    def _tell(self, line: str) -> None:
        assert self._watcher.stdin is not None
        with self._lock:
            self._watcher.stdin.write(f"{line}\n")
            self._watcher.stdin.flush()


@functools.cache
def guard() -> Guard:
    """Return the guard of this process."""
    return Guard()


def _watch() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    folders: set[str] = set()
    for line in sys.stdin:
        text = line.strip()
        if text.startswith("+"):
            groups.add(int(text[1:]))
        elif text.startswith("-"):
            groups.discard(int(text[1:]))
        else:
            folders.add(text)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _watch()
