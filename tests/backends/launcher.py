"""Chooses where each backend comes from, starts those that are asked for in parallel, and ends what it started.

An endpoint that an environment variable names wins; then what docker compose runs of this project; then processes of
this run's own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import importlib
import os
import re
import shutil
import socket
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from .backend import Backend, Facts, Nature
from .guard import guard
from .process import Died
from .provision import Unavailable

_MODULES = (
    "tests.backends.aws_technologies",
    "tests.backends.chromium",
    "tests.backends.gcp_secrets",
    "tests.backends.gcs",
    "tests.backends.kafka_technologies",
    "tests.backends.rabbitmq_technologies",
    "tests.backends.redis_technologies",
    "tests.backends.vault",
)
"""Modules with a `TECHNOLOGIES` each: a new technology is one more line here."""
One = TypeVar("One", bound=Backend)


class Attach(Protocol):
    """Connects to an endpoint that somebody else runs."""

    def __call__(self, url: str, *, origin: str) -> Backend: ...


@dataclass(frozen=True, kw_only=True)
class Technology:
    """One backend that tests can ask for by name, and the ways to get it."""

    name: str
    nature: Nature
    install: Callable[[], None]
    """Gets what its own processes need; `Unavailable` with the reason if that is impossible here."""
    version: Callable[[], str]
    """What its own processes would be; `Unavailable` with the reason if they cannot be started."""
    make: Callable[[Path], Backend]
    """Describes its own processes, which keep their files in this folder."""
    attach: Attach
    in_compose: Callable[[], Backend | None] | None = None

    @property
    def variable(self) -> str:
        """The environment variable that names an endpoint."""
        return f"LAPEL_TEST_{self.name.upper().replace('-', '_')}"

    @property
    def fixture(self) -> str:
        """The fixture that hands out the one that a run shares: `redis_server`, or `redis_tls` for a variant."""
        return self.name.replace("-", "_") if "-" in self.name else f"{self.name}_server"

    def found(self) -> Backend | None:
        """Return what the environment or docker compose offers; None if that is nothing."""
        if url := os.environ.get(self.variable):
            return self.attach(url, origin=self.variable)
        return None if self.in_compose is None else self.in_compose()

    def facts(self) -> Facts:
        """Return what a run would use, without starting it; `Unavailable` with the reason if that is nothing."""
        backend = self.found()
        return Facts(self.nature, self.version(), "own process") if backend is None else backend.facts


@functools.cache
def technologies() -> Mapping[str, Technology]:
    """Return all that tests can ask for, by name."""
    found = [one for module in _MODULES for one in importlib.import_module(module).TECHNOLOGIES]
    return {one.name: one for one in found}


def is_required(name: str) -> bool:
    """Say whether a missing backend is a failure: `CI=true`, or `REQUIRE` lists it or says `all`."""
    listed = {part.strip() for part in os.environ.get("REQUIRE", "").split(",")}
    return os.environ.get("CI", "").lower() in ("1", "true") or bool({name, "all"} & listed)


def named_addresses() -> frozenset[str]:
    """Return the hosts that the environment names for backends, and their addresses."""
    urls = (value for name, value in os.environ.items() if name.startswith("LAPEL_TEST_") and "://" in value)
    places = ",".join(re.split(r"[/?]", url.partition("://")[2])[0].rpartition("@")[2] for url in urls)
    hosts = {urllib.parse.urlsplit(f"//{place}").hostname or "" for place in places.split(",")} - {""}
    addresses = set(hosts)
    for host in hosts:
        with contextlib.suppress(OSError):
            addresses |= {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    return frozenset(addresses)


class Launcher:
    """The backends of one run. Made by one thread; asked by any."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(8, thread_name_prefix="backend")
        self._futures: dict[str, concurrent.futures.Future[Backend]] = {}
        self._own: dict[Backend, Path] = {}
        self._folder: Path | None = None
        self._made = 0

    def begin(self, names: Iterable[str]) -> None:
        """Start these in parallel in the background."""
        for name in names:
            if name not in self._futures:
                self._futures[name] = self._pool.submit(self._bring_up, technologies()[name], self._new_folder(name))

    def get(self, name: str) -> Backend:
        """Return the backend that the whole run shares, ready; `Unavailable` with the reason if it cannot be had."""
        self.begin([name])
        return self._futures[name].result()

    def add(self, make: Callable[[Path], One]) -> One:
        """Start a backend for one test, always of the run's own; `drop` ends it."""
        return self._launch(make, self._new_folder("own"))

    def drop(self, backend: Backend) -> None:
        """End one that `add` started, and remove its files."""
        folder = self._own.pop(backend)
        backend.kill()
        shutil.rmtree(folder, ignore_errors=True)

    def ready(self) -> dict[str, Facts | BaseException]:
        """Return what was asked for so far, by name, and what came of it."""
        done = {name: future for name, future in self._futures.items() if future.done()}
        return {name: future.exception() or future.result().facts for name, future in done.items()}

    def close(self) -> None:
        """End everything that this run started."""
        self._pool.shutdown(cancel_futures=True)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(Backend.close, self._own))
        self._own.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _bring_up(self, technology: Technology, folder: Path) -> Backend:
        return technology.found() or self._launch(technology.make, folder)

    def _launch(self, make: Callable[[Path], One], folder: Path) -> One:
        backend = make(folder)
        try:
            backend.launch()
        except Died as error:
            raise Unavailable(f"it did not start: {error}") from error
        self._own[backend] = folder
        return backend

    def _new_folder(self, name: str) -> Path:
        if self._folder is None:
            self._folder = guard().folder()
        self._made += 1
        folder = self._folder / f"{name}-{self._made}"
        folder.mkdir()
        return folder
