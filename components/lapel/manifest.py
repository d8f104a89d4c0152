"""Component files: Dapr's YAML, read unchanged, into `Manifest` objects.

Only documents with `apiVersion: dapr.io/v1alpha1` and `kind: Component` become manifests; other kinds are handed out as
they are. Values stay the text that was written: `0644` is `0644` and not a number, `1.0` is `1.0`, `yes` is `yes`, a
map or list is compact JSON, and only `null`, `~` and nothing are no value. Keys of the document match in any case.

Stricter than Dapr, on purpose: a bad `initTimeout`, `ignoreErrors` or reference is an error and not a default, a denied
`envRef` is an error, two components of one name are an error only when both are in scope. Values that come from
secret stores or the environment are used as they are, without Go's unquoting and without template tags.

Nothing here waits for anything but the disk; call it off the event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ._documents import COMPONENT_API, Decoder
from ._manifest import (
    DEFAULT_INIT_TIMEOUT,
    Document,
    Manifest,
    MetadataItem,
    Resolution,
    SecretRef,
    expand_tags,
    resolve_env,
)
from ._yaml import parse_yaml
from .errors import ManifestError, Problem

__all__ = [
    "COMPONENT_API",
    "DEFAULT_INIT_TIMEOUT",
    "MAX_FILE_BYTES",
    "Document",
    "Manifest",
    "Manifests",
    "MetadataItem",
    "Resolution",
    "SecretRef",
    "expand_tags",
    "load_manifests",
    "parse_manifests",
    "read_manifests",
    "resolve_env",
]

MAX_FILE_BYTES = 1 << 20
"""Largest component file, 1 MiB. A larger one is refused before it is read."""

Source = str | os.PathLike[str] | Manifest
"""A component file, a folder of them, or a manifest made in code."""


@dataclass(slots=True)
class Manifests:
    """What component files hold, in the order of files and documents.

    `components` are those in scope without an error; of two with one name, the first. `others` are documents of other
    kinds, whatever their scope. `problems` holds errors and warnings.
    """

    components: list[Manifest] = field(default_factory=list)
    others: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """The problems that are not warnings."""
        return [problem for problem in self.problems if not problem.warning]

    @property
    def warnings(self) -> list[Problem]:
        """The problems that make nothing unusable."""
        return [problem for problem in self.problems if problem.warning]


def load_manifests(
    source: Source | Iterable[Source], *, app_id: str | None = None, namespace: str | None = None
) -> Manifests:
    """Read component files and return everything that is right with them and everything that is wrong.

    `source` is a file of any name, a folder, a manifest, or several of these. Of a folder the files ending in `.yaml`
    or `.yml` (in any case) are read in the order of their names, without folders inside it. With `app_id`, components
    whose scopes leave it out are skipped; with `namespace`, those that name another one. Never raises for what is on
    disk: it is all in `problems`.
    """
    loaded = Manifests()
    for one in [source] if isinstance(source, (str, os.PathLike, Manifest)) else source:
        if isinstance(one, Manifest):
            if one.in_scope(app_id, namespace):
                loaded.components.append(one)
        else:
            for path in _files(Path(one), loaded.problems):
                text = _read(path, loaded.problems)
                if text is not None:
                    _parse(loaded, text, str(path), app_id, namespace)
    _find_duplicates(loaded)
    return loaded


def parse_manifests(
    text: str, *, file: str | None = None, app_id: str | None = None, namespace: str | None = None
) -> Manifests:
    """Read YAML text as `load_manifests` reads a file. `file` is the name that problems give."""
    loaded = Manifests()
    _parse(loaded, text, file, app_id, namespace)
    _find_duplicates(loaded)
    return loaded


def read_manifests(
    source: Source | Iterable[Source], *, app_id: str | None = None, namespace: str | None = None
) -> Manifests:
    """Read component files as `load_manifests` does, and raise one `ManifestError` if anything is wrong.

    Warnings do not raise; they are in `problems` of the result and of the error.
    """
    loaded = load_manifests(source, app_id=app_id, namespace=namespace)
    if errors := loaded.errors:
        lines = [str(problem) for problem in errors]
        text = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems in component files:", *lines])
        raise ManifestError(text, problems=loaded.problems)
    return loaded


def _files(path: Path, problems: list[Problem]) -> Iterator[Path]:
    try:
        if not path.is_dir():
            yield path
            return
        found = sorted(
            (entry for entry in path.iterdir() if entry.suffix.lower() in (".yaml", ".yml") and not entry.is_dir()),
            key=lambda entry: entry.name,
        )
    except (OSError, ValueError) as exc:
        problems.append(Problem(f"the folder cannot be read: {_reason(exc)}", file=str(path)))
        return
    if not found:
        problems.append(Problem("the folder has no file ending in .yaml or .yml", file=str(path), warning=True))
    yield from found


def _read(path: Path, problems: list[Problem]) -> str | None:
    problem = ""
    try:
        if path.exists() and not path.is_file():
            problem = "is not a regular file"
        else:
            with path.open("rb") as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
            if len(content) <= MAX_FILE_BYTES:
                return content.decode("utf-8-sig")
            problem = f"is larger than {MAX_FILE_BYTES} bytes"
    except UnicodeDecodeError as exc:
        problem = f"is not UTF-8: byte {exc.start + 1} cannot be read; save it as UTF-8"
    except FileNotFoundError:
        problem = "does not exist"
    except (OSError, ValueError) as exc:
        problem = f"the file cannot be read: {_reason(exc)}"
    problems.append(Problem(problem, file=str(path)))
    return None


def _reason(exc: OSError | ValueError) -> str:
    return exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)


def _parse(loaded: Manifests, text: str, file: str | None, app_id: str | None, namespace: str | None) -> None:
    nodes, problems = parse_yaml(text, file)
    if not nodes and not problems:
        problems.append(Problem("is empty: it has no YAML document", file=file))
    decoder = Decoder(file, app_id, namespace)
    for node in nodes:
        found = decoder.decode(node)
        if isinstance(found, Manifest):
            loaded.components.append(found)
        elif found is not None:
            loaded.others.append(found)
    loaded.problems += sorted([*problems, *decoder.problems], key=lambda problem: problem.line or 0)


def _find_duplicates(loaded: Manifests) -> None:
    first: dict[str, Manifest] = {}
    for manifest in loaded.components:
        other = first.setdefault(manifest.name, manifest)
        if other is not manifest:
            message = f"the name is taken already by {_place(other)}; component names are unique over all types"
            loaded.problems.append(Problem(message, None, manifest.name, manifest.file, manifest.line))
    loaded.components = list(first.values())


def _place(manifest: Manifest) -> str:
    where = f" in {manifest.file}:{manifest.line}" if manifest.file else ""
    return f"the {manifest.type}{where}"
