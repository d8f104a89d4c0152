"""What is known of an object, under the names that Dapr's users know: those of Go's library, in JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.cloud.storage import Blob

__all__ = ["attributes", "prefix_attributes"]

_NEVER = "0001-01-01T00:00:00Z"
_EMPTY: Mapping[str, Any] = {
    "Bucket": "",
    "Name": "",
    "ContentType": "",
    "ContentLanguage": "",
    "CacheControl": "",
    "EventBasedHold": False,
    "TemporaryHold": False,
    "RetentionExpirationTime": _NEVER,
    # Only a request that asks for them gets access rules and owner.
    "ACL": None,
    "PredefinedACL": "",
    "Owner": "",
    "Size": 0,
    "ContentEncoding": "",
    "ContentDisposition": "",
    "MD5": None,
    "CRC32C": 0,
    "MediaLink": "",
    "Metadata": None,
    "Generation": 0,
    "Metageneration": 0,
    "StorageClass": "",
    "Created": _NEVER,
    "Finalized": _NEVER,
    "Deleted": _NEVER,
    "Updated": _NEVER,
    "CustomerKeySHA256": "",
    "KMSKeyName": "",
    "Prefix": "",
    "Etag": "",
    "CustomTime": _NEVER,
    "ComponentCount": 0,
    "Retention": None,
    "SoftDeleteTime": _NEVER,
    "HardDeleteTime": _NEVER,
}


def attributes(blob: Blob) -> dict[str, Any]:
    """Return the attributes of an object as they came with it."""
    known = {
        "Bucket": blob.bucket.name,
        "Name": blob.name,
        "ContentType": blob.content_type,
        "ContentLanguage": blob.content_language,
        "CacheControl": blob.cache_control,
        "EventBasedHold": blob.event_based_hold,
        "TemporaryHold": blob.temporary_hold,
        "RetentionExpirationTime": _time(blob.retention_expiration_time),
        "Size": blob.size,
        "ContentEncoding": blob.content_encoding,
        "ContentDisposition": blob.content_disposition,
        "MD5": blob.md5_hash,
        "CRC32C": _number(blob.crc32c),
        "MediaLink": blob.media_link,
        "Metadata": blob.metadata,
        "Generation": blob.generation,
        "Metageneration": blob.metageneration,
        "StorageClass": blob.storage_class,
        "Created": _time(blob.time_created),
        "Deleted": _time(blob.time_deleted),
        "Updated": _time(blob.updated),
        "KMSKeyName": blob.kms_key_name,
        "Etag": blob.etag,
        "CustomTime": _time(blob.custom_time),
        "ComponentCount": blob.component_count,
        "SoftDeleteTime": _time(blob.soft_delete_time),
        "HardDeleteTime": _time(blob.hard_delete_time),
    }
    return {**_EMPTY, **{name: value for name, value in known.items() if value is not None}}


def prefix_attributes(prefix: str) -> dict[str, Any]:
    """Return what stands in a listing for all objects below a prefix."""
    return {**_EMPTY, "Prefix": prefix}


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{moment.microsecond:06}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def _number(crc32c: str | None) -> int | None:
    return None if not crc32c else int.from_bytes(base64.b64decode(crc32c), "big")
