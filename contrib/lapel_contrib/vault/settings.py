"""Settings of the Vault components."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from lapel.settings import Secret, Settings, setting

from .options import AppRole, GivenToken, Kubernetes, LoginOptions, TokenFile, VaultOptions

__all__ = ["VaultConnectionSettings", "VaultCryptoSettings", "VaultSecretsSettings"]

_DEFAULT_CALL_SECONDS = 5.0
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_OURS = "Not one of Dapr's fields. "


class VaultConnectionSettings(Settings):
    """Fields of every Vault component: where the server is, how to trust it, how to log in.

    Exactly one way to log in must be given: `vaultToken`, `vaultTokenMountPath`, `vaultAppRoleID` or
    `vaultKubernetesRole`. A token that can be renewed is renewed before it expires; the log-ins are repeated.
    """

    address: str = setting(
        "vaultAddr",
        default="https://127.0.0.1:8200",
        doc="Address of the server: `https://host:port`, or `http://` without encryption.",
        example="https://vault.example.com:8200",
    )
    token: Secret | None = setting("vaultToken", default=None, doc="The token to use.")
    token_file: Path | None = setting(
        "vaultTokenMountPath",
        default=None,
        doc="File that holds the token. It is read again when it changes; space around the token is dropped.",
        example="/var/run/vault/token",
    )
    role_id: Secret | None = setting(
        "vaultAppRoleID", default=None, doc=_OURS + "Log in with AppRole: the id of the role."
    )
    secret_id: Secret | None = setting(
        "vaultAppRoleSecretID",
        default=None,
        doc=_OURS + "The secret id of the AppRole; not for roles that are bound without one.",
    )
    approle_mount: str = setting(
        "vaultAppRolePath", default="approle", doc=_OURS + "Where the AppRole auth method is mounted."
    )
    kubernetes_role: str | None = setting(
        "vaultKubernetesRole",
        default=None,
        doc=_OURS + "Log in with the service account of the pod: the role at the Kubernetes auth method.",
    )
    kubernetes_token_file: Path = setting(
        "vaultKubernetesTokenPath",
        default=Path(_SERVICE_ACCOUNT),
        doc=_OURS + "File that holds the token of the service account. It is read for every log-in.",
    )
    kubernetes_mount: str = setting(
        "vaultKubernetesPath", default="kubernetes", doc=_OURS + "Where the Kubernetes auth method is mounted."
    )
    vault_namespace: str | None = setting(
        "vaultNamespace",
        default=None,
        doc=_OURS + "Namespace of engines and auth methods, in Vault Enterprise, HCP Vault and OpenBao.",
    )
    ca_pem: str | None = setting(
        "caPem",
        default=None,
        doc="Certificates of the authorities to trust, as PEM text. Without caPem, caPath and caCert those of the "
        "system are trusted; the first of the three that is given counts.",
    )
    ca_folder: Path | None = setting(
        "caPath", default=None, doc="Folder whose files, all of them, are certificates of authorities to trust."
    )
    ca_file: Path | None = setting(
        "caCert", default=None, doc="File with the certificates of the authorities to trust, as PEM."
    )
    skip_verify: bool = setting(
        "skipVerify",
        default=False,
        doc="Accept any certificate of the server. Whoever can answer in its place gets the token.",
    )
    server_name: str | None = setting(
        "tlsServerName",
        default=None,
        doc="The name that the certificate must be for, where it is not the host of vaultAddr. Without meaning when "
        "skipVerify is true.",
    )
    request_timeout: timedelta = setting(
        "requestTimeout",
        default=timedelta(seconds=3),
        minimum=timedelta(milliseconds=1),
        doc=_OURS + "How long the server may take to accept a connection, and then to answer.",
    )
    pool_size: int = setting(
        "poolSize",
        default=4,
        minimum=1,
        maximum=200,
        doc=_OURS
        + "Most requests under way at a time, each on a connection and a thread of its own. More of them help "
        "with a server far away, and hold up the event loop more often.",
    )

    def options(self) -> VaultOptions:
        """Return what a client is made of. Components with equal options share one."""
        return VaultOptions(
            address=self.address.rstrip("/"),
            login=self._login(),
            namespace=None if self.vault_namespace is None else self.vault_namespace.strip("/") or None,
            ca_pem=self.ca_pem,
            ca_folder=self.ca_folder if self.ca_pem is None else None,
            ca_file=self.ca_file if self.ca_pem is None and self.ca_folder is None else None,
            skip_verify=self.skip_verify,
            server_name=None if self.skip_verify else self.server_name,
            timeout=self.request_timeout.total_seconds(),
            pool_size=self.pool_size,
        )

    @property
    def call_timeout(self) -> float | None:
        """The deadline of a call in seconds: a second more than requestTimeout where that exceeds 5 s."""
        seconds = self.request_timeout.total_seconds() + 1.0
        return seconds if seconds > _DEFAULT_CALL_SECONDS else None

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields taken together."""
        yield from super().check()
        yield from self._check_login()
        yield from _check_address(self.address)
        if self.address.lower().startswith("http:"):
            for name, value in (
                ("caPem", self.ca_pem),
                ("caPath", self.ca_folder),
                ("caCert", self.ca_file),
                ("tlsServerName", self.server_name),
            ):
                if value is not None:
                    yield name, "has no effect, because vaultAddr is http and not https"

    def _check_login(self) -> Iterable[tuple[str, str]]:
        ways = {
            "vaultToken": self.token,
            "vaultTokenMountPath": self.token_file,
            "vaultAppRoleID": self.role_id,
            "vaultKubernetesRole": self.kubernetes_role,
        }
        given = [name for name, value in ways.items() if value is not None]
        if not given:
            yield "vaultToken", f"is missing: give one of {', '.join(ways)}"
        elif len(given) > 1:
            yield given[1], f"cannot be given together with {given[0]}; there is one way to log in"
        if self.secret_id is not None and self.role_id is None:
            yield "vaultAppRoleID", "is required with vaultAppRoleSecretID"

    def _login(self) -> LoginOptions:
        if self.token is not None:
            return GivenToken(self.token)
        if self.token_file is not None:
            return TokenFile(self.token_file)
        if self.role_id is not None:
            return AppRole(self.approle_mount.strip("/"), self.role_id, self.secret_id)
        assert self.kubernetes_role is not None, "check() demands one of the four"
        return Kubernetes(self.kubernetes_mount.strip("/"), self.kubernetes_role, self.kubernetes_token_file)


