"""The plugin is harmless where it is not used, and runs component files where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMPONENT = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.in-memory, version: v1}
"""


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_it_costs_a_stranger_no_suite_no_sdk_and_no_fixture() -> None:
    program = (
        "import sys, lapel.testing.plugin as plugin\n"
        "heavy = [n for n in sys.modules if n.startswith(('lapel.testing.', 'lapel_contrib', 'pytest_asyncio'))]\n"
        "assert heavy == ['lapel.testing.plugin'], heavy\n"
        "assert not [n for n in vars(plugin) if 'fixture' in n]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_component_file_is_all_that_runs_when_nothing_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(COMPONENT)
    (tmp_path / "test_other.py").write_text("def test_other(): raise RuntimeError\n")
    done = _pytest(
        tmp_path,
        *("--lapel-component", "store.yaml", "--lapel-report-json", "out/report.json"),
        *("--lapel-report-html", "out/report.html", "-k", "etag or prefix", "-q"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "statestore (state.in-memory v1)" in done.stdout
    assert "refused as it should" in done.stdout
    assert json.loads((tmp_path / "out/report.json").read_text())["ok"]
    assert (tmp_path / "out/report.html").read_text().startswith("<!doctype html>")


def test_a_component_file_runs_beside_the_tests_named(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(COMPONENT)
    (tmp_path / "test_other.py").write_text("def test_bulk_other(): pass\n")
    done = _pytest(tmp_path, "test_other.py", "--lapel-component", "store.yaml", "-k", "bulk_delete or other", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_other.py::test_bulk_other PASSED" in done.stdout
    assert "store.yaml::TestStatestore::test_bulk_delete[front] PASSED" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no such file"), ("a: [", "store.yaml:1"), ("kind: Other\n", "has no component")]
)
def test_a_wrong_file_is_a_usage_error(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "store.yaml").write_text(text)
    done = _pytest(tmp_path, "--lapel-component", "store.yaml")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
