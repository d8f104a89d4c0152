"""Settings of every component on Google Cloud: which project, as whom, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from lapel.settings import Secret, Settings, setting

__all__ = ["Access", "GcpSettings", "checked_endpoint"]

_UNUSED = "Part of the key file. It is handed on with the rest; Google's library asks for nothing in it."


@dataclass(frozen=True, slots=True)
class Access:
    """What a client is made of. Components with equal access share one.

    `key` is a service account's key file as pairs of names and values, or None for Application Default Credentials.
    `endpoint` is an address in place of Google's, or None. One of plain HTTP is an emulator: no token is sent there.
    """

    project: str
    key: tuple[tuple[str, str | Secret], ...] | None = None
    endpoint: str | None = None

    @property
    def anonymous(self) -> bool:
        """Whether requests go out without a token, because the endpoint is an emulator."""
        return self.endpoint is not None and self.endpoint.startswith("http://")

    def key_file(self) -> dict[str, str] | None:
        """Return the key file with its private key in the open, to be handed to the client and not kept."""
        if self.key is None:
            return None
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in self.key}


class GcpSettings(Settings):
    """Fields of every Google Cloud component.

    With `privateKeyID` the fields of a service account's key file are the identity. Without, Application Default
    Credentials are: `GOOGLE_APPLICATION_CREDENTIALS`, the user's own, or the machine's or workload's identity.
    """

    project_id: str = setting(
        "projectID", aliases=("project_id",), doc="Id of the project, not its number or name.", example="my-project-123"
    )
    type: str | None = setting(
        "type",
        default=None,
        choices=("service_account",),
        doc="Kind of the key file; only `service_account`. Required with `privateKeyID`.",
    )
    private_key_id: str | None = setting(
        "privateKeyID",
        aliases=("private_key_id",),
        default=None,
        doc="Id of the service account's key. Application Default Credentials are used if not given.",
    )
    private_key: Secret | None = setting(
        "privateKey",
        aliases=("private_key",),
        default=None,
        doc="The key as PEM text; its line ends may be written as `\\n`. Required with `privateKeyID`.",
    )
    client_email: str | None = setting(
        "clientEmail",
        aliases=("client_email",),
        default=None,
        doc="Name of the service account. Required with `privateKeyID`.",
    )
    client_id: str | None = setting("clientID", aliases=("client_id",), default=None, doc=_UNUSED)
    auth_uri: str | None = setting("authURI", aliases=("auth_uri",), default=None, doc=_UNUSED)
    token_uri: str = setting(
        "tokenURI",
        aliases=("token_uri",),
        default="https://oauth2.googleapis.com/token",
        doc="Where the key is exchanged for tokens.",
    )
    auth_provider_cert_url: str | None = setting(
        "authProviderX509CertURL", aliases=("auth_provider_x509_cert_url",), default=None, doc=_UNUSED
    )
    client_cert_url: str | None = setting(
        "clientX509CertURL", aliases=("client_x509_cert_url",), default=None, doc=_UNUSED
    )
    endpoint: str | None = setting(
        "endpoint",
        default=None,
        doc="`scheme://host:port` of a private or regional endpoint (https), or of an emulator (http, to which no "
        "credentials are sent). Google's public endpoint if not given.",
        example="http://localhost:4443",
    )

    def access(self) -> Access:
        """Return what a client is made of."""
        return Access(self.project_id, self._key(), checked_endpoint(self.endpoint) if self.endpoint else None)

    def _key(self) -> tuple[tuple[str, str | Secret], ...] | None:
        if self.private_key_id is None or self.private_key is None:
            return None
        fields: dict[str, str | Secret | None] = {
            "type": self.type,
            "project_id": self.project_id,
            "private_key_id": self.private_key_id,
            "private_key": Secret(_pem(self.private_key)),
            "client_email": self.client_email,
            "client_id": self.client_id,
            "auth_uri": self.auth_uri,
            "token_uri": self.token_uri,
            "auth_provider_x509_cert_url": self.auth_provider_cert_url,
            "client_x509_cert_url": self.client_cert_url,
        }
        return tuple((name, value) for name, value in fields.items() if value is not None)

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields taken together."""
        yield from super().check()
        if self.private_key_id is None:
            for name, value in (("privateKey", self.private_key), ("clientEmail", self.client_email)):
                if value is not None:
                    yield "privateKeyID", f"is missing: without it {name} has no effect and default credentials count"
        else:
            needed = (("type", self.type), ("privateKey", self.private_key), ("clientEmail", self.client_email))
            for name, value in needed:
                if value is None:
                    yield name, "is required with privateKeyID"
        if self.private_key is not None and not _is_pem(_pem(self.private_key)):
            yield "privateKey", "is not PEM text: it must begin with -----BEGIN PRIVATE KEY----- and be complete"
        if self.endpoint is not None:
            try:
                checked_endpoint(self.endpoint)
            except ValueError as exc:
                yield "endpoint", str(exc)


def checked_endpoint(text: str) -> str:
    """Return `scheme://host[:port]` without a slash at the end. Raises `ValueError` for anything else."""
    parts = urlsplit(text.rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query or parts.fragment:
        raise ValueError("must be http:// or https://, a host and perhaps a port, and nothing else")
    if parts.username is not None:
        raise ValueError("must not hold a user or password")
    _ = parts.port  # raises for a port that is none
    return f"{parts.scheme}://{parts.netloc}"


def _pem(key: Secret) -> str:
    """Return the key with real line ends: files and environments often hold it as it stands in JSON."""
    return key.reveal().strip().strip('"').replace("\\r", "").replace("\\n", "\n").strip() + "\n"


def _is_pem(text: str) -> bool:
    lines = text.strip().splitlines()
    return len(lines) > 2 and lines[0].endswith("PRIVATE KEY-----") and lines[-1].endswith("PRIVATE KEY-----")
