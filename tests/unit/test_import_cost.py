"""What `import lapel` and listing the catalogue may load."""

from __future__ import annotations

import json
import subprocess
import sys

SDKS = {
    "aio_pika", "aiobotocore", "aiokafka", "botocore", "confluent_kafka", "cryptography", "google.cloud", "grpc",
    "httpx", "hvac", "redis", "watchfiles",
}  # fmt: skip


def modules_after(program: str) -> set[str]:
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_lapel_loads_neither_an_sdk_nor_what_only_some_programs_need() -> None:
    loaded = modules_after("import lapel, lapel.registry")
    assert loaded & SDKS == set()
    assert loaded & {"importlib.metadata", "lapel.cli", "lapel.host", "lapel.testing", "pydantic", "stevedore"} == set()
    assert {name for name in loaded if name.startswith("lapel_contrib")} == set()


def test_listing_names_loads_no_driver_package() -> None:
    loaded = modules_after("""
import lapel
from lapel.descriptor import Kind
from lapel.registry import default_registry
assert any(default_registry().names(kind) for kind in Kind)
""")
    assert {name for name in loaded if name.startswith("lapel_contrib")} == set()
    assert "stevedore" not in loaded


def test_listing_the_catalogue_loads_descriptors_and_no_sdk() -> None:
    loaded = modules_after("""
import lapel
from lapel.registry import default_registry
entries = default_registry().entries()
assert any(entry.distribution == "lapel" and entry.descriptor for entry in entries)
""")
    assert loaded & SDKS == set()
    assert loaded & {"lapel.settings", "pydantic"} == set()
    assert {name for name in loaded if name.startswith("lapel_contrib.") and name.count(".") > 1} == set()
