"""The suite of each kind, loaded when it is asked for."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..descriptor import Kind
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .harness import SuiteBase

__all__ = ["SUITE_PACKAGES", "suite_of", "suites_for"]

_SUITES = {
    Kind.STATE: ("state", "StateSuite"),
    Kind.PUBSUB: ("pubsub", "PubSubSuite"),
    Kind.BINDINGS: ("bindings", "BindingSuite"),
    Kind.SECRETSTORES: ("secretstores", "SecretStoreSuite"),
    Kind.CONFIGURATION: ("configuration", "ConfigurationSuite"),
    Kind.LOCK: ("lock", "LockSuite"),
    Kind.CRYPTO: ("crypto", "CryptoSuite"),
}

_YAML = (".yaml", ".yml")

SUITE_PACKAGES = tuple(f"{__package__}.{module}" for module, _ in _SUITES.values())
"""Modules whose assertions pytest rewrites."""


def suite_of(kind: Kind) -> type[SuiteBase]:
    """Return the suite of a kind."""
    module, name = _SUITES[kind]
    suite: type[SuiteBase] = getattr(import_module(f".{module}", __package__), name)
    return suite


def suites_for(path: str | os.PathLike[str]) -> dict[str, type[SuiteBase]]:
    """Return a test class for each component in a file or folder, by class name.

    Raises `ManifestError` when the files are wrong and `ConfigurationError` when they have no component.
    """
    from .subject import read_components

    whole = Path(path)
    files = sorted(file for file in whole.iterdir() if file.suffix.lower() in _YAML) if whole.is_dir() else [whole]
    classes: dict[str, type[SuiteBase]] = {}
    for file in files:
        for manifest, _ in read_components(file):
            letters = "".join(letter if letter.isalnum() else " " for letter in manifest.name)
            name = "Test" + "".join(word.capitalize() for word in letters.split())
            while name in classes:
                name += "_"
            attributes = {"component": file, "component_name": manifest.name, "__module__": "lapel_components"}
            classes[name] = type(name, (suite_of(manifest.kind),), attributes)
    if not classes:
        raise ConfigurationError(f"{path} has no component")
    return classes
