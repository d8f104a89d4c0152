"""The `lapel` command: what it prints, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.unit import sample_drivers
from tests.unit.sample_drivers import STATE, World, registry

from lapel.cli import main
from lapel.cli.describe import example
from lapel.descriptor import Capability
from lapel.manifest import parse_manifests
from lapel.registry import Registry, default_registry
from lapel.validation import validate

COMMANDS = ["drivers", "describe", "validate", "check", "conformance", "crypto"]
NEEDY = replace(STATE, name="needy", extra="testing-only", distribution="lapel-needy", driver="absent_sdk:Driver")
BROKEN = replace(STATE, name="broken", driver="tests.unit.sample_drivers:NoSuchClass")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Lapel = Callable[..., Outcome]


@pytest.fixture
def lapel(capsys: pytest.CaptureFixture[str]) -> Lapel:
    def run(*arguments: str | Path, with_: Registry | None = None) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments], registry=with_ or registry())
        assert isinstance(caught.value.code, int)
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        assert "Traceback" not in captured.err
        return Outcome(caught.value.code, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    fresh = World()
    monkeypatch.setattr(sample_drivers, "world", fresh)
    return fresh


def component(name: str, type: str = "state.sample", more: str = "", **metadata: str) -> str:
    items = "".join(f"\n  - {{name: {key}, value: {json.dumps(value)}}}" for key, value in metadata.items())
    return (
        f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\n"
        f"spec:\n  type: {type}\n  version: v1\n  metadata:{items or ' []'}\n{more}"
    )


# the command line


def test_every_help_names_the_exit_codes(lapel: Lapel) -> None:
    for command in [[], *([name] for name in COMMANDS)]:
        outcome = lapel(*command, "--help")
        assert outcome.code == 0
        assert "Exit codes: 0 all is well, 1 problems were found, 2 the command line is" in outcome.out


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["drivers", "--nonsense"], ["describe"], ["describe", "sqlite"]]
)
def test_a_wrong_command_line_exits_with_2(lapel: Lapel, arguments: list[str]) -> None:
    assert lapel(*arguments).code == 2


def test_the_installed_command_prints_its_version_without_loading_pytest_or_pydantic() -> None:
    program = "import sys, lapel.cli\ntry: lapel.cli.main(['--version'])\nfinally: print(sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    version, modules = result.stdout.splitlines()
    assert version.startswith("lapel 0.")
    assert not [name for name in ("'pytest'", "'pydantic'", "'stevedore'", "'rich.table'") if name in modules]


# drivers


def test_drivers_lists_types_origin_and_capabilities(lapel: Lapel) -> None:
    outcome = lapel("drivers")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].split() == ["TYPE", "VERSION", "FROM", "STATUS", "CAPABILITIES"]
    assert "state.sample         v1       this program  ready   ETAG, TTL" in outcome.out
    assert not [line for line in outcome.out.splitlines() if line != line.rstrip()]


def test_drivers_as_json_has_stable_fields(lapel: Lapel) -> None:
    entries = {(each["type"], each["version"]): each for each in lapel("drivers", "--json").json}
    assert entries["state.sample", "v1"] == {
        "type": "state.sample",
        "kind": "state",
        "name": "sample",
        "version": "v1",
        "aliases": ["specimen"],
        "summary": "Keys and values for tests.",
        "capabilities": ["ETAG", "TTL"],
        "operations": [],
        "distribution": "this program",
        "distribution_version": "",
        "extra": None,
        "loadable": True,
        "command": None,
        "error": None,
    }
    assert ("state.sample", "v2") in entries


def test_drivers_can_be_limited_to_a_kind(lapel: Lapel) -> None:
    assert {each["kind"] for each in lapel("drivers", "--kind", "bindings", "--json").json} == {"bindings"}
    assert lapel("drivers", "--kind", "crypto").out == "no drivers are installed\n"


def test_a_missing_extra_is_listed_with_the_command(lapel: Lapel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapel._discovery._extras", lambda distribution: {"testing-only": {"absent-sdk"}})
    outcome = lapel("drivers", with_=registry(NEEDY))
    assert outcome.code == 0
    assert 'state.needy v1 needs: pip install "lapel-needy[testing-only]"' in outcome.out
    (entry,) = (each for each in lapel("drivers", "--json", with_=registry(NEEDY)).json if each["name"] == "needy")
    assert (entry["loadable"], entry["command"]) == (False, 'pip install "lapel-needy[testing-only]"')


def test_a_broken_driver_is_found_by_check_and_exits_with_1(lapel: Lapel) -> None:
    assert lapel("drivers", with_=registry(BROKEN)).code == 0
    outcome = lapel("drivers", "--check", with_=registry(BROKEN))
    assert outcome.code == 1
    assert "state.broken" in outcome.out
    assert "error: state.broken v1: driver 'tests.unit.sample_drivers:NoSuchClass'" in outcome.err
    assert "state.sample         v1       this program  ready" in outcome.out


# describe


def test_describe_shows_everything_about_the_fields(lapel: Lapel) -> None:
    outcome = lapel("describe", "state.sample")
    assert outcome.code == 0
    for expected in (
        "state.sample v1  (this program)",
        "ETAG, TTL",
        "key_bytes 100, ttl_seconds 2147483647",
        "backend  (string, required)",
        "Which backend to use. Example: `b1`. Also: host.",
        "password  (string, optional, secret)",
        "size  (int, default 10)",
        "How much. At least 1.",
        "the sample never had it",
        "there is nothing to tune",
        "  type: state.sample",
    ):
        assert expected in outcome.out


@pytest.mark.parametrize("type", ["STATE.Sample", "state.specimen", "state.sample/v1"])
def test_describe_takes_types_as_component_files_do(lapel: Lapel, type: str) -> None:
    assert lapel("describe", type).out == lapel("describe", "state.sample").out


def test_describe_as_json_and_as_schema(lapel: Lapel) -> None:
    described = lapel("describe", "state.sample", "--json").json
    assert described["type"] == "state.sample"
    fields = {field["name"]: field for field in described["fields"]}
    assert fields["backend"]["required"]
    assert fields["password"]["secret"]
    assert fields["old"]["refused"] == "the sample never had it"
    assert described["limits"]["key_bytes"] == 100
    schema = lapel("describe", "state.sample", "--schema").json
    assert schema["required"] == []
    assert {"backend", "host", "size"} <= set(schema["properties"])
    assert lapel("describe", "state.sample", "--schema", "--json").code == 2


def test_describing_what_is_not_there_suggests_what_is(lapel: Lapel) -> None:
    outcome = lapel("describe", "state.smaple")
    assert outcome.code == 1
    assert "did you mean 'sample'" in outcome.err
    assert "there is v1, v2" in lapel("describe", "state.sample/v9").err


def test_the_example_of_every_installed_driver_is_valid() -> None:
    wrong: dict[str, list[str]] = {}
    for entry in default_registry().entries():
        if entry.descriptor is not None:
            found = validate(parse_manifests(example(entry.descriptor)), present=["my-secrets"])
            if errors := [str(each) for each in found if not each.warning]:
                wrong[entry.type] = errors
    assert not wrong


# validate


def test_validate_names_file_and_line_of_every_problem(lapel: Lapel, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(component("one", backend="b1", sise="3", size="0"))
    (tmp_path / "b.yaml").write_text(component("two", type="state.nothing") + "---\n" + component("three", knob="1"))
    outcome = lapel("validate", tmp_path)
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert f"{tmp_path / 'a.yaml'}:9: error: component 'one' field 'sise': is not a known field" in outcome.out
    assert f"{tmp_path / 'a.yaml'}:10: error: component 'one' field 'size': must be at least 1, not '0'" in lines
    assert any(
        line.startswith(f"{tmp_path / 'b.yaml'}:") and "state.nothing v1: no installed" in line for line in lines
    )
    assert any(": warning: component 'three' field 'knob': has no effect: there is nothing" in line for line in lines)
    assert lines[-1] == "3 components: 4 errors, 1 warning"


def test_validate_as_json(lapel: Lapel, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(component("one", backend="b1", sise="3"))
    outcome = lapel("validate", path, "--json")
    assert outcome.code == 1
    (problem,) = outcome.json["problems"]
    assert outcome.json["ok"] is False
    assert outcome.json["components"] == [
        {"name": "one", "type": "state.sample", "version": "v1", "file": str(path), "line": 1}
    ]
    assert (problem["severity"], problem["component"], problem["field"]) == ("error", "one", "sise")
    assert (problem["file"], problem["line"]) == (str(path), 9)


def test_validate_can_be_lenient_and_leave_out_other_apps(lapel: Lapel, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(component("one", backend="b1", sise="3"))
    (tmp_path / "b.yaml").write_text(component("two", more="scopes: [other]\n"))
    assert lapel("validate", tmp_path).code == 1
    assert lapel("validate", tmp_path, "--app-id", "shop").code == 1
    outcome = lapel("validate", tmp_path, "--app-id", "shop", "--lenient")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "1 component: 0 errors, 1 warning"


def test_validate_reports_files_that_cannot_be_read(lapel: Lapel, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    outcome = lapel("validate", tmp_path / "absent.yaml", tmp_path / "empty.yaml")
    assert outcome.code == 1
    assert f"{tmp_path / 'absent.yaml'}: error: does not exist" in outcome.out
    assert f"{tmp_path / 'empty.yaml'}: error: is empty" in outcome.out


def test_no_command_prints_a_secret(
    lapel: Lapel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    monkeypatch.setenv("SAMPLE_SIZE", "canary-1")
    world.secrets = {"s": {"k": "canary-2"}}
    path = tmp_path / "a.yaml"
    path.write_text(
        component("one", backend="b1", password="canary-3")
        + "  - {name: size, envRef: SAMPLE_SIZE}\n---\n"
        + component("two", backend="b1")
        + "  - {name: size, secretKeyRef: {name: s, key: k}}\nauth: {secretStore: vault}\n---\n"
        + component("vault", "secretstores.sample")
    )
    for command in (["validate"], ["validate", "--json"], ["check"], ["check", "--json"]):
        outcome = lapel(*command, path)
        assert outcome.code == 1
        assert "canary" not in outcome.out + outcome.err
    path.write_text(path.read_text().replace("  - {name: size, envRef: SAMPLE_SIZE}\n", ""))
    outcome = lapel("check", path)
    assert "two: component 'two'" in outcome.out
    assert "canary" not in outcome.out + outcome.err


# check


def test_check_opens_asks_reports_and_closes(lapel: Lapel, tmp_path: Path, world: World) -> None:
    (tmp_path / "a.yaml").write_text(
        component("db", backend="b1") + "---\n" + component("vault", "secretstores.sample")
    )
    outcome = lapel("check", tmp_path)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "2 components: 2 ready, 0 not"
    assert [line.split()[:3] for line in outcome.out.splitlines()[1:3]] == [
        ["vault", "secretstores.sample", "ready"],
        ["db", "state.sample", "ready"],
    ]
    assert world.journal == ["open vault", "open db", "close db", "close vault"]


def test_check_reports_every_failure_and_exits_with_1(lapel: Lapel, tmp_path: Path, world: World) -> None:
    world.down |= {"b2", "b3-ping", "b4", "vault"}
    needs = "  - {name: password, secretKeyRef: {name: s, key: k}}\nauth: {secretStore: vault}\n"
    documents = [
        component("good", backend="b1"),
        component("down", backend="b2"),
        component("silent", backend="b3"),
        component("tolerated", backend="b4").replace("  version", "  ignoreErrors: true\n  version"),
        component("needy", backend="b1") + needs,
        component("vault", "secretstores.sample"),
    ]
    (tmp_path / "a.yaml").write_text("---\n".join(documents))
    outcome = lapel("check", tmp_path)
    assert outcome.code == 1
    assert "6 components: 1 ready, 5 not" in outcome.out
    assert "down: component 'down' (state.sample) open: the backend 'b2' does not answer" in outcome.out
    assert "needy: its secret store 'vault' did not open" in outcome.out
    assert outcome.err == ""
    found = {each["name"]: each for each in lapel("check", tmp_path, "--json").json["components"]}
    assert {name: each["state"] for name, each in found.items()} == {
        "good": "ready",
        "down": "failed",
        "silent": "reconnecting",
        "tolerated": "degraded",
        "needy": "failed",
        "vault": "failed",
    }
    assert found["good"]["capabilities"] == ["ETAG", "TTL"]
    assert found["good"]["seconds"] >= 0
    assert world.open == []


def test_check_names_withdrawn_capabilities(lapel: Lapel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = sample_drivers.SampleState.open

    async def withdrawing(self: sample_drivers.SampleState) -> None:
        await open_(self)
        self.withdraw(Capability.TTL, "the server is too old")

    monkeypatch.setattr(sample_drivers.SampleState, "open", withdrawing)
    (tmp_path / "a.yaml").write_text(component("db", backend="b1"))
    outcome = lapel("check", tmp_path)
    assert outcome.code == 0
    assert "db: does not offer TTL: the server is too old" in outcome.out


def test_check_opens_nothing_when_files_are_wrong(lapel: Lapel, tmp_path: Path, world: World) -> None:
    (tmp_path / "a.yaml").write_text(component("db", backend="b1") + "---\n" + component("bad"))
    outcome = lapel("check", tmp_path)
    assert outcome.code == 1
    assert "is required" in outcome.out
    assert "nothing was opened" in outcome.out
    assert world.journal == []


# conformance


def test_conformance_runs_the_suite_and_writes_reports(tmp_path: Path) -> None:
    path = tmp_path / "memory.yaml"
    path.write_text(component("memory", "state.in-memory"))
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    command = [sys.executable, "-m", "lapel.cli", "conformance", str(path), "--json", str(report), "--html", str(page)]
    result = subprocess.run([*command, "-k", "etag"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "memory (state.in-memory v1)" in result.stdout
    assert result.stdout.endswith("passed\n")
    (found,) = json.loads(report.read_text())["components"]
    assert found["counts"]["proved"] > 0
    assert "<html" in page.read_text()
    printed = subprocess.run(
        [*command[:5], "--json", "-", "-k", "no_such_test"], capture_output=True, text=True, check=False
    )
    assert printed.returncode == 1
    assert json.loads(printed.stdout)["ok"] is False


def test_conformance_without_the_test_packages_prints_the_command(
    lapel: Lapel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("lapel.testing")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pytest", None)
    outcome = lapel("conformance", tmp_path / "memory.yaml")
    monkeypatch.undo()
    assert outcome.code == 1
    assert 'type: pip install "lapel[testing]"' in outcome.err
