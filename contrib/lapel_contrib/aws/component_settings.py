"""Settings of the AWS components other than pub/sub."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

from lapel.bindings.settings import BindingSettings
from lapel.settings import setting

from .options import AwsOptions
from .settings import AwsSettings

__all__ = ["ParameterStoreSettings", "S3BindingSettings", "SecretManagerSettings", "SqsBindingSettings"]

LONGEST_SIGNATURE = timedelta(days=7)


class SqsBindingSettings(AwsSettings, BindingSettings):
    """Settings of bindings.aws.sqs."""

    queue: str = setting(
        "queueName",
        doc="Name of the queue, which must exist. A name that ends in `.fifo` is that of a FIFO queue.",
        pattern=r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo",
        example="orders",
    )


class S3BindingSettings(AwsSettings, BindingSettings):
    """Settings of bindings.aws.s3."""

    offered_directions: ClassVar[tuple[str, ...]] = ("output",)

    bucket: str = setting("bucket", doc="Name of the bucket, which must exist.", example="invoices")
    force_path_style: bool | None = setting(
        "forcePathStyle",
        default=None,
        doc="Put the bucket into the path of URLs and not into the host's name. `false` does the opposite also for an "
        "`endpoint`; if not given, that depends on the endpoint.",
    )
    disable_ssl: bool = setting(
        "disableSSL", default=False, doc="Use `http://` for an `endpoint` that is written without a scheme."
    )
    insecure_ssl: bool = setting(
        "insecureSSL",
        default=False,
        doc="Accept any certificate. Whoever can answer in place of the service can read everything.",
    )
    decode_base64: bool = setting(
        "decodeBase64", default=False, doc="What is created is Base64 text; store what it stands for."
    )
    encode_base64: bool = setting("encodeBase64", default=False, doc="Return what is read as Base64 text.")
    file_path: str | None = setting(
        "filePath", default=None, doc="File to create objects from that come without data. Usually request metadata."
    )
    presign_ttl: timedelta | None = setting(
        "presignTTL",
        default=None,
        minimum=timedelta(seconds=1),
        maximum=LONGEST_SIGNATURE,
        doc="How long signed URLs are valid; with it, `create` returns one. Usually request metadata.",
        example="15m",
    )
    storage_class: str | None = setting(
        "storageClass", default=None, doc="Storage class of new objects. Usually request metadata.", example="STANDARD"
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield a bucket that is none."""
        yield from super().check()
        if "/" in self.bucket or not self.bucket.isprintable() or " " in self.bucket:
            yield "bucket", "is not the name of a bucket"

    def options(self) -> AwsOptions:
        return replace(super().options(), path_style=self.force_path_style, verify=not self.insecure_ssl)

    def _with_scheme(self, endpoint: str) -> str:
        if "://" in endpoint:
            return endpoint
        return f"{'http' if self.disable_ssl else 'https'}://{endpoint}"


class SecretManagerSettings(AwsSettings):
    """Settings of secretstores.aws.secretmanager."""

    multiple: bool = setting(
        "multipleKeyValuesPerSecret",
        default=False,
        doc="A secret that is a JSON object has a field for each of its members. Members that are not text are JSON.",
    )


class ParameterStoreSettings(AwsSettings):
    """Settings of secretstores.aws.parameterstore."""

    prefix: str = setting(
        "prefix", default="", doc="Put in front of every name as it is, and left out of the names in replies."
    )
