"""What a Vault client is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lapel.settings import Secret

__all__ = ["AppRole", "GivenToken", "Kubernetes", "LoginOptions", "TokenFile", "VaultOptions"]


@dataclass(frozen=True, slots=True)
class GivenToken:
    """A token from the settings."""

    token: Secret


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token in a file that somebody else keeps up to date."""

    path: Path


@dataclass(frozen=True, slots=True)
class AppRole:
    """A log-in as a role, at the auth method mounted at `mount`. A role may ask for no secret id."""

    mount: str
    role_id: Secret
    secret_id: Secret | None


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """A log-in with the token of a service account, read anew for every log-in."""

    mount: str
    role: str
    path: Path


LoginOptions = GivenToken | TokenFile | AppRole | Kubernetes


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultOptions:
    """Everything that shapes a client: components with equal options share one. Seconds for times."""

    address: str
    login: LoginOptions
    namespace: str | None
    ca_pem: str | None
    ca_folder: Path | None
    ca_file: Path | None
    skip_verify: bool
    server_name: str | None
    timeout: float
    pool_size: int
