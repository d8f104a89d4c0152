"""Encrypt and decrypt documents of any length, as a stream in and out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING

from ...crypto import CryptoProvider
from ...descriptor import Kind
from ...errors import LapelError
from ..errors import HostError, reason
from ..http import Request, Response, StreamResponse
from ..routing import Handler, Route
from ..spool import spooled
from .lookup import find

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["provider_of", "routes"]

_BINARY = b"application/octet-stream"
_TRUE = frozenset({"y", "yes", "true", "t", "on", "1"})


def provider_of(host: Host, name: str) -> CryptoProvider:
    """Return the crypto component of this name, or raise what the API has for a missing one."""
    return find(
        host,
        Kind.CRYPTO,
        host.components.crypto,
        name,
        none=lambda: HostError(500, "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", "crypto providers not configured"),
        missing=lambda: HostError(400, "ERR_CRYPTO_PROVIDER_NOT_FOUND", f"crypto provider {name} not found"),
    )


def routes(host: Host) -> list[Route]:
    """Return the routes of this API. Dapr serves `v1.0-alpha1`; its documentation speaks of `v1.0` as well."""

    async def encrypt(request: Request) -> Response:
        provider = provider_of(host, request.parameters[0])
        key_name = _required(request, "dapr-key-name")
        algorithm = _required(request, "dapr-key-wrap-algorithm").upper()
        cipher = (request.header(b"dapr-data-encryption-cipher") or "aes-gcm").upper()
        omit = (request.header(b"dapr-omit-decryption-key-name") or "").lower() in _TRUE
        return _answer(
            lambda: provider.encrypt_stream(
                request.stream(),
                key_name=key_name,
                algorithm=algorithm,
                cipher=cipher,
                omit_key_name=omit,
                decryption_key_name=request.header(b"dapr-decryption-key-name") or None,
            )
        )

    async def decrypt(request: Request) -> Response:
        provider = provider_of(host, request.parameters[0])
        key_name = request.header(b"dapr-key-name") or None
        return _answer(lambda: provider.decrypt_stream(request.stream(), key_name=key_name))

    sealing = (
        "dapr-key-name",
        "dapr-key-wrap-algorithm",
        "dapr-data-encryption-cipher",
        "dapr-omit-decryption-key-name",
        "dapr-decryption-key-name",
    )

    def put(template: str, handler: Handler, summary: str, headers: tuple[str, ...]) -> Route:
        return Route(("PUT",), template, handler, "crypto", summary, "stream", listed_as="v1alpha1", headers=headers)

    return [
        route
        for version in ("v1.0-alpha1", "v1.0")
        for route in (
            put(f"/{version}/crypto/{{name}}/encrypt", encrypt, "Encrypt a document", sealing),
            put(f"/{version}/crypto/{{name}}/decrypt", decrypt, "Decrypt a document", sealing[:1]),
        )
    ]


def _required(request: Request, name: str) -> str:
    value = request.header(name.encode())
    if not value:
        raise HostError(400, "ERR_BAD_REQUEST", f"invalid request: missing header '{name}'")
    return value


def _answer(begin: Callable[[], AsyncIterator[bytes]]) -> Response:
    return StreamResponse(200, spooled(_named(begin)), _BINARY)


async def _named(begin: Callable[[], AsyncIterator[bytes]]) -> AsyncGenerator[bytes, None]:
    """Yield what `begin()` yields; its errors get the name that this API has for them."""
    try:
        async for chunk in begin():
            yield chunk
    except LapelError as exc:
        raise HostError(500, "ERR_CRYPTO", f"failed to perform operation: {reason(exc)}") from exc
