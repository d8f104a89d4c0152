"""Settings of each component on Google Cloud."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from lapel.bindings.settings import BindingSettings
from lapel.settings import setting

from .settings import GcpSettings

__all__ = ["LONGEST_SIGNATURE", "BucketSettings", "SecretManagerSettings"]

LONGEST_SIGNATURE = timedelta(days=7)
"""Google's own limit for signatures of version 4."""


class BucketSettings(GcpSettings, BindingSettings):
    """Settings of bindings.gcp.bucket.

    Where `endpoint` is not given, `STORAGE_EMULATOR_HOST` of the environment is looked at, as Google's libraries do.
    """

    bucket: str = setting("bucket", doc="Name of the bucket, which must exist.", example="my-bucket")
    decode_base64: bool = setting(
        "decodeBase64", default=False, doc="`create` stores what its data, base64 text, stands for."
    )
    encode_base64: bool = setting("encodeBase64", default=False, doc="`get` and `bulkGet` answer base64 text.")
    content_type: str | None = setting(
        "contentType", default=None, doc="Content type of created objects; application/octet-stream if not given."
    )
    sign_ttl: timedelta | None = setting(
        "signTTL",
        default=None,
        minimum=timedelta(seconds=1),
        maximum=LONGEST_SIGNATURE,
        doc="How long a signed URL is valid where a call to `sign` does not say.",
        example="15m",
    )

    offered_directions: ClassVar[tuple[str, ...]] = ("output",)


class SecretManagerSettings(GcpSettings):
    """Settings of secretstores.gcp.secretmanager."""
