"""Chromium without a screen, driven through ChromeDriver: to see what a page shows a person."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from . import provision
from .backend import Backend, Facts
from .launcher import Technology
from .ports import free_port
from .process import NotReady, Process
from .provision import Unavailable

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
"""Without them it wants a screen, an unprivileged user, and hosts outside of this machine."""


class ChromiumBackend(Backend):
    """A ChromeDriver that starts a browser for each session."""

    def __init__(self, facts: Facts, endpoint: str = "") -> None:
        super().__init__(facts)
        self.endpoint = endpoint

    @property
    def properties(self) -> dict[str, str]:
        return {"endpoint": self.endpoint}

    @property
    def url(self) -> str:
        return self.endpoint

    def ask(self) -> None:
        """Return when it is ready; `NotReady` or `OSError` until then."""
        with urllib.request.urlopen(f"{self.endpoint}/status", timeout=5) as reply:
            if not json.load(reply)["value"]["ready"]:
                raise NotReady("ChromeDriver is not ready")


class ChromiumDriver(ChromiumBackend):
    """A process of this run's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(Facts("real", version(), "own process"))

    def configure(self) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [provision.need_program("chromedriver", "chromium-driver"), f"--port={port}"]
        # What the browser keeps goes with the folder.
        environment = {"TMPDIR": str(self._folder), "HOME": str(self._folder)}
        self.processes = (
            Process("chromium", command, folder=self._folder, check=lambda _: self.ask(), environment=environment),
        )


def attach(url: str, *, origin: str) -> ChromiumBackend:
    """Return a driver that somebody else runs; `Unavailable` if it does not answer."""
    backend = ChromiumBackend(Facts("real", "unknown version", origin), url.rstrip("/"))
    try:
        backend.ask()
    except (OSError, ValueError, NotReady) as error:
        raise Unavailable(f"{origin} names a ChromeDriver that does not serve: {error}") from error
    return backend


def install() -> None:
    """Install browser and driver."""
    provision.install_packages(PACKAGES)


def version() -> str:
    """Return what would be started; `Unavailable` if it is not there."""
    for program, package in PACKAGES.items():
        provision.need_program(program, package)
    said = provision.run("chromedriver", "--version", what="chromedriver --version")
    return said.split()[1]


TECHNOLOGIES = (
    Technology(name="chromium", nature="real", install=install, version=version, make=ChromiumDriver, attach=attach),
)
