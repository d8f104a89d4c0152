"""The compose file stays reproducible, and private to the machine that runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@every_service
def test_image_is_pinned_to_one_release(service: dict[str, Any]) -> None:
    assert re.search(r":v?\d+\.\d+(\.\d+)?[\w.-]*(@sha256:[0-9a-f]{64})?$", service["image"])


@every_service
def test_ports_are_published_on_loopback_only(service: dict[str, Any]) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


@every_service
def test_readiness_can_be_waited_for(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"]


@every_service
def test_service_starts_only_when_its_profile_is_asked_for(service: dict[str, Any]) -> None:
    assert service["profiles"]


CONFORMANCE = COMPOSE.parent / "tests" / "conformance" / "components"
REDIS_FILES = sorted(CONFORMANCE.glob("*redis*.yaml"))


@pytest.mark.parametrize("file", REDIS_FILES, ids=lambda file: file.stem)
def test_a_redis_component_file_leads_to_the_service_of_its_profile(file: Path) -> None:
    component = next(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    fields = {item["name"]: item["value"] for item in component["spec"]["metadata"]}
    shape = file.stem.rpartition(".")[2].removesuffix("-stack")
    service = SERVICES[shape]
    assert service["profiles"] == [shape]
    published = {port.split(":")[1] for port in service["ports"]}
    for host in fields["redisHost"].split(","):
        name, _, port = host.partition(":")
        assert name == "localhost"
        assert port in published
    assert not [name for name in fields if "password" in name.lower()], "the services know no passwords"
    if shape == "redis-sentinel":
        assert f"sentinel monitor {fields['sentinelMasterName']} " in service["command"][0]


def test_the_shapes_of_redis_are_all_there() -> None:
    kinds = {"state", "pubsub", "configuration", "lock", "bindings"}
    assert {file.stem for file in REDIS_FILES} >= {
        f"{kind}.redis{shape}" for kind in kinds for shape in ("", "-cluster", "-sentinel")
    }
