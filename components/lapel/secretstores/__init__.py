"""Secret stores: named secrets with one or several fields, read-only."""

from .driver import SecretStoreDriver
from .store import SecretStore
from .types import BulkSecretsRequest, GetSecretRequest, SecretValues

__all__ = ["BulkSecretsRequest", "GetSecretRequest", "SecretStore", "SecretStoreDriver", "SecretValues"]
