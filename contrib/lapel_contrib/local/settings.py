"""Settings of the components that work on this machine: files and environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from lapel.bindings.settings import BindingSettings
from lapel.settings import Settings, setting

__all__ = [
    "EnvSecretsSettings",
    "FileConfigurationSettings",
    "FileSecretsSettings",
    "LocalCryptoSettings",
    "LocalStorageSettings",
    "forbidden_root",
]


class EnvSecretsSettings(Settings):
    """Settings of secretstores.local.env."""

    prefix: str = setting(
        "prefix", default="", doc="Put before every name looked up, and taken off the names listed.", example="MYAPP_"
    )


class FileSecretsSettings(Settings):
    """Settings of secretstores.local.file."""

    secrets_file: Path = setting(
        "secretsFile", doc="The JSON file. A relative path starts at the working directory.", example="secrets.json"
    )
    nested_separator: str = setting(
        "nestedSeparator", default=":", doc="What joins the names of nested objects and the indexes of lists."
    )
    multi_valued: bool = setting(
        "multiValued",
        default=False,
        doc="Make each entry at the top of the file one secret with several fields, instead of each leaf one secret.",
    )


class FileConfigurationSettings(Settings):
    """Settings of configuration.local.file."""

    path: Path = setting(
        "path",
        doc="The YAML file, or JSON file if it ends in `.json`: a mapping of keys to values, or to mappings of "
        "`value`, `version` and `metadata`. A relative path starts at the working directory.",
        example="settings.yaml",
    )


class LocalCryptoSettings(Settings):
    """Settings of crypto.dapr.localstorage."""

    path: Path = setting("path", doc="The folder of key files; it must exist.", example="keys")


class LocalStorageSettings(BindingSettings):
    """Settings of bindings.localstorage."""

    offered_directions: ClassVar[tuple[str, ...]] = ("output",)

    root_path: Path = setting(
        "rootPath",
        doc="The folder that holds the files, created if it is missing; nothing outside it is reached. A relative path "
        "starts at the working directory.",
        example="/var/lib/myapp/files",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Refuse the folders of the system in which files are not plain files, or are secret."""
        yield from super().check()
        if forbidden_root(os.path.normpath(self.root_path)):
            yield "rootPath", "/proc, /sys, /boot and /var/run/secrets are not allowed; choose another folder"


def forbidden_root(path: str) -> bool:
    """Tell whether an absolute path is or lies in a folder that must not be served."""
    forbidden = ("/proc", "/sys", "/boot", "/var/run/secrets", "/run/secrets")
    return any(path == root or path.startswith(f"{root}/") for root in forbidden)
