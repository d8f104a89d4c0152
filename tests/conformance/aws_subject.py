"""What the conformance tests of all AWS drivers share."""

from __future__ import annotations

import functools
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import boto3
import pytest
from tests.backends.aws import AwsBackend

from lapel.component import Component, ComponentOptions
from lapel.testing.subject import Subject, read_components

__all__ = ["COMPONENTS", "OnAws", "client"]

COMPONENTS = Path(__file__).parent / "components"
PATIENT = ComponentOptions(init_timeout=timedelta(seconds=30), call_timeout=timedelta(seconds=30))
"""For emulators: moto answers one request after another, so that two hundred calls at once take their time."""


def client(backend: AwsBackend, service: str) -> Any:
    """Return a client of the synchronous SDK, for looking and preparing behind a driver's back."""
    return _client(service, **backend.properties)


@functools.cache
def _client(service: str, **properties: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=properties["endpoint"],
        region_name=properties["region"],
        aws_access_key_id=properties["accessKey"],
        aws_secret_access_key=properties["secretKey"],
    )


class OnAws:
    """Takes a component file and replaces the fields that say where the services are."""

    component: ClassVar[Path]
    backend: ClassVar[str]
    """The fixture of the backend."""
    fresh: ClassVar[bool] = False
    """Whether each test gets what it needs anew, so that it finds nothing of others."""
    _subject: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest, folder: Path) -> Subject:
        """Return the component under test."""
        cls = type(self)
        if cls._subject is None or cls.fresh:
            backend: AwsBackend = request.getfixturevalue(cls.backend)
            ((manifest, pins),) = read_components(cls.component, folder)
            own = self.prepare(backend, uuid4().hex[:12])
            cls._subject = Subject.from_manifest(manifest, pins).variant(backend.properties | own)
        assert cls._subject is not None
        return cls._subject

    def build(self, subject: Subject, options: ComponentOptions | None = None) -> Component[Any]:
        """Return a new, unopened component."""
        made: Component[Any] = super().build(subject, options or PATIENT)  # type: ignore[misc]  # the suite's
        return made

    def prepare(self, backend: AwsBackend, unique: str) -> dict[str, str]:
        """Make what the component needs on the backend, and return the fields that name it."""
        return {}
