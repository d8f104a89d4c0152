"""Programs and drivers type-check against what is installed, be it the checkout or the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = sorted(Path(__file__).with_name("samples").glob("*.py"))


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def check(interpreter: str | Path, cache: Path, folder: Path) -> None:
    """Type-check the samples away from the checkout, with no configuration."""
    options = ["--strict", "--config-file=", f"--python-executable={interpreter}", f"--cache-dir={cache}"]
    out = run(sys.executable, "-m", "mypy", *options, *SAMPLES, cwd=folder)
    assert out == f"Success: no issues found in {len(SAMPLES)} source files"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def wheel_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has lapel from the wheel and everything else from this one, made without a network."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # A folder named in a .pth file is searched, but the .pth files inside it, the editable install's, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.timeout(300)
def test_samples_type_check_against_the_checkout(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    assert pytestconfig.cache is not None
    check(sys.executable, pytestconfig.cache.mkdir("mypy-checkout"), tmp_path)


@pytest.mark.timeout(300)
def test_samples_type_check_against_the_wheel(wheel_python: Path, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    assert pytestconfig.cache is not None
    check(wheel_python, pytestconfig.cache.mkdir("mypy-wheel"), tmp_path)


def test_the_wheel_works_without_the_checkout(wheel_python: Path, tmp_path: Path) -> None:
    home = run(wheel_python, "-c", "import lapel; print(lapel.__file__)", cwd=tmp_path)
    assert Path(home).is_relative_to(wheel_python.parents[1])
    listed = run(wheel_python, "-m", "lapel.cli", "drivers", "--json", cwd=tmp_path)
    assert '"type": "state.in-memory"' in listed


def test_the_wheel_holds_all_modules_and_nothing_else(wheel: Path) -> None:
    wanted = {
        path.relative_to(ROOT / source).as_posix()
        for source in ("components", "contrib")
        for path in (ROOT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert {"lapel/py.typed", "lapel_contrib/py.typed"} <= held
