"""The error tables of cryptography."""

from __future__ import annotations

from tests.host.rows import Row
from tests.host.support import b64


def crypto_rows() -> list[Row]:
    rows: list[Row] = []
    key = {"dapr-key-name": "k", "dapr-key-wrap-algorithm": "A256KW"}
    rows += [
        Row(
            id=f"crypto provider missing: {path}",
            ask=("PUT", path.format("nothing")),
            content=b"x",
            headers=key,
            status=400,
            code="ERR_CRYPTO_PROVIDER_NOT_FOUND",
            message="crypto provider nothing not found",
        )
        for path in ("/v1.0-alpha1/crypto/{}/encrypt", "/v1.0-alpha1/crypto/{}/decrypt", "/v1.0/crypto/{}/encrypt")
    ]
    rows += [
        Row(
            id=f"crypto header missing: {name}",
            ask=("PUT", "/v1.0-alpha1/crypto/keys/encrypt"),
            content=b"x",
            headers={other: value for other, value in key.items() if other != name},
            status=400,
            code="ERR_BAD_REQUEST",
            message=f"invalid request: missing header '{name}'",
        )
        for name in key
    ]
    rows += [
        Row(
            id=f"crypto failed: {what}",
            ask=("PUT", f"/v1.0-alpha1/crypto/keys/{what.split()[0]}"),
            content=content,
            headers={**key, **headers},
            status=500,
            code="ERR_CRYPTO",
        )
        for what, content, headers in (
            ("encrypt with an unknown key", b"x", {"dapr-key-name": "nothing"}),
            ("encrypt with an unknown algorithm", b"x", {"dapr-key-wrap-algorithm": "A128CBC"}),
            ("encrypt with a cipher as algorithm", b"x", {"dapr-key-wrap-algorithm": "aes-gcm"}),
            ("encrypt with an unknown cipher", b"x", {"dapr-data-encryption-cipher": "rot13"}),
            ("decrypt what is no document", b"x" * 1000, {}),
            ("decrypt nothing", b"", {}),
        )
    ]
    subtle = {"algorithm": "A256GCM", "keyName": "k", "nonce": b64(b"n" * 12)}
    rows += [
        Row(
            id=f"subtle {word} failed",
            ask=("POST", f"/v1.0-alpha1/subtlecrypto/keys/{word}"),
            json={**subtle, "keyName": "nothing", "name": "nothing"},
            status=500,
            code="ERR_CRYPTO_KEY" if word == "getkey" else "ERR_CRYPTO",
            message=None if word == "getkey" else f"failed to {text}",
        )
        for word, text in (
            ("getkey", ""),
            ("encrypt", "encrypt"),
            ("decrypt", "decrypt"),
            ("wrapkey", "wrap key"),
            ("unwrapkey", "unwrap key"),
            ("sign", "sign"),
            ("verify", "verify signature"),
        )
    ]
    rows += [
        Row(
            id="subtle key format unknown",
            ask=("POST", "/v1.0-alpha1/subtlecrypto/keys/getkey"),
            json={"name": "k", "format": "DER"},
            status=400,
            code="ERR_BAD_REQUEST",
        ),
        Row(
            id="subtle not base64",
            ask=("POST", "/v1.0-alpha1/subtlecrypto/keys/encrypt"),
            json={**subtle, "plaintext": "%%%"},
            status=400,
            code="ERR_MALFORMED_REQUEST",
        ),
        Row(
            id="subtle provider missing",
            ask=("POST", "/v1.0-alpha1/subtlecrypto/nothing/encrypt"),
            json=subtle,
            status=400,
            code="ERR_CRYPTO_PROVIDER_NOT_FOUND",
        ),
    ]
    return rows
