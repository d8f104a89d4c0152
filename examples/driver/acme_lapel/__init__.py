"""State in a folder, one file for each key."""

from lapel.descriptor import Capability, Descriptor, Kind, Limits

__all__ = ["STATE"]

STATE = Descriptor(
    kind=Kind.STATE,
    name="acme.folder",
    driver="acme_lapel.driver:FolderState",
    settings="acme_lapel.settings:FolderStateSettings",
    summary="Keys and values in a folder, one file each.",
    capabilities=Capability.ETAG,
    limits=Limits(key_bytes=1024),
    distribution="acme-lapel",
)
