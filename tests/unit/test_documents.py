"""What the documents show is what is there: quoted files are the files, and Python parses."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
QUOTE = re.compile(r"<!-- file: (?P<path>\S+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?P<path>[^)#:]+)\)")


def quotes() -> list[tuple[Path, str, str]]:
    return [(page, match["path"], match["text"]) for page in PAGES for match in QUOTE.finditer(page.read_text())]


@pytest.mark.parametrize(("page", "path", "text"), quotes(), ids=lambda value: getattr(value, "name", None))
def test_quoted_file_is_the_file(page: Path, path: str, text: str) -> None:
    assert text == (ROOT / path).read_text(), f"{page.name} quotes an older {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_document_parses(page: Path) -> None:
    for match in PYTHON.finditer(page.read_text()):
        compile(match["text"], str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [
        match["path"]
        for match in LINK.finditer(page.read_text())
        if "//" not in match["path"] and not (page.parent / match["path"]).exists()
    ]
    assert not missing


def test_there_are_quotes() -> None:
    assert len(quotes()) >= 6
