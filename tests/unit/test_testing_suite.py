"""The suite chooses tests by what a component declares, does not bend, and says what it found."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, ManifestError
from lapel.state import DeleteRequest, StateSettings
from lapel.testing import Mutant, Pins, Report, StateSuite, Subject, assert_killed, judge, row, run_conformance
from lapel.testing.report import ComponentReport, Status
from lapel.testing.run import run_classes
from lapel.testing.subject import read_components

from .plain_state import PlainState

REFUSALS = {"ST-07", "ST-25", "ST-26", "ST-42", "ST-53", "ST-66", "ST-80"}
MEMORY = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.in-memory, version: v1}
"""
PINS = "---\napiVersion: lapel.dev/v1alpha1\nkind: Conformance\n"


class Plain(StateSuite):
    """What a driver author writes."""

    __test__ = False
    pins = Pins(flags=Capability(0))
    driver: type[PlainState] = PlainState

    @pytest.fixture
    def subject(self) -> Subject:
        settings = StateSettings()

        def make(context: DriverContext) -> PlainState:
            return self.driver(settings, context)

        return Subject("plain", make, pins=self.pins)


def _run(*arguments: str, **attributes: object) -> ComponentReport:
    suite = type("TestPlain", (Plain,), {"__test__": True, **attributes})
    report = run_classes({"TestPlain": suite}, arguments=arguments)
    assert report.problem is None
    (component,) = report.components.values()
    return component


@pytest.fixture(scope="module")
def plain() -> ComponentReport:
    return _run()


def test_a_driver_without_flags_passes(plain: ComponentReport) -> None:
    assert plain.ok, plain.of(Status.FAILED)
    assert plain.type == "state.plain"
    assert len(plain.of(Status.PROVED)) > 50


def test_what_is_not_declared_is_proved_to_be_refused(plain: ComponentReport) -> None:
    assert set(plain.rows(Status.REFUSED)) | set(plain.rows(Status.PROVED)) >= REFUSALS
    assert len(plain.of(Status.REFUSED)) >= 6


def test_tests_of_undeclared_flags_are_never_counted_as_passed(plain: ComponentReport) -> None:
    absent = plain.of(Status.NOT_DECLARED)
    assert {"ETAG", "TTL", "QUERY_API", "KEYS_LIKE"} <= {result.detail for result in absent}
    assert not [result for result in plain.of(Status.PROVED) if result.needs]


def test_rows_of_other_kinds_are_not_reported(plain: ComponentReport) -> None:
    assert not [row for result in plain.results for row in result.rows if row.startswith(("PS-", "LK-"))]


def test_overriding_a_test_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"test_bulk_delete overrides a test of BulkTests"):

        class Bent(StateSuite):
            async def test_bulk_delete(self) -> None:  # type: ignore[override]  # what is being refused
                """Do nothing."""


def test_hiding_a_test_behind_a_mixin_is_a_type_error() -> None:
    class Mixin:
        test_bulk_delete = None

    with pytest.raises(TypeError, match="test_bulk_delete"):
        type("Bent", (Mixin, StateSuite), {})


def test_further_tests_may_be_added() -> None:
    class More(StateSuite):
        async def test_something_of_its_own(self) -> None:
            """Do nothing."""

    assert More.__test__


class Deaf(PlainState):
    """Does not delete."""

    async def delete(self, request: DeleteRequest) -> None:
        pass


DEAF = "test_a_deleted_key_is_gone_and_a_missing_one_can_be_deleted"


def test_a_fault_fails_and_names_its_row() -> None:
    component = _run("-k", DEAF, driver=Deaf)
    assert not component.ok
    assert component.rows(Status.FAILED) == ["ST-04"]
    assert "assert" in component.of(Status.FAILED)[0].detail


@pytest.mark.parametrize("name", ["ST-04", DEAF])
def test_a_known_fault_is_expected_to_fail(name: str) -> None:
    component = _run("-k", DEAF, driver=Deaf, pins=Pins(known_faults={name: "is deaf"}))
    assert {(result.status, result.detail) for result in component.results} == {(Status.KNOWN_FAULT, "is deaf")}


def test_a_known_fault_that_works_fails() -> None:
    component = _run("-k", DEAF, pins=Pins(known_faults={"ST-04": "was deaf once"}))
    assert [result.status for result in component.results] == [Status.FAILED] * 2


def test_a_known_fault_that_does_not_exist_fails() -> None:
    component = _run("-k", DEAF, pins=Pins(known_faults={"ST-99": "?"}))
    assert "ST-99" in component.of(Status.FAILED)[0].detail


def test_an_unknown_option_fails() -> None:
    component = _run("-k", DEAF, pins=Pins(options={"badTag": "x"}))
    assert "badTag" in component.of(Status.FAILED)[0].detail


