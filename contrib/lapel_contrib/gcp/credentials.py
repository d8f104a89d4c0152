"""Who a client is. Everything here may block (files, the metadata server) and is meant for threads."""

from __future__ import annotations

from collections.abc import Sequence

import google.auth
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.oauth2 import service_account

from lapel.errors import ConfigurationError, UnavailableError

from .settings import Access

__all__ = ["Identity", "load_identity"]


class Identity:
    """`requests` goes with every request; `signer` is what can sign for the same account, or None."""

    def __init__(self, requests: Credentials, signer: Credentials | None) -> None:
        self.requests = requests
        self.signer = signer


def load_identity(access: Access, scopes: Sequence[str]) -> Identity:
    """Find the credentials. Raises `ConfigurationError` for a key that is none, and when there are none at all."""
    key = access.key_file()
    if key is None and access.anonymous:
        return Identity(AnonymousCredentials(), None)
    if key is None:
        try:
            found, _ = google.auth.default(scopes=scopes)
        except DefaultCredentialsError:
            raise ConfigurationError(
                "there are no Application Default Credentials here; give privateKeyID, privateKey, clientEmail and "
                "type, or set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run with a workload's identity"
            ) from None
        except GoogleAuthError as exc:
            raise UnavailableError(f"looking for credentials failed: {type(exc).__name__}") from None
        return Identity(found, found)
    try:
        account = service_account.Credentials.from_service_account_info(key, scopes=scopes)
    except (ValueError, TypeError):
        # The parser's error may quote the key.
        raise ConfigurationError(
            "privateKey cannot be read as an RSA key in PEM form; copy `private_key` of the key file as it is"
        ) from None
    return Identity(AnonymousCredentials() if access.anonymous else account, account)
