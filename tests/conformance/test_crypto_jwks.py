"""Cryptography with a key set."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from lapel.testing import CryptoSuite

COMPONENTS = Path(__file__).parent / "components"


def make_keys() -> list[dict[str, Any]]:
    """Make the keys that the component file names."""
    rsa, ed = RSAKey.generate_key(2048), OKPKey.generate_key("Ed25519")
    curves = {f"p{curve[2:]}": ECKey.generate_key(curve) for curve in ("P-256", "P-384", "P-521")}
    keys: list[dict[str, Any]] = [
        {"kty": "oct", "kid": f"symmetric-{size}", "k": urlsafe_b64encode(os.urandom(size)).decode().rstrip("=")}
        for size in (16, 24, 32, 48, 64)
    ]
    keys += [{**key.as_dict(private=True), "kid": name} for name, key in curves.items()]
    keys += [{**rsa.as_dict(private=True), "kid": "rsa"}, {**ed.as_dict(private=True), "kid": "ed25519"}]
    public = rsa.as_dict(private=False)
    keys += [{**public, "kid": "rsa-public", "alg": "RSA-OAEP"}, {**public, "kid": "rsa-verify", "use": "sig"}]
    keys += [{**curves["p256"].as_dict(private=False), "kid": "p256-public"}]
    return [*keys, {**ed.as_dict(private=False), "kid": "ed25519-public"}]


class TestJwks(CryptoSuite):
    component = COMPONENTS / "crypto.dapr.jwks.yaml"

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("crypto")
        (folder / "keys.json").touch(mode=0o600)
        (folder / "keys.json").write_text(json.dumps({"keys": make_keys()}))
        return folder
