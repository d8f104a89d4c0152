"""The drivers that ship with lapel."""

from __future__ import annotations

from lapel.registry import default_registry


def test_every_driver_that_ships_with_lapel_agrees_with_its_descriptor() -> None:
    entries = [each for each in default_registry().entries() if each.distribution == "lapel"]
    assert entries
    assert {each.type: str(each.error) for each in entries if each.error} == {}
    checked = [each.check() for each in entries if each.loadable]
    assert {each.type: str(each.error) for each in checked if not each.loadable} == {}
