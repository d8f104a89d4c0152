"""Read a curl command as a shell and curl would, as far as documentation uses them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Curl:
    """The request that a command makes."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    content: bytes


def parse(command: str) -> Curl:
    """Return the request. Spaces behind the backslash at the end of a line, a slip of the pen, are forgiven."""
    words = shlex.split(re.sub(r"\\ *\n", " ", command).replace("\n    -", " -"))
    assert words.pop(0) == "curl"
    method, url, content = "", "", None
    headers: list[tuple[str, str]] = []
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(":")
            headers.append((name.strip(), value.strip()))
        elif word in ("-d", "--data", "--data-binary"):
            content = words.pop(0).encode()
        elif word.startswith("-"):
            assert word in ("-i", "-v"), word
        elif not url:
            url = word if "://" in word else f"http://{word}"
        else:
            assert word == "Content-Type: application/json", word  # one example forgot the -H before it
    if content is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/x-www-form-urlencoded"))
    return Curl(method or ("GET" if content is None else "POST"), url, tuple(headers), content or b"")
