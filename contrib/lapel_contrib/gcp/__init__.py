"""Drivers for services of Google Cloud."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind, Limits

__all__ = ["BUCKET", "SECRET_MANAGER"]

BUCKET = Descriptor(
    kind=Kind.BINDINGS,
    name="gcp.bucket",
    driver="lapel_contrib.gcp.bucket:BucketBinding",
    settings="lapel_contrib.gcp.component_settings:BucketSettings",
    summary="Objects in a bucket of Google Cloud Storage, streamed in both directions.",
    capabilities=Capability.OUTPUT,
    # Google's own limits.
    limits=Limits(key_bytes=1024, value_bytes=5 * 1024**4),
    operations=("create", "get", "delete", "list", "sign", "bulkGet", "copy", "rename", "move"),
    extra="gcp",
)

SECRET_MANAGER = Descriptor(
    kind=Kind.SECRETSTORES,
    name="gcp.secretmanager",
    driver="lapel_contrib.gcp.secrets:SecretManagerStore",
    settings="lapel_contrib.gcp.component_settings:SecretManagerSettings",
    summary="Secrets in Google Cloud's Secret Manager, with versions.",
    capabilities=Capability.BULK_SECRETS | Capability.SECRET_VERSIONS,
    limits=Limits(key_bytes=255, value_bytes=64 * 1024),
    extra="gcp",
)
