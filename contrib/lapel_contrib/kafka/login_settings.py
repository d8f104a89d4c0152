"""Fields that say how to log in, and whether to encrypt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from lapel.settings import Secret, Settings, setting

from .options import OidcOptions

__all__ = ["AUTH_TYPES", "KafkaLoginSettings", "Mechanism"]

AUTH_TYPES = ("none", "password", "mtls", "certificate", "oidc", "oidc_private_key_jwt")
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
_NO_AWS = "log-in with AWS IAM (authType awsiam) is not supported; use SCRAM or mTLS, which MSK offers as well"
_SCRAM: dict[str | None, Mechanism] = {"SHA-256": "SCRAM-SHA-256", "SHA-512": "SCRAM-SHA-512"}


def _refused(name: str, *aliases: str) -> Any:
    return setting(name, aliases=aliases, refused=_NO_AWS)


class KafkaLoginSettings(Settings):
    """How to log in at the brokers."""

    auth_type: str | None = setting(
        "authType",
        default=None,
        example="none",
        choices=(*AUTH_TYPES, "awsiam"),
        doc="How to log in. `none`: not at all and unencrypted. `password`: SASL. `mtls`: with a client certificate. "
        "`certificate`: not at all, but encrypted and with the broker's certificate verified. `oidc`: with tokens for "
        "client id and secret. `oidc_private_key_jwt`: with tokens for a signed assertion. Required. All but `none` "
        "encrypt, unless `disableTls` is set.",
    )
    auth_required: bool | None = setting(
        "authRequired",
        default=None,
        deprecated="use authType",
        doc="Without authType: true is `password` when saslPassword is given, else `mtls`; false is `none`.",
    )
    sasl_username: str | None = setting("saslUsername", default=None, doc="User name, for `password`.")
    sasl_password: Secret | None = setting("saslPassword", default=None, doc="Password, for `password`.")
    sasl_mechanism: str | None = setting(
        "saslMechanism",
        default=None,
        choices=("SHA-256", "SHA-512", "PLAIN", "PLAINTEXT"),
        doc="SCRAM with that hash, for `password`; PLAIN, PLAINTEXT, or none given, is SASL PLAIN.",
    )
    ca_cert: str | None = setting(
        "caCert", default=None, doc="Authorities that the brokers' certificates are verified against, as PEM text."
    )
    client_cert: str | None = setting("clientCert", default=None, doc="Certificate to show, as PEM text.")
    client_key: Secret | None = setting("clientKey", default=None, doc="Its private key, as PEM text.")
    skip_verify: bool = setting(
        "skipVerify",
        default=False,
        doc="Accept any certificate. Whoever can answer in a broker's place can read everything.",
    )
    disable_tls: bool = setting("disableTls", default=False, doc="Do not encrypt.")
    oidc_token_endpoint: str | None = setting("oidcTokenEndpoint", default=None, doc="URL that hands out tokens.")
    oidc_client_id: str | None = setting("oidcClientID", default=None, doc="Client id at the token endpoint.")
    oidc_client_secret: Secret | None = setting("oidcClientSecret", default=None, doc="Client secret, for `oidc`.")
    oidc_scopes: tuple[str, ...] = setting("oidcScopes", default=("openid",), doc="Scopes to ask for.")
    oidc_extensions: dict[str, str] = setting(
        "oidcExtensions", default={}, doc="Further SASL extensions to send to the broker, as a JSON object of texts."
    )
    oidc_assertion_cert: str | None = setting(
        "oidcClientAssertionCert",
        default=None,
        doc="Certificate of the assertion's key, as PEM text, for `oidc_private_key_jwt`; named by its thumbprint.",
    )
    oidc_assertion_key: Secret | None = setting(
        "oidcClientAssertionKey", default=None, doc="RSA key that signs assertions, as PEM text."
    )
    oidc_resource: str | None = setting("oidcResource", default=None, doc="`resource` to ask a token for.")
    oidc_audience: str | None = setting(
        "oidcAudience", default=None, doc="Audience of assertions; the token endpoint if not given."
    )
    oidc_kid: str | None = setting("oidcKid", default=None, doc="Key id in the header of assertions.")
    region: str | None = _refused("region", "awsRegion")
    access_key: Secret | None = _refused("accessKey", "awsAccessKey")
    secret_key: Secret | None = _refused("secretKey", "awsSecretKey")
    session_token: Secret | None = _refused("sessionToken", "awsSessionToken")
    assume_role: str | None = _refused("assumeRoleArn", "awsIamRoleArn")
    session_name: str | None = _refused("sessionName", "awsStsSessionName")
    trust_anchor: str | None = _refused("trustAnchorArn")
    trust_profile: str | None = _refused("trustProfileArn")

    @property
    def login(self) -> str:
        """The kind of log-in, also where only the older field is given."""
        if self.auth_type is not None:
            return self.auth_type
        if not self.auth_required:
            return "none"
        return "password" if self.sasl_password is not None else "mtls"

    @property
    def mechanism(self) -> Mechanism | None:
        """The SASL mechanism, None when SASL is not used."""
        if self.login == "password":
            return _SCRAM.get(self.sasl_mechanism, "PLAIN")
        return "OAUTHBEARER" if self.login.startswith("oidc") else None

    def oidc(self) -> OidcOptions | None:
        """Return where tokens come from, None when they are not used."""
        if not self.login.startswith("oidc"):
            return None
        return OidcOptions(
            endpoint=self.oidc_token_endpoint or "",
            client_id=self.oidc_client_id or "",
            scopes=self.oidc_scopes,
            secret=self.oidc_client_secret if self.login == "oidc" else None,
            assertion_cert=self.oidc_assertion_cert,
            assertion_key=self.oidc_assertion_key if self.login == "oidc_private_key_jwt" else None,
            resource=self.oidc_resource,
            audience=self.oidc_audience,
            kid=self.oidc_kid,
            extensions=tuple(sorted(self.oidc_extensions.items())),
        )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is missing for the kind of log-in, and what is given without an effect."""
        yield from super().check()
        yield from self._check_login()

    def _check_login(self) -> Iterable[tuple[str, str]]:
        login = self.login
        if self.auth_type is None and self.auth_required is None:
            yield "authType", f"is required; one of {', '.join(AUTH_TYPES)}"
            return
        if login == "awsiam":
            yield "authType", _NO_AWS
        needs: dict[str, tuple[tuple[str, object], ...]] = {
            "password": (("saslUsername", self.sasl_username), ("saslPassword", self.sasl_password)),
            "mtls": (("clientCert", self.client_cert), ("clientKey", self.client_key)),
            "certificate": (("caCert", self.ca_cert or (self.skip_verify or None)),),
            "oidc": (
                ("oidcTokenEndpoint", self.oidc_token_endpoint),
                ("oidcClientID", self.oidc_client_id),
                ("oidcClientSecret", self.oidc_client_secret),
            ),
            "oidc_private_key_jwt": (
                ("oidcTokenEndpoint", self.oidc_token_endpoint),
                ("oidcClientID", self.oidc_client_id),
                ("oidcClientAssertionCert", self.oidc_assertion_cert),
                ("oidcClientAssertionKey", self.oidc_assertion_key),
            ),
        }
        for name, value in needs.get(login, ()):
            if value is None:
                yield name, f"is required with authType {login}"
        if login == "mtls" and self.ca_cert is None and not self.skip_verify:
            yield "caCert", "is required with authType mtls, unless skipVerify is set"
        if login in ("mtls", "certificate") and self.disable_tls:
            yield "disableTls", f"cannot be true with authType {login}, which is nothing without TLS"
        if (self.client_cert is None) != (self.client_key is None):
            yield "clientKey" if self.client_key is None else "clientCert", "is missing: the two belong together"
        unencrypted = login == "none" or self.disable_tls
        given = [
            name
            for name, value in (
                ("caCert", self.ca_cert),
                ("clientCert", self.client_cert),
                ("skipVerify", self.skip_verify or None),
            )
            if value is not None
        ]
        if unencrypted and given:
            what = "authType none" if login == "none" else "disableTls"
            yield given[0], f"has no effect with {what}; use authType certificate or mtls, or remove it"
        for name, value in (("saslUsername", self.sasl_username), ("saslPassword", self.sasl_password)):
            if value is not None and login == "none":
                yield name, "has no effect with authType none; use authType password, or remove it"
