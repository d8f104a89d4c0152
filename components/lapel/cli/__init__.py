"""The `lapel` command: what is installed, what its settings are, and whether component files work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ..registry import Registry

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, registry: Registry | None = None) -> NoReturn:
    """Run the command and exit: 0 all is well, 1 problems were found, 2 the command line is wrong.

    `arguments` None means those of the process, `registry` None the installed drivers.
    """
    from .app import run  # rich and typer cost more than the rest of lapel

    raise SystemExit(run(arguments, registry))
