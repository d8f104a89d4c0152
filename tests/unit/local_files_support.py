"""How files change under those who read them."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    other.replace(path)
