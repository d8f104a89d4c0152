"""Component files that are wrong: a typed error that says where and what to do, and nothing is opened or written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lapel
from lapel.errors import AssemblyError, ManifestError, NotFoundError, SettingsError

STORE = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: orders
spec:
  type: state.sqlite
  version: v1
  metadata:
    - name: connectionString
      value: data.db
"""
VAULT = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: vault
spec:
  type: secretstores.local.file
  version: v1
  metadata:
    - name: secretsFile
      value: secrets.json
"""
SECRET = "canary-91c4"


@pytest.fixture(autouse=True)
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, with an empty folder `resources`, which is returned."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets.json").write_text(f'{{"other": "{SECRET}"}}')
    folder = tmp_path / "resources"
    folder.mkdir()
    return folder


async def refusal(**files: str) -> str:
    """Write the files, open them all, and return the text of the one error; nothing else may have happened."""
    for name, text in files.items():
        Path("resources", f"{name}.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        await lapel.open_components("resources")
    assert sorted(os.listdir()) == ["resources", "secrets.json"]
    text = str(caught.value)
    assert SECRET not in text + repr(caught.value.problems)
    assert all(problem.file for problem in caught.value.problems)
    return text


def wrong(old: str, new: str) -> str:
    assert old in STORE
    return STORE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        pytest.param(
            wrong("state.sqlite", "state.sqlight"),
            "orders.yaml:1: component 'orders' field 'spec.type'",
            "did you mean 'sqlite'",
            id="unknown type",
        ),
        pytest.param(
            wrong("version: v1\n", "version: v9\n"),
            "orders.yaml:1: component 'orders' field 'spec.type'",
            "there is v1",
            id="unknown version",
        ),
        pytest.param(
            wrong("connectionString", "conectionString"),
            "orders.yaml:9: component 'orders' field 'conectionString'",
            "did you mean 'connectionString'",
            id="unknown field",
        ),
        pytest.param(
            STORE[: STORE.index("  metadata:\n    -")],
            "orders.yaml:1: component 'orders' field 'connectionString'",
            "is required",
            id="missing field",
        ),
        pytest.param(
            wrong("value: data.db", "value: data.db\n    - name: timeout\n      value: soon"),
            "orders.yaml:11: component 'orders' field 'timeout'",
            "expected a duration such as 1h30m",
            id="malformed value",
        ),
        pytest.param(wrong("spec:", "spec: ["), "orders.yaml:", "YAML", id="YAML that does not parse"),
        pytest.param("", "orders.yaml", "is empty: it has no YAML document", id="empty file"),
        pytest.param(
            wrong("value: data.db", "secretKeyRef: {name: password, key: password}"),
            "orders.yaml:1: component 'orders' field 'auth.secretStore'",
            "set auth.secretStore to a secret store component",
            id="secret without a store",
        ),
    ],
)
async def test_a_mistake_is_named_with_its_place_and_its_cure(text: str, place: str, words: str) -> None:
    found = await refusal(orders=text)
    assert place in found
    assert words in found


async def test_two_components_of_one_name_are_named_with_both_places() -> None:
    found = await refusal(a=STORE, b=STORE.replace("data.db", "other.db"))
    assert "resources/b.yaml:1: component 'orders'" in found
    assert "taken already by the state.sqlite in resources/a.yaml:1" in found


async def test_secret_stores_that_need_each_other_are_named_as_a_circle() -> None:
    def store(name: str, other: str) -> str:
        text = VAULT.replace("name: vault", f"name: {name}").replace(
            "value: secrets.json", "secretKeyRef: {name: path, key: path}"
        )
        return f"{text}auth:\n  secretStore: {other}\n"

    found = await refusal(a=store("one", "two"), b=store("two", "one"))
    assert "take their secrets from each other in a circle" in found
    assert "one -> two -> one" in found or "two -> one -> two" in found


async def test_a_secret_that_does_not_exist_names_component_field_and_secret() -> None:
    Path("resources/vault.yaml").write_text(VAULT)
    Path("resources/orders.yaml").write_text(
        wrong("value: data.db", "secretKeyRef: {name: database, key: database}") + "auth:\n  secretStore: vault\n"
    )
    with pytest.raises(AssemblyError) as caught:
        await lapel.open_components("resources")
    assert sorted(os.listdir()) == ["resources", "secrets.json"]
    (error,) = caught.value.exceptions
    assert isinstance(error, SettingsError)
    for part in ("component 'orders'", "connectionString", "'database'"):
        assert part in str(error)
    assert SECRET not in f"{caught.value} {error!r}"


async def test_all_mistakes_of_all_files_come_at_once() -> None:
    found = await refusal(
        a=wrong("connectionString", "conectionString"), b=wrong("name: orders", "name: two\n  nam: x"), c="[", d=""
    )
    for place in ("a.yaml:9", "c.yaml", "d.yaml"):
        assert place in found


async def test_unknown_fields_may_be_tolerated_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    Path("resources/orders.yaml").write_text(STORE + "    - name: conectionString\n      value: x\n")
    async with lapel.open_components("resources", unknown="warn") as components:
        assert await components.state("orders").set("key", "value")
    assert "did you mean 'connectionString'" in caplog.text


@pytest.mark.parametrize("path", ["nowhere", "resources/nothing.yaml"])
async def test_a_path_that_does_not_exist_is_named(path: str) -> None:
    with pytest.raises(ManifestError, match=f"{path}: does not exist"):
        await lapel.open_components(path)


READ_AS_ANOTHER_USER = """\
import asyncio, os, sys
import lapel

def read(path):
    try:
        asyncio.run(lapel.open_components(path).__aenter__())
    except lapel.ConfigurationError as exc:
        return f"{type(exc).__name__} {exc}"

read("nowhere")  # imports what is needed, which the other user perhaps may not
if os.geteuid() == 0:
    os.seteuid(65534)
print(read(sys.argv[1]))
"""


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_cannot_be_read_is_named(what: str) -> None:
    """As another user, because permissions do not bind root; below the folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "resources")
        folder.mkdir()
        file = folder / "orders.yaml"
        file.write_text(STORE)
        named = folder if what == "folder" else file
        Path(name).chmod(0o755)
        named.chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", READ_AS_ANOTHER_USER, folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        folder.chmod(0o700)
    expected = f"ManifestError {named}: the {what} cannot be read: Permission denied"
    assert done.stdout.startswith(expected), done.stdout + done.stderr


async def test_a_secret_is_missing_in_the_store_itself_too() -> None:
    async with lapel.open_secret_store("local.file", secrets_file="secrets.json") as store:
        with pytest.raises(NotFoundError, match=r"component 'local.file' \(secretstores.local.file\) get:.*'nope'"):
            await store.get("nope")
