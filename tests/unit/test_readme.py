"""What README.md and the quickstart show is run, word for word, on embedded components in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lapel

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONSOLE = "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
COMMANDS = re.findall(r"^lapel (?!conformance)[^#\n]*", CONSOLE, re.MULTILINE)

COMPONENTS = {"statestore": "state.sqlite", "orders": "pubsub.sqlite", "locks": "lock.sqlite"}
MANIFEST = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: {name}
spec:
  type: {type}
  version: v1
  metadata:
    - name: connectionString
      value: shop.db
"""

RUN = """\
import ast, asyncio, inspect, sys
import lapel
code = compile(sys.stdin.read(), "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code, {"lapel": lapel})
if inspect.iscoroutine(result):
    asyncio.run(result)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "resources").mkdir()
    for name, type_ in COMPONENTS.items():
        (folder / "resources" / f"{name}.yaml").write_text(MANIFEST.format(name=name, type=type_))
    return folder


def run(folder: Path, *command: str, text: str | None = None) -> str:
    """Run Python in the folder, expect that nothing goes wrong or is warned about, and return what is printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_the_examples_are_those_that_are_checked_here() -> None:
    assert len(PYTHON) == 3
    assert [command.split()[1] for command in COMMANDS] == ["drivers", "describe", "validate", "check"]


async def test_the_example_with_component_files_works(folder: Path) -> None:
    run(folder, "-c", RUN, text=PYTHON[0])
    path = str(folder / "shop.db")
    async with lapel.open_state("sqlite", connection_string=path, name="statestore", app_id="shop") as store:
        item = await store.get("order-1")
        assert item is not None
        assert item.json() == {"status": "paid"}


def test_the_example_without_files_works(folder: Path) -> None:
    assert run(folder, "-c", RUN, text=PYTHON[1]) == "['apples']\n"


def test_the_synchronous_example_works(folder: Path) -> None:
    assert re.fullmatch(r"report number [0-9]+\n", run(folder, "-c", RUN, text=PYTHON[2]))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[1])
def test_the_command_works(folder: Path, command: str) -> None:
    shown = run(folder, "-m", "lapel.cli", *shlex.split(command)[1:])
    expected = {
        "drivers": ["state.sqlite", "crypto.dapr.localstorage"],
        "describe": ["state.sqlite", "connectionString"],
        "validate": ["3 components: 0 errors, 0 warnings"],
        "check": [*COMPONENTS, "ready"],
    }
    for words in expected[command.split()[1]]:
        assert words in shown


def test_the_quickstart_shows_all_seven_blocks_and_can_be_run_again(tmp_path: Path) -> None:
    copy = tmp_path / "quickstart"
    shutil.copytree(ROOT / "examples" / "quickstart", copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    for _ in range(2):
        shown = run(tmp_path, str(copy / "main.py"))
        for words in (
            "state.sqlite .* saved and read back order-1: {'status': 'paid'}",
            "a write with the etag of an older version was refused",
            "a transaction wrote two keys; orders now: order-1, order-2",
            "pubsub.sqlite .* published and received {'id': 1}",
            "bindings.localstorage .* wrote and read invoices/1.txt: 'total: 42'",
            "secretstores.local.file .* read a secret of [0-9]+ characters; printed it is <SecretValues",
            "configuration.local.file .* greeting changed from 'hello' to 'good evening' while running",
            "lock.sqlite .* held with fencing token [0-9]+; a second owner got it: False",
            r"crypto.dapr.localstorage .* \(dapr.io/enc/v1\), and 'the contract' again",
        ):
            assert re.search(words, shown), f"{words!r} is not in\n{shown}"
        assert json.loads((copy / "data" / "secrets.json").read_text())["api-key"] not in shown
