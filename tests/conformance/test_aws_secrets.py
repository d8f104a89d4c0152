"""The secret stores of AWS."""

from __future__ import annotations

import pytest
from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import COMPONENTS, OnAws

from lapel.testing import SecretStoreSuite, Subject
from lapel.testing.secretstores.base import SECRETS


class Seeded(OnAws, SecretStoreSuite):  # type: ignore[misc]  # a file, not text
    __test__ = False
    backend = "aws_server"

    @pytest.fixture(autouse=True)
    def seed(self, subject: Subject) -> None:
        writer = self.writer_of(subject)
        assert writer is not None
        writer.put({name: {name: value} for name, value in SECRETS.items()})


class TestSecretManager(Seeded):
    component = COMPONENTS / "secretstores.aws.secretmanager.yaml"


class TestSecretManagerMultiple(Seeded):
    component = COMPONENTS / "secretstores.aws.secretmanager-multiple.yaml"


class TestParameterStore(Seeded):
    """Each test has a prefix of its own: the emulator cannot list names that AWS would not have taken."""

    fresh = True
    component = COMPONENTS / "secretstores.aws.parameterstore.yaml"

    def prepare(self, backend: AwsBackend, unique: str) -> dict[str, str]:
        return {"prefix": f"/conformance/{unique}/"}
