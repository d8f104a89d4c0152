"""Discovery: what the registry promises about installed, broken, rivalling and missing drivers."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lapel.descriptor import Capability, Descriptor, Kind
from lapel.errors import DriverConflictError, DriverLoadError, DriverNotFoundError, MissingExtraError
from lapel.registry import Entry, Registry, default_registry

DRIVER = """
from lapel.driver import Driver
from {module} import DESCRIPTOR

class Acme(Driver):
    descriptor = DESCRIPTOR
    async def open(self): ...
    async def close(self): ...
    async def ping(self): ...
"""

FOREIGN = """
from lapel.descriptor import Descriptor, Kind
DESCRIPTOR = Descriptor(kind=Kind.{kind}, name="{name}", driver="a:B", settings="a:C", summary="", {more})
"""


class Site:
    """A folder on `sys.path` into which tests install distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(
        self,
        distribution: str,
        *,
        entries: str,
        module: str | None = None,
        source: str = "",
        driver: str = DRIVER,
        group: str = "lapel.state",
        version: str = "1.0",
        metadata: str = "",
    ) -> str:
        module = module or distribution.replace("-", "_")
        info = self.path / f"{distribution.replace('-', '_')}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{metadata}")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entries}\n")
        (self.path / f"{module}.py").write_text(textwrap.dedent(source))
        (self.path / f"{module}_driver.py").write_text(driver.format(module=module))
        return module

    def install_acme(self, distribution: str = "acme", name: str = "acme", more: str = "", **options: str) -> str:
        module = distribution.replace("-", "_")
        source = f"""
            from lapel.descriptor import Capability, Descriptor, Kind
            DESCRIPTOR = Descriptor(
                kind=Kind.STATE, name={name!r}, driver="{module}_driver:Acme", settings="{module}:None",
                summary="A test", distribution={distribution!r}, {more}
            )
        """
        return self.install(distribution, entries=f"{name} = {module}:DESCRIPTOR", source=source, **options)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and file.startswith(str(tmp_path)):
            del sys.modules[name]


def entry(registry: Registry, name: str, version: str = "v1") -> Entry:
    (found,) = [each for each in registry.entries(Kind.STATE) if (each.name, each.version) == (name, version)]
    return found


def test_names_are_listed_without_importing_any_driver_module(site: Site) -> None:
    module = site.install_acme()
    assert "acme" in Registry().names(Kind.STATE)
    assert "acme" not in Registry().names(Kind.LOCK)
    assert module not in sys.modules


def test_asking_for_one_descriptor_loads_only_that_entry_point(site: Site) -> None:
    wanted, other = site.install_acme(), site.install_acme("other", "other")
    descriptor = Registry().descriptor(Kind.STATE, "acme")
    assert descriptor.type == "state.acme"
    assert wanted in sys.modules
    assert other not in sys.modules
    assert f"{wanted}_driver" not in sys.modules


def test_lookups_ignore_case_and_the_first_version_has_three_spellings(site: Site) -> None:
    site.install_acme(name="Acme")
    registry = Registry()
    first = registry.descriptor(Kind.STATE, "acme")
    assert all(registry.descriptor(Kind.STATE, "ACME", version) is first for version in ("", "v0", "V1"))


def test_an_entry_knows_its_distribution_and_its_driver_can_be_checked(site: Site) -> None:
    site.install_acme("Acme-Drivers", version="2.5")
    found = entry(Registry(), "acme")
    assert (found.distribution, found.distribution_version, found.type) == ("Acme-Drivers", "2.5", "state.acme")
    assert (found.loadable, found.error, found.command) == (True, None, None)
    assert found.check() == found


def test_the_driver_class_is_the_one_the_descriptor_names(site: Site) -> None:
    site.install_acme()
    registry = Registry()
    descriptor = registry.descriptor(Kind.STATE, "acme")
    assert registry.driver_class(descriptor).descriptor is descriptor


