"""`python -m tests.backends`: say what there is, get what is missing, run a command against it, or keep it up."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from . import provision
from .backend import Backend
from .guard import guard
from .launcher import Launcher, Technology, is_required, technologies
from .provision import Unavailable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands, and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.backends", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    only = argparse.ArgumentParser(add_help=False)
    only.add_argument("--only", metavar="NAMES", help=f"a comma-separated choice of {', '.join(technologies())}")
    commands.add_parser("status", parents=[only], help="what a run would use, and why something is missing")
    commands.add_parser("install", parents=[only], help=f"get what is missing, into the system and {provision.cache()}")
    run = commands.add_parser(
        "run", parents=[only], help="start the backends, run a command with their addresses, end them"
    )
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="-- CMD …")
    commands.add_parser("up", parents=[only], help="start the backends, print their addresses, keep them until Ctrl-C")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else list(technologies())
    if unknown := [name for name in names if name not in technologies()]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(technologies())}")
    chosen = [technologies()[name] for name in names]
    if given.command == "status":
        return _status(chosen)
    if given.command == "install":
        return _install(chosen)
    if given.command == "up":
        return _with_backends(chosen, _keep)
    program = given.program[1:] if given.program[:1] == ["--"] else given.program
    if not program:
        parser.error("run needs a command: python -m tests.backends run -- pytest")
    return _with_backends(chosen, lambda addresses: _run(program, addresses))


def _status(chosen: Sequence[Technology]) -> int:
    print(f"{'backend':<16}{'what':<10}{'version':<24}from")
    failed = False
    for technology in chosen:
        try:
            facts = technology.facts()
        except Unavailable as error:
            failed = failed or is_required(technology.name)
            print(f"{technology.name:<16}{'missing':<10}{'':<24}{error}")
        else:
            print(f"{technology.name:<16}{facts.nature:<10}{facts.version:<24}{facts.origin}")
    print(f"\n{technologies()['redis'].variable}=URL and its like name an endpoint. Cache: {provision.cache()}")
    return int(failed)


def _install(chosen: Sequence[Technology]) -> int:
    failed = False
    for technology in chosen:
        begun = time.monotonic()
        try:
            if (backend := technology.found()) is None:
                technology.install()
            origin = "own process" if backend is None else backend.facts.origin
            print(
                f"{technology.name}: {technology.facts().version}, {origin} ({time.monotonic() - begun:.1f} s)",
                flush=True,
            )
        except Unavailable as error:
            failed = failed or is_required(technology.name)
            print(f"{technology.name}: missing: {error}", file=sys.stderr, flush=True)
    return int(failed)


def _with_backends(chosen: Sequence[Technology], act: Callable[[Mapping[str, Backend]], int]) -> int:
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # A shell has it ignored in what it runs in the background.
    launcher = Launcher()
    try:
        launcher.begin(technology.name for technology in chosen)
        backends: dict[str, Backend] = {}
        for technology in chosen:
            try:
                backends[technology.name] = launcher.get(technology.name)
            except Unavailable as error:
                print(f"{technology.name}: missing: {error}", file=sys.stderr)
                if is_required(technology.name):
                    return 1
        return act(backends)
    except KeyboardInterrupt:
        return 130
    finally:
        launcher.close()


def _keep(backends: Mapping[str, Backend]) -> int:
    for name, backend in backends.items():
        print(f"export {technologies()[name].variable}='{backend.url}'", flush=True)
    print("# Ctrl-C ends them", flush=True)
    signal.pause()
    return 0


def _run(program: Sequence[str], backends: Mapping[str, Backend]) -> int:
    """Run the program with `LAPEL_TEST_…` set, and `BACKENDS_FILE` naming a JSON file with everything known."""
    known = {
        name: {
            "url": backend.url,
            "properties": backend.properties,
            "nature": backend.facts.nature,
            "version": backend.facts.version,
            "origin": backend.facts.origin,
        }
        for name, backend in backends.items()
    }
    file = guard().folder() / "backends.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(known, indent=2))
    addresses = {technologies()[name].variable: backend.url for name, backend in backends.items()}
    with subprocess.Popen(program, env={**os.environ, **addresses, "BACKENDS_FILE": str(file)}) as running:
        try:
            return _waited(running)
        except SystemExit:
            running.terminate()
            raise


def _waited(running: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return running.wait()
        except KeyboardInterrupt:  # It got the same Ctrl-C, and decides what to do.
            continue


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