class VaultSecretsSettings(VaultConnectionSettings):
    """Settings of secretstores.hashicorp.vault."""

    engine: str = setting("enginePath", default="secret", doc="Where the key/value engine is mounted.")
    engine_version: str = setting(
        "vaultKVVersion",
        default="2",
        choices=("2", "1"),
        doc=_OURS + "Version of the key/value engine. One of version 1 keeps no older versions of secrets.",
    )
    prefix: str = setting("vaultKVPrefix", default="dapr", doc="Folder of the engine that holds the secrets.")
    use_prefix: bool = setting("vaultKVUsePrefix", default=True, doc="False: names start at the engine itself.")
    value_type: str = setting(
        "vaultValueType",
        default="map",
        choices=("map", "text"),
        doc="`map`: the fields of a secret one by one; a value that is no text becomes JSON. `text`: one field, named "
        "like the secret, with all of it as JSON.",
    )

    @property
    def folder(self) -> str:
        """The prefix in front of all names, without slashes at its ends; empty for none."""
        return self.prefix.strip("/") if self.use_prefix else ""

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields taken together."""
        yield from super().check()
        yield from _check_path("enginePath", self.engine)
        if self.folder:
            yield from _check_path("vaultKVPrefix", self.folder)


class VaultCryptoSettings(VaultConnectionSettings):
    """Settings of crypto.hashicorp.vault, which Dapr does not have."""

    engine: str = setting("vaultTransitPath", default="transit", doc="Where the transit engine is mounted.")

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields taken together."""
        yield from super().check()
        yield from _check_path("vaultTransitPath", self.engine)


def _check_address(address: str) -> Iterable[tuple[str, str]]:
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        yield "vaultAddr", "must be like https://host:8200"
    elif any(mark in address for mark in "@?#"):
        yield "vaultAddr", "must be an address without user, query and fragment"


def _check_path(field: str, path: str) -> Iterable[tuple[str, str]]:
    if any(part in ("", ".", "..") for part in path.strip("/").split("/")):
        yield field, "must be a path of names, joined by single slashes"