class Withdraws(PlainState):
    descriptor = PlainState.descriptor
    capabilities_declared = Capability.CONTENT_TYPE

    async def open(self) -> None:
        await super().open()
        self._capabilities |= Capability.CONTENT_TYPE | Capability.STRONG_CONSISTENCY
        self.withdraw(Capability.CONTENT_TYPE, "the server is too old")


PINNED = "test_flags_after_open_are_the_pinned_ones"


def test_a_withdrawn_flag_fails_with_the_reason_of_the_driver() -> None:
    component = _run("-k", PINNED, driver=Withdraws, pins=Pins(flags=Capability.CONTENT_TYPE))
    (failure,) = component.of(Status.FAILED)
    assert "CONTENT_TYPE: withdrawn at open: the server is too old" in failure.detail
    assert "STRONG_CONSISTENCY: declared, but not pinned" in failure.detail


def test_a_flag_added_by_open_is_caught() -> None:
    mutant = Mutant(Withdraws, "stricter-123")
    assert_killed(judge(StateSuite, PlainState, StateSettings(), [mutant]), mutant)


class DoesNotOpen(PlainState):
    async def open(self) -> None:
        raise RuntimeError("no such server")


def test_a_component_that_does_not_open_fails_everything_and_proves_nothing() -> None:
    component = _run("-k", "test_bulk or test_undeclared", driver=DoesNotOpen)
    assert not component.ok
    assert {result.status for result in component.results} == {Status.FAILED}


def test_a_survivor_is_reported() -> None:
    mutant = Mutant(PlainState, "ST-04")
    with pytest.raises(AssertionError, match=r"PlainState survived ST-04"):
        assert_killed(judge(StateSuite, PlainState, StateSettings(), [mutant]), mutant)


def test_a_component_file_is_run_and_reported(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(MEMORY + PINS + "flags: [ETAG]\n")
    report = run_conformance(
        file,
        json_report=tmp_path / "out" / "r.json",
        html_report=tmp_path / "r.html",
        select="flags_after or bulk_delete",
    )
    assert not report.ok
    written = json.loads((tmp_path / "out" / "r.json").read_text())
    (component,) = written["components"]
    assert (component["name"], component["type"], component["ok"]) == ("statestore", "state.in-memory", False)
    assert component["counts"]["failed"] == 1
    assert component["counts"]["proved"] >= 2
    page = (tmp_path / "r.html").read_text()
    assert "does not conform" in page
    tags: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append((tag, dict(attrs)))  # type: ignore[method-assign]  # a spy
    parser.feed(page)
    assert not [one for one in tags if one[0] in ("script", "link", "img") or "src" in one[1] or "href" in one[1]]


@row("stricter-084")
def test_a_report_of_nothing_is_not_ok() -> None:
    assert not Report().ok
    assert "does not conform" in Report(problem="<b>nothing</b> ran").to_html()
    assert "<b>nothing" not in Report(problem="<b>nothing</b> ran").to_html()


def test_options_of_the_surroundings_have_no_part_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-rP --no-such-option")
    (tmp_path / "c.yaml").write_text(MEMORY)
    assert run_conformance(tmp_path / "c.yaml", select="flags_after").problem is None
    assert os.environ["PYTEST_ADDOPTS"] == "-rP --no-such-option"


def test_a_selection_that_runs_nothing_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(MEMORY)
    report = run_conformance(tmp_path / "c.yaml", select="no_such_test")
    assert not report.ok
    assert report.problem is not None


def test_a_file_without_components_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("apiVersion: x\nkind: Other\n")
    with pytest.raises(ConfigurationError, match="has no component"):
        run_conformance(tmp_path / "c.yaml")
    with pytest.raises(ManifestError):
        run_conformance(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ("flags: [ETAGS]\n", "flags that do not exist: ETAGS"),
        ("flags: ETAG\n", "list as flags"),
        ("knownFaults: {ST-01: }\n", "reason for every entry"),
        ("component: other\n", "names the component 'other'"),
        ("flagz: []\n", "unknown fields: flagz"),
        ("options: [a]\n", "mapping as options"),
    ],
)
def test_wrong_pins_are_named(pins: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_components(MEMORY + PINS + pins)


def test_placeholders_are_filled_in(tmp_path: Path) -> None:
    text = MEMORY.replace("version: v1}", "version: v1, metadata: [{name: keyPrefix, value: '${TMP}-${UUID}'}]}")
    ((manifest, _),) = read_components(text, tmp_path)
    assert str(manifest.metadata[0].value).startswith(f"{tmp_path}-")
    assert "$" not in str(manifest.metadata[0].value)
