"""Single operations on keys, for those who know what nonces are for."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ...crypto.provider import SubtleCrypto
from ...errors import LapelError
from ..errors import HostError, reason
from ..http import Request, Response
from ..protojson import Fields
from ..routing import Route
from .crypto import provider_of

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]

Operation = Callable[[SubtleCrypto, Fields], Awaitable[dict[str, Any]]]


def routes(host: Host) -> list[Route]:
    """Return the routes of this API."""

    def route(word: str, operation: Operation, failure: str, summary: str, *names: str) -> Route:
        async def handler(request: Request) -> Response:
            provider = provider_of(host, request.parameters[0])
            fields = Fields(request.body)
            try:
                answer = await operation(provider.subtle, fields)
            except LapelError as exc:
                # Which of the many causes it was would help an attacker more than a caller.
                raise HostError(500, "ERR_CRYPTO", failure) from exc
            return Response.json({key: _shown(value) for key, value in answer.items() if value})

        template = f"/v1.0-alpha1/subtlecrypto/{{name}}/{word}"
        accepts: dict[str, type] = dict.fromkeys(names, bytes)
        accepts |= {"name": str, "format": str} if word == "getkey" else {"algorithm": str, "keyName": str}
        return Route(("POST",), template, handler, "subtlecrypto", summary, "whole", accepts=accepts)

    sealing, opening = ("nonce", "associatedData"), ("nonce", "associatedData", "tag")
    return [
        route("getkey", _get_key, "failed to retrieve key", "Read a public key"),
        route("encrypt", _encrypt, "failed to encrypt", "Encrypt a short message", "plaintext", *sealing),
        route("decrypt", _decrypt, "failed to decrypt", "Decrypt a short message", "ciphertext", *opening),
        route("wrapkey", _wrap_key, "failed to wrap key", "Encrypt key material", "plaintextKey", *sealing),
        route("unwrapkey", _unwrap_key, "failed to unwrap key", "Decrypt key material", "wrappedKey", *opening),
        route("sign", _sign, "failed to sign", "Sign a digest", "digest"),
        route("verify", _verify, "failed to verify signature", "Check a signature", "digest", "signature"),
    ]


def _shown(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


async def _get_key(subtle: SubtleCrypto, fields: Fields) -> dict[str, Any]:
    name, form = fields.text("name"), fields.enumeration("format", ("PEM", "JSON"))
    if form is None:
        raise HostError(400, "ERR_BAD_REQUEST", "invalid request: invalid key format")
    try:
        key = await subtle.get_key(name)
    except LapelError as exc:
        raise HostError(500, "ERR_CRYPTO_KEY", f"failed to retrieve key {name}: {reason(exc)}") from exc
    return {"name": key.name, "publicKey": key.pem if form == "PEM" else msgspec.json.encode(key.jwk).decode()}


def _key_of(fields: Fields) -> dict[str, Any]:
    return {"algorithm": fields.text("algorithm"), "key_name": fields.text("keyName")}


def _nonce_of(fields: Fields) -> dict[str, Any]:
    return {"nonce": fields.data("nonce") or None, "associated_data": fields.data("associatedData") or None}


async def _encrypt(subtle: SubtleCrypto, fields: Fields) -> dict[str, Any]:
    given = _nonce_of(fields)
    sealed = await subtle.encrypt(fields.data("plaintext"), **_key_of(fields), **given)
    # Dapr's message has no nonce, for its callers bring one. One that was made here is needed to decrypt.
    return {"ciphertext": sealed.data, "tag": sealed.tag, "nonce": None if given["nonce"] else sealed.nonce}


async def _decrypt(subtle: SubtleCrypto, fields: Fields) -> dict[str, Any]:
    tag = fields.data("tag") or None
    return {
        "plaintext": await subtle.decrypt(fields.data("ciphertext"), **_key_of(fields), **_nonce_of(fields), tag=tag)
    }


async def _wrap_key(subtle: SubtleCrypto, fields: Fields) -> dict[str, Any]:
    given = _nonce_of(fields)
    wrapped = await subtle.wrap_key(fields.data("plaintextKey"), **_key_of(fields), **given)
    return {"wrappedKey": wrapped.data, "tag": wrapped.tag, "nonce": None if given["nonce"] else wrapped.nonce}


async def _unwrap_key(subtle: SubtleCrypto, fields: Fields) -> dict[str, Any]:
    tag = fields.data("tag") or None
    return {
        "plaintextKey": await subtle.unwrap_key(
            fields.data("wrappedKey"), **_key_of(fields), **_nonce_of(fields), tag=tag
        )
    }


async def _sign(subtle: SubtleCrypto, fields: Fields) -> dict[str, Any]:
    return {"signature": await subtle.sign(fields.data("digest"), **_key_of(fields))}


async def _verify(subtle: SubtleCrypto, fields: Fields) -> dict[str, Any]:
    return {"valid": await subtle.verify(fields.data("digest"), fields.data("signature"), **_key_of(fields))}
