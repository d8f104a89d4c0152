"""The generated pages: what they say, and how it is noticed that one is out of date."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.sample_drivers import STATE

from lapel.cli import docs
from lapel.descriptor import Capability
from lapel.registry import Registry


def lapel_registry() -> Registry:
    return Registry(STATE, installed=False)


def generate(root: Path, *arguments: str) -> int:
    return docs.main([*arguments, "--root", str(root)], registry=lapel_registry())


def test_pages_are_written_and_then_found_up_to_date(tmp_path: Path) -> None:
    assert generate(tmp_path, "--check") == 1
    assert generate(tmp_path, "--write") == 0
    assert generate(tmp_path, "--check") == 0
    page = (tmp_path / "docs/components/state.sample.md").read_text()
    for expected in (
        "# state.sample\n",
        "Keeps values until it closes.",
        "| `backend` | string | required | Which backend to use. Example: `b1`. Also: host. |",
        "| `password` | string, secret |  | What the backend asks for. |",
        "| `old` | the sample never had it |",
        "| `knob` | there is nothing to tune |",
        "- `TTL`: Items can expire; expired ones are invisible at once and `expires_at` is returned.",
    ):
        assert expected in page
    matrix = (tmp_path / "docs/capabilities.md").read_text()
    assert "| `ETAG` | yes | `get` returns an etag" in matrix


def test_an_edited_or_superfluous_page_is_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path, "--write")
    old = tmp_path / "docs/components/state.old.md"
    old.write_text(docs.GENERATED)
    by_hand = tmp_path / "docs/components/README.md"
    by_hand.write_text("Written by hand.")
    (tmp_path / "docs/capabilities.md").write_text("edited")
    assert generate(tmp_path, "--check") == 1
    message = capsys.readouterr().err
    assert "state.old.md: is out of date" in message
    assert "capabilities.md: is out of date" in message
    assert generate(tmp_path, "--write") == 0
    assert not old.exists()
    assert by_hand.exists()
    assert generate(tmp_path, "--check") == 0


def test_the_readme_needs_markers_as_soon_as_it_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path, "--write")
    readme = tmp_path / "README.md"
    readme.write_text("# lapel\n")
    assert generate(tmp_path, "--check") == 1
    assert "README.md lacks the lines" in capsys.readouterr().err
    readme.write_text(f"# lapel\n\n{docs.BEGIN}\n{docs.END}\n\nMore.\n")
    assert generate(tmp_path, "--check") == 1
    assert generate(tmp_path, "--write") == 0
    text = readme.read_text()
    assert "| State stores | [`state.sample`](docs/components/state.sample.md) | Keys and values for tests. |" in text
    assert text.endswith(f"{docs.END}\n\nMore.\n")
    assert generate(tmp_path, "--check") == 0


def test_every_capability_is_explained() -> None:
    assert {flag.name for flag in Capability} == set(docs.capability_texts())
