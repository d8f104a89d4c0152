"""`lapel conformance`: the suite of `lapel.testing`, run against the components of a file."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingExtraError

__all__ = ["run_suite"]

_PACKAGES = {"_pytest", "hypothesis", "pytest", "pytest_asyncio"}
COMMAND = 'pip install "lapel[testing]"'


def run_suite(path: Path, *, json: str | None, html: Path | None, select: str | None, progress: bool) -> int:
    """Run the suite, print and write the reports, and return the exit code: 1 unless everything passed.

    `json` is a file, or `-` to print JSON and nothing else. Raises `MissingExtraError` when the packages that tests
    need are not installed.
    """
    printed = json == "-"
    try:
        from ..testing.run import run_conformance

        report = run_conformance(
            path,
            json_report=None if printed else json,
            html_report=html,
            select=select,
            progress=progress and not printed,
        )
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _PACKAGES:
            raise
        text = f"the conformance suite needs the package {exc.name!r}, which is not installed; type: {COMMAND}"
        raise MissingExtraError(text, command=COMMAND) from exc
    if printed:
        print(report.to_json(), end="")
    else:
        for line in report.lines():
            print(line)
        print("passed" if report.ok else "FAILED")
    return int(not report.ok)
