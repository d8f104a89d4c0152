"""The driver of `docs/writing-a-driver.md`, installed as a distribution of its own, through its real entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).parents[2] / "examples" / "driver"
SOME = "etag or refused"
"""Suite tests enough to show that a way of running the suite works; one way runs them all."""

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Installed:
    """A copy of the package's source, and an environment in which it is installed beside lapel."""

    source: Path
    environment: dict[str, str]

    def run(self, *command: str, code: int = 0) -> str:
        """Run a module in the source folder as `python -m`, expect its exit code, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.source,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install it without network into a folder, and put that on the path."""
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(
        DRIVER, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".*", "build", "dist", "*.egg-info")
    )
    # What the suite writes is thrown away, so it need not reach a disk.
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(folder)
    environment = os.environ | {
        "PYTHONPATH": str(folder / "site"),
        "PYTHONSAFEPATH": "1",  # so that the source folder, in which commands run, is not imported from
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": fast,
    }
    acme = Installed(folder / "source", environment)
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    acme.run("pip", "install", "-q", *offline, "--target", str(folder / "site"), ".")
    return acme


def test_the_catalogue_shows_it_with_its_distribution(acme: Installed) -> None:
    entries = {entry["type"]: entry for entry in json.loads(acme.run("lapel.cli", "drivers", "--json"))}
    found = entries["state.acme.folder"]
    assert found["distribution"] == "acme-lapel"
    assert found["distribution_version"] == "1.0.0"
    assert found["capabilities"] == ["ETAG"]
    assert found["loadable"]
    assert entries["state.sqlite"]["distribution"] == "lapel"
    assert "state.acme.folder" in acme.run("lapel.cli", "drivers", "--kind", "state", "--check")


def test_it_is_described_and_its_files_are_validated(acme: Installed) -> None:
    assert "The folder. It is made if it does not exist." in acme.run("lapel.cli", "describe", "state.acme.folder")
    acme.run("lapel.cli", "validate", "tests/folder.yaml")
    wrong = acme.source / "wrong.yaml"
    wrong.write_text((acme.source / "tests" / "folder.yaml").read_text().replace("- name: path", "- name: pth"))
    shown = acme.run("lapel.cli", "validate", "wrong.yaml", code=1)
    assert "wrong.yaml:9" in shown
    assert "did you mean 'path'" in shown


def test_the_suite_passes_and_reports_as_text_json_and_html(acme: Installed) -> None:
    shown = acme.run("lapel.cli", "conformance", "tests/folder.yaml", "--json", "report.json", "--html", "report.html")
    for words in ("declared             ETAG", "proved ", "refused as it should ", "failed               0 tests"):
        assert words in shown
    assert shown.endswith("passed\n")
    report: dict[str, Any] = json.loads((acme.source / "report.json").read_text())
    (component,) = report["components"]
    assert report["ok"]
    assert (component["type"], component["declared"]) == ("state.acme.folder", ["ETAG"])
    assert component["declared_not_proved"] == []
    assert component["counts"]["failed"] == 0
    assert component["counts"]["proved"] > 100
    assert component["counts"]["refused as it should"] > 0
    page = (acme.source / "report.html").read_text()
    assert "state.acme.folder" in page
    assert "<script src" not in page
    assert "<link" not in page


def test_a_driver_that_breaks_a_promise_is_found_out(acme: Installed) -> None:
    """So the runs above could have failed."""
    broken = acme.source / "broken"
    shutil.copytree(acme.source / "acme_lapel", broken / "acme_lapel")
    file = broken / "acme_lapel" / "driver.py"
    honest = "content[:ETAG_BYTES].decode() != precondition.etag"
    assert honest in file.read_text()
    file.write_text(file.read_text().replace(honest, "not precondition.etag"))
    path = os.pathsep.join([str(broken), acme.environment["PYTHONPATH"]])
    liar = Installed(acme.source, acme.environment | {"PYTHONPATH": path})
    shown = liar.run("lapel.cli", "conformance", "tests/folder.yaml", "-k", "etag", code=1)
    assert "FAILED" in shown


def test_its_own_tests_pass(acme: Installed) -> None:
    shown = acme.run("pytest", "-q", "-p", "no:cacheprovider", "tests", "-k", SOME)
    assert " passed" in shown
    assert "failed               0 tests" in shown


def test_pytest_runs_the_suite_on_its_component_file(acme: Installed) -> None:
    shown = acme.run("pytest", "-q", "-p", "no:cacheprovider", "--lapel-component", "tests/folder.yaml", "-k", SOME)
    assert " passed" in shown
    assert "failed               0 tests" in shown
