"""Tokens for SASL OAUTHBEARER: the client credentials flow, with a secret or a signed assertion."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from hashlib import sha256
from typing import Any

import httpx
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import RSAKey

from lapel.errors import ConfigurationError, LapelError, PermissionDeniedError, UnavailableError

from .options import OidcOptions

__all__ = ["TokenProvider", "make_tokens"]

TIMEOUT = 4.0
"""Seconds that the token endpoint may take."""
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS = 300
_DEFAULT_LIFETIME = 300.0
_USED = 0.8
"""The share of a token's lifetime after which a new one is fetched."""


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Fetches a token when a connection needs one and keeps it for most of its lifetime.

    `failure` is why the last attempt did not work, None when it did.
    """

    def __init__(self, options: OidcOptions, client: httpx.AsyncClient, signer: _Signer | None) -> None:
        self.failure: LapelError | None = None
        self._options = options
        self._client = client
        self._signer = signer
        self._token = ""
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        """Return a valid token. Raises the error of a lost connection, which the Kafka client can take."""
        async with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._token, lifetime = await self._fetch()
                except LapelError as exc:
                    self.failure = exc
                    raise KafkaConnectionError("no token") from None
                self.failure = None
                self._until = time.monotonic() + lifetime * _USED
            return self._token

    def extensions(self) -> dict[str, str]:
        """Return what `oidcExtensions` adds."""
        return dict(self._options.extensions)

    async def close(self) -> None:
        """Close the connection to the endpoint."""
        await self._client.aclose()

    async def _fetch(self) -> tuple[str, float]:
        options = self._options
        form = {"grant_type": "client_credentials", "scope": " ".join(options.scopes)}
        if options.resource is not None:
            form["resource"] = options.resource
        auth: httpx.BasicAuth | None = None
        if self._signer is not None:
            form |= {
                "client_id": options.client_id,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": self._signer.sign(),
            }
        elif options.secret is not None:
            auth = httpx.BasicAuth(options.client_id, options.secret.reveal())
        place = f"token endpoint {options.endpoint}"
        try:
            reply = await self._client.post(options.endpoint, data=form, auth=auth or httpx.USE_CLIENT_DEFAULT)
        except httpx.HTTPError as exc:
            raise UnavailableError(f"{place}: cannot be reached ({type(exc).__name__})") from None
        if reply.status_code in (400, 401, 403):
            raise PermissionDeniedError(
                f"{place}: answered {reply.status_code}; check oidcClientID, its secret or key, and oidcScopes"
            )
        if reply.status_code != httpx.codes.OK:
            raise UnavailableError(f"{place}: answered {reply.status_code}")
        try:
            answer: Any = reply.json()
            token, lifetime = answer["access_token"], float(answer.get("expires_in", _DEFAULT_LIFETIME))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UnavailableError(f"{place}: answered no token") from None
        if not isinstance(token, str):
            raise UnavailableError(f"{place}: answered no token")
        return token, lifetime


class _Signer:
    """Makes the assertions of one client."""

    def __init__(self, options: OidcOptions) -> None:
        assert options.assertion_key is not None
        assert options.assertion_cert is not None
        try:
            self._key = RSAKey.import_key(options.assertion_key.reveal())
        except (ValueError, TypeError):
            raise ConfigurationError("field 'oidcClientAssertionKey' is not an RSA key in PEM") from None
        try:
            certificate = x509.load_pem_x509_certificate(options.assertion_cert.encode())
        except ValueError:
            raise ConfigurationError("field 'oidcClientAssertionCert' is not a PEM certificate") from None
        digest = sha256(certificate.public_bytes(Encoding.DER)).digest()
        thumbprint = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._header = {"alg": "RS256", "typ": "JWT", "x5t#S256": thumbprint, "kid": options.kid or thumbprint}
        self._client_id = options.client_id
        self._audience = options.audience or options.endpoint

    def sign(self) -> str:
        """Return a new assertion."""
        now = int(time.time())
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._audience,
            "iat": now,
            "nbf": now,
            "exp": now + _ASSERTION_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(self._header, claims, self._key)


def make_tokens(options: OidcOptions | None) -> TokenProvider | None:
    """Return what fetches tokens, None where none are needed. Blocking: reads the system's roots.

    Raises `ConfigurationError` for a key or certificate that is none.
    """
    if options is None:
        return None
    signer = None if options.assertion_key is None else _Signer(options)
    return TokenProvider(options, httpx.AsyncClient(timeout=TIMEOUT), signer)