def test_an_alias_finds_the_driver_and_a_registered_name_wins_over_it(site: Site) -> None:
    site.install_acme(more="aliases=('Emca', 'other')")
    site.install_acme("other", "other")
    registry = Registry()
    assert registry.descriptor(Kind.STATE, "emca").name == "acme"
    assert registry.descriptor(Kind.STATE, "other").name == "other"
    assert "emca" not in registry.names(Kind.STATE)


def test_an_alias_of_two_drivers_is_a_conflict(site: Site) -> None:
    site.install_acme(more="aliases=('both',)")
    site.install_acme("other", "other", more="aliases=('both',)")
    with pytest.raises(DriverConflictError, match=r"acme 1\.0.*other 1\.0|other 1\.0.*acme 1\.0"):
        Registry().descriptor(Kind.STATE, "both")


def test_an_unknown_name_lists_the_known_ones_and_the_nearest(site: Site) -> None:
    site.install_acme()
    with pytest.raises(DriverNotFoundError, match=r"\(state\.acne\).*did you mean 'acme'\?.*known: .*acme"):
        Registry().descriptor(Kind.STATE, "acne")


def test_versions_live_side_by_side_and_an_unknown_one_lists_them(site: Site) -> None:
    site.install_acme()
    later = FOREIGN.format(kind="STATE", name="acme", more="version='v2'")
    site.install("acme-next", entries="acme/v2 = acme_next:DESCRIPTOR", source=later)
    registry = Registry()
    assert registry.names(Kind.STATE).count("acme") == 1
    assert registry.descriptor(Kind.STATE, "acme").version == "v1"
    assert registry.descriptor(Kind.STATE, "acme", "v2").version == "v2"
    with pytest.raises(DriverNotFoundError, match=r"'v3'.*v1, v2"):
        registry.descriptor(Kind.STATE, "acme", "v3")


def test_two_distributions_claiming_one_name_are_both_named(site: Site) -> None:
    site.install_acme()
    site.install_acme("rival", version="7.1")
    registry = Registry()
    with pytest.raises(DriverConflictError, match=r"\(state\.acme\)") as caught:
        registry.descriptor(Kind.STATE, "acme")
    assert "acme 1.0" in str(caught.value)
    assert "rival 7.1" in str(caught.value)
    rivals = [each for each in registry.entries(Kind.STATE) if each.name == "acme"]
    assert {each.distribution for each in rivals} == {"acme", "rival"}
    assert all(isinstance(each.error, DriverConflictError) and not each.loadable for each in rivals)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("assert False, 'no'", "AssertionError: no"),
        ("import no_such_sdk", "No module named 'no_such_sdk'"),
        ("", "has no attribute 'DESCRIPTOR'"),
        ("DESCRIPTOR = 5", "leads to a int instead of a lapel.descriptor.Descriptor"),
        (FOREIGN.format(kind="STATE", name="broken", more="driver_api=99"), "made for driver API 99"),
        (FOREIGN.format(kind="LOCK", name="broken", more=""), "leads to the descriptor of lock.broken v1"),
        (FOREIGN.format(kind="STATE", name="other", more=""), "leads to the descriptor of state.other v1"),
    ],
)
def test_a_broken_plugin_is_shown_and_named_and_takes_nothing_down(site: Site, source: str, said: str) -> None:
    site.install("broken-plugin", entries="broken = broken_plugin:DESCRIPTOR", source=source, version="0.3")
    site.install_acme()
    registry = Registry()
    shown = entry(registry, "broken")
    assert shown.error is not None
    assert said in str(shown.error)
    assert (shown.loadable, shown.descriptor, shown.command) == (False, None, None)
    assert shown.check() is shown
    assert entry(registry, "acme").loadable
    assert registry.descriptor(Kind.STATE, "acme").name == "acme"
    with pytest.raises(DriverLoadError) as caught:
        registry.descriptor(Kind.STATE, "broken")
    text = str(caught.value)
    assert "(state.broken)" in text
    assert "entry point 'broken = broken_plugin:DESCRIPTOR' of broken-plugin 0.3" in text
    assert said in text


