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
