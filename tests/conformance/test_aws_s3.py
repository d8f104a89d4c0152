"""bindings.aws.s3."""

from __future__ import annotations

from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import COMPONENTS, OnAws, client

from lapel.testing import BindingSuite


class TestObjects(OnAws, BindingSuite):
    component = COMPONENTS / "bindings.aws.s3.yaml"
    backend = "aws_server"
    fresh = True

    def prepare(self, backend: AwsBackend, unique: str) -> dict[str, str]:
        name = f"conformance-{unique}"
        client(backend, "s3").create_bucket(Bucket=name)
        return {"bucket": name}