def test_a_failure_to_load_is_not_remembered(site: Site) -> None:
    module = site.install("acme", entries="acme = acme:DESCRIPTOR", source="raise OSError('disk asleep')")
    registry = Registry()
    with pytest.raises(DriverLoadError, match="disk asleep"):
        registry.descriptor(Kind.STATE, "acme")
    fixed = "# longer than before, so that the compiled file is not taken for it\n" + FOREIGN
    (site.path / f"{module}.py").write_text(fixed.format(kind="STATE", name="acme", more=""))
    assert registry.descriptor(Kind.STATE, "acme").name == "acme"


def test_an_unreadable_entry_points_file_hides_only_its_own_drivers(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("damaged", entries="this line is not an entry point")
    site.install_acme()
    assert "acme" in Registry().names(Kind.STATE)
    assert "distribution damaged 1.0" in caplog.text


def test_a_missing_extra_shows_the_line_to_type_without_importing_the_driver(site: Site) -> None:
    extras = "Provides-Extra: fast\nRequires-Dist: no-such-sdk[hi]>=2; extra == 'fast'\n"
    module = site.install_acme(more="extra='fast'", metadata=extras, driver="import no_such_sdk.aio\n" + DRIVER)
    registry = Registry()
    shown = entry(registry, "acme")
    assert (shown.loadable, shown.error, shown.command) == (False, None, 'pip install "acme[fast]"')
    assert f"{module}_driver" not in sys.modules
    assert shown.check() == shown
    with pytest.raises(MissingExtraError, match=r"\(state\.acme\).*'fast'.*'no_such_sdk'.*pip install") as caught:
        registry.driver_class(registry.descriptor(Kind.STATE, "acme"))
    assert caught.value.command == 'pip install "acme[fast]"'
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_extra_made_of_other_extras_is_followed(site: Site) -> None:
    extras = (
        "Provides-Extra: fast\nProvides-Extra: sdk\nProvides-Extra: ring\nRequires-Dist: acme[ring]; extra == 'fast'\n"
        "Requires-Dist: Acme[sdk,fast]; extra == 'ring'\nRequires-Dist: no-such-sdk; extra == 'sdk'\n"
    )
    site.install_acme(more="extra='fast'", metadata=extras)
    assert entry(Registry(), "acme").command == 'pip install "acme[fast]"'


def test_an_installed_extra_is_loadable(site: Site) -> None:
    site.install_acme(more="extra='Fast'", metadata="Provides-Extra: fast\nRequires-Dist: PyTest>=1; extra == 'fast'\n")
    found = entry(Registry(), "acme")
    assert found.loadable
    assert found.check().loadable


@pytest.mark.parametrize(
    ("more", "metadata", "missing"),
    [
        ("", "", "left_pad"),
        ("extra='fast'", "Provides-Extra: fast\nRequires-Dist: pytest; extra == 'fast'\n", "left_pad"),
        ("extra='fast'", "Provides-Extra: fast\nRequires-Dist: no-such-sdk; extra == 'fast'\n", "acme_driver.gone"),
    ],
    ids=["no extra", "the extra is installed", "a module of the driver itself"],
)
def test_a_missing_module_that_the_extra_does_not_explain_is_a_load_error(
    site: Site, more: str, metadata: str, missing: str
) -> None:
    site.install_acme(more=more, metadata=metadata, driver=f"import {missing}\n" + DRIVER)
    registry = Registry()
    with pytest.raises(
        DriverLoadError, match=rf"'acme_driver:Acme' of acme 1\.0 needs the module '{missing}'"
    ) as caught:
        registry.driver_class(registry.descriptor(Kind.STATE, "acme"))
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("", "has no attribute 'Acme'"),
        ("class Acme: ...", "is not a subclass of lapel.driver.Driver"),
        (DRIVER.replace("descriptor = DESCRIPTOR", ""), "has another `descriptor`"),
        (
            DRIVER.replace("= DESCRIPTOR", "= __import__('dataclasses').replace(DESCRIPTOR)"),
            "has another `descriptor`",
        ),
    ],
)
def test_a_driver_class_that_does_not_fit_is_refused_when_asked_for(site: Site, driver: str, said: str) -> None:
    site.install_acme(driver=driver)
    registry = Registry()
    assert entry(registry, "acme").loadable
    checked = entry(registry, "acme").check()
    assert not checked.loadable
    assert isinstance(checked.error, DriverLoadError)
    assert "(state.acme): driver 'acme_driver:Acme' of acme 1.0 " in str(checked.error)
    assert said in str(checked.error)


