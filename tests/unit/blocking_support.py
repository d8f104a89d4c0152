"""Components of every kind, opened by the synchronous facade."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lapel import blocking


def write_component(folder: Path, name: str, type: str, **fields: object) -> None:
    metadata = [{"name": field, "value": str(value)} for field, value in fields.items()]
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"type": type, "version": "v1", "metadata": metadata},
    }
    folder.joinpath(f"{name}.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """Component files of all kinds."""
    folder, keys = tmp_path / "resources", tmp_path / "keys"
    folder.mkdir()
    keys.mkdir(mode=0o700)
    for name, content in {
        "aes": base64.b64encode(os.urandom(32)),
        "ed.pem": ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }.items():
        (keys / name).touch(mode=0o600)
        (keys / name).write_bytes(content)
    (tmp_path / "secrets.json").write_text(json.dumps({"db": {"password": "s3"}}))
    (tmp_path / "settings.yaml").write_text("theme: light\n")
    write_component(folder, "memory", "state.in-memory")
    write_component(folder, "sqlite", "state.sqlite", connectionString=tmp_path / "state.db")
    write_component(folder, "bus", "pubsub.in-memory")
    write_component(folder, "queue", "pubsub.sqlite", connectionString=tmp_path / "bus.db")
    write_component(folder, "files", "bindings.localstorage", rootPath=tmp_path / "files")
    write_component(folder, "clock", "bindings.cron", schedule="@every 1s")
    write_component(folder, "secrets", "secretstores.local.file", secretsFile=tmp_path / "secrets.json")
    write_component(folder, "settings", "configuration.local.file", path=tmp_path / "settings.yaml")
    write_component(folder, "locks", "lock.in-memory")
    write_component(folder, "keys", "crypto.dapr.localstorage", path=keys)
    return folder


@pytest.fixture
def components(resources: Path) -> Iterator[blocking.Components]:
    with blocking.open_components(resources) as opened:
        yield opened


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
