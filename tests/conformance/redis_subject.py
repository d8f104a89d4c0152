"""What the conformance tests of all Redis drivers share."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from tests.backends.redis import RedisBackend

from lapel.testing.subject import Subject, read_components

__all__ = ["COMPONENTS", "OnRedis"]

COMPONENTS = Path(__file__).parent / "components"


class OnRedis:
    """Takes a component file and replaces the fields that say where the server is."""

    component: ClassVar[Path]
    backend: ClassVar[str]
    """The fixture of the backend."""
    _subject: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest, folder: Path) -> Subject:
        """Return the component under test, the same object each time."""
        cls = type(self)
        if cls._subject is None:
            backend: RedisBackend = request.getfixturevalue(cls.backend)
            ((manifest, pins),) = read_components(cls.component, folder)
            cls._subject = Subject.from_manifest(manifest, pins).variant(backend.properties)
        assert cls._subject is not None
        return cls._subject