def test_capabilities_name_the_drivers_that_offer_them(site: Site) -> None:
    site.install_acme(more="capabilities=Capability.QUERY_API | Capability.TTL")
    site.install_acme("poor", "poor")
    site.install("broken", entries="broken = broken:DESCRIPTOR", source="raise OSError")
    names = Registry().with_capability(Kind.STATE, Capability.QUERY_API)
    assert "acme" in names
    assert "poor" not in names
    assert "acme" not in Registry().with_capability(Kind.STATE, Capability.QUERY_API | Capability.KEYS_LIKE)


def test_a_program_can_register_drivers_of_its_own() -> None:
    own = Descriptor(kind=Kind.LOCK, name="Mine", driver="a:B", settings="a:C", summary="")
    registry = Registry(own, installed=False)
    assert registry.descriptor(Kind.LOCK, "mine") is own
    assert [(each.type, each.distribution) for each in registry.entries()] == [("lock.mine", "this program")]


def test_entries_are_sorted_by_kind_name_and_version() -> None:
    def make(kind: Kind, name: str, version: str) -> Descriptor:
        return Descriptor(kind=kind, name=name, version=version, driver="a:B", settings="a:C", summary="")

    wanted = [
        (Kind.STATE, "a", "v1"),
        (Kind.STATE, "a", "v2"),
        (Kind.STATE, "a", "v10"),
        (Kind.STATE, "b", "v1"),
        (Kind.LOCK, "a", "v1"),
    ]
    registry = Registry(*(make(*each) for each in reversed(wanted)), installed=False)
    assert [(each.kind, each.name, each.version) for each in registry.entries()] == wanted
    assert [each.name for each in registry.entries(Kind.LOCK)] == ["a"]


def test_one_scan_serves_all_threads_until_refresh(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_acme()
    scans: list[str] = []
    scan = importlib.metadata.entry_points

    def counted() -> object:
        scans.append(threading.current_thread().name)
        return scan()

    monkeypatch.setattr(importlib.metadata, "entry_points", counted)
    registry = Registry()
    assert scans == []
    start = threading.Barrier(8)

    def ask(_: int) -> None:
        start.wait()
        registry.descriptor(Kind.STATE, "acme")
        registry.entries()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert len(scans) == 1

    site.install_acme("late", "late")
    assert "late" not in registry.names(Kind.STATE)
    registry.refresh()
    assert registry.descriptor(Kind.STATE, "late").name == "late"
    assert len(scans) == 2


def test_there_is_one_default_registry() -> None:
    assert default_registry() is default_registry()


SHOW = """
from lapel.descriptor import Kind
from lapel.registry import default_registry
registry = default_registry()
print([e.distribution_version for e in registry.entries(Kind.STATE) if e.type == "state.acme" and not e.error])
print([n for n in ("acme", "emca") if n in registry.names(Kind.STATE)])
"""


def test_a_plugin_reinstalled_a_moment_ago_is_seen_by_the_next_process(site: Site, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    roots = [str(tmp_path), *(path for path in sys.path if path)]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": os.pathsep.join(roots)}

    def ask() -> list[str]:
        # The times a coarse cache looks at are the same before and after.
        for path in (tmp_path, *tmp_path.glob("*.dist-info"), *tmp_path.glob("*.dist-info/*")):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        result = subprocess.run(
            [sys.executable, "-B", "-c", SHOW], env=environment, capture_output=True, text=True, check=True
        )
        return result.stdout.splitlines()

    site.install_acme()
    assert ask() == ["['1.0']", "['acme']"]
    site.install_acme(name="emca", version="1.1")
    assert ask() == ["[]", "['emca']"]
    assert list(cache.iterdir()) == []
