"""The drivers for Google Cloud, on an emulator of its storage and a stub of its Secret Manager."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from tests.backends.gcp_secrets import SecretManagerBackend
from tests.backends.gcs import GcsBackend

from lapel.testing import BindingSuite, SecretStoreSuite
from lapel.testing.secretstores.base import SECRETS
from lapel.testing.subject import Subject, read_components

COMPONENTS = Path(__file__).parent / "components"


class TestBucket(BindingSuite):
    component = COMPONENTS / "bindings.gcp.bucket.yaml"
    known: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, folder: Path, gcs_server: GcsBackend) -> Subject:
        """Return the component with the address of the emulator, the same object each time."""
        if TestBucket.known is None:
            ((manifest, pins),) = read_components(self.component, folder)
            bucket = gcs_server.make_bucket("lapel-conformance")
            TestBucket.known = Subject.from_manifest(manifest, pins).variant(
                {**gcs_server.properties, "bucket": bucket}
            )
        assert TestBucket.known is not None
        return TestBucket.known


class TestSecretManager(SecretStoreSuite):
    component = COMPONENTS / "secretstores.gcp.secretmanager.yaml"
    known: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, folder: Path, gcp_secrets: SecretManagerBackend) -> Subject:
        """Return the component with the address of the stub, the same object each time."""
        if TestSecretManager.known is None:
            ((manifest, pins),) = read_components(self.component, folder)
            TestSecretManager.known = Subject.from_manifest(manifest, pins).variant(gcp_secrets.properties)
            assert TestSecretManager.known is not None
            writer = self.writer_of(TestSecretManager.known)
            assert writer is not None
            writer.put({name: {name: value} for name, value in SECRETS.items()})
        assert TestSecretManager.known is not None
        return TestSecretManager.known
