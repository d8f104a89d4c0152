"""Build Vault from its published Go module, once, into the cache of backends.

Its go.mod replaces its own libraries by folders that are not published, so it cannot be installed by name: the module
in `vault_server` requires it together with the releases of those libraries that it names. The module proxy of Go has
all of them. Vault is under the Business Source License; it is built for tests on this machine and goes nowhere.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from . import golang, provision
from .provision import Unavailable

__all__ = ["build", "need_built", "version"]

_MODULE = Path(__file__).parent / "vault_server"
_FILES = ("go.mod", "go.sum", "main.go")
_NEEDS = (1, 25)
_PATIENCE = 3600.0
"""Seconds that it may take: about 2000 packages, a quarter of an hour on two cores, of which nothing is there yet."""


def build() -> None:
    """Build it unless that was done before; `Unavailable` with the reason if that is impossible here."""

    def make(made: Path) -> None:
        go = golang.toolchain(_NEEDS)
        with tempfile.TemporaryDirectory() as work:
            for name in _FILES:
                shutil.copy(_MODULE / name, work)
            options = ("-mod=readonly", "-trimpath", "-tags=minimal", "-ldflags=-s -w", "-o", made / "vault", ".")
            # Nothing of the environment may make another program of it.
            environment = {"GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
            provision.run(
                *(go, "-C", work, "build", *options), what="go build", environment=environment, patience=_PATIENCE
            )

    provision.make_once(_place(), make)


def need_built() -> Path:
    """Return the program; `Unavailable` if it was not built yet."""
    program = _place() / "vault"
    if not program.exists():
        raise Unavailable("Vault is not in the cache; `make backends` builds it, in about a quarter of an hour")
    return program


def version() -> str:
    """Return what would be started; `Unavailable` if it was not built."""
    need_built()
    found = re.search(r"github\.com/hashicorp/vault v(\S+)", (_MODULE / "go.mod").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def _place() -> Path:
    return provision.stamped("vault", *((_MODULE / name).read_text(encoding="utf-8") for name in _FILES))
