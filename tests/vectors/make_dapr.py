"""Make the table of what Dapr's own code gives, and let it read what lapel makes: `python -m tests.vectors.make_dapr`.

Needs Go and a network. The program in the folder `dapr` calls Dapr's kit library (Apache-2.0).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.vectors.make import CURVES, HERE, Rows, write

from lapel.crypto.algorithms import ALGORITHMS, AlgorithmInfo
from lapel.crypto.scheme import decrypt_bytes, encrypt_bytes
from lapel_contrib.local.algorithms import SIGNATURE_ALGORITHMS, decrypt, encrypt, sign, verify
from lapel_contrib.local.keys import LocalKey, parse_key

SAMPLES = ("empty-message", "single-segment", "single-segment-no-key-name")
REFUSED = ("A128CBC-NOPAD", "A192CBC-NOPAD", "A256CBC-NOPAD")
"""What Dapr advertises and refuses."""
DOCUMENTS = (
    ("AES-GCM", 0),
    ("AES-GCM", 11),
    ("AES-GCM", 65_537),
    ("CHACHA20-POLY1305", 11),
    ("CHACHA20-POLY1305", 65_537),
)


class Dapr:
    """The program, which answers one request after the other."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, do: str, key: bytes, data: bytes, **more: bytes | str) -> dict[str, Any]:
        """Return the answer; bytes in it are decoded."""
        given: dict[str, bytes | str] = {"Key": key, "Data": data, **more}
        fields = {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in given.items()
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"Do": do, **fields}).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if answer["Error"]:
            raise RuntimeError(f"{do} {more.get('Algorithm')!r}: {answer['Error']}")
        return {name: base64.b64decode(answer[name] or "") for name in ("Data", "Tag")} | {"Valid": answer["Valid"]}

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def build(work: Path) -> Path:
    """Build the program and return it."""
    program = work / "dapr-crypto"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "dapr", check=True)
    return program


def make_key(info: AlgorithmInfo) -> bytes:
    """Return a key for the algorithm, as it would lie in a file."""
    if info.kind == "oct":
        return base64.b64encode(os.urandom(info.key_size or 0))
    material: Any = rsa.generate_private_key(65_537, 2_048)
    if info.kind == "EC":
        curves = dict(zip(("ES256", "ES384", "ES512"), CURVES.values(), strict=True))
        material = ec.generate_private_key(curves[info.name])
    elif info.kind == "OKP":
        material = ed25519.Ed25519PrivateKey.generate()
    return bytes(material.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def operations(dapr: Dapr) -> tuple[Rows, int]:
    """Return what Dapr gives for each algorithm, and how many of lapel's results Dapr has read."""
    rows: Rows = {}
    read = 0
    for name, info in ALGORITHMS.items():
        if name in REFUSED:
            continue
        file = make_key(info)
        key = parse_key(file, "key")
        for length in (16, 32, 64):
            message = os.urandom(length)
            row = {"id": f"dapr {name} {length}", "key": file.hex(), "result": "valid", "msg": message.hex()}
            if name in SIGNATURE_ALGORITHMS:
                digest = message if name == "EdDSA" else hashlib.new(f"sha{name[-3:]}", message).digest()
                row["sig"] = dapr.ask("sign", file, digest, Algorithm=name)["Data"].hex()
                assert verify(key, name, digest, bytes.fromhex(row["sig"]))
                own = sign(key, name, digest)
                assert dapr.ask("verify", file, digest, Algorithm=name, Signature=own)["Valid"]
            else:
                row |= _sealed(dapr, key, file, info, message)
            rows.setdefault(name, []).append(row)
            read += 1
    return rows, read


def _sealed(dapr: Dapr, key: LocalKey, file: bytes, info: AlgorithmInfo, message: bytes) -> dict[str, str]:
    nonce, aad = os.urandom(info.nonce_size), os.urandom(7) if info.associated_data else b""
    theirs = dapr.ask("encrypt", file, message, Algorithm=info.name, Nonce=nonce, AAD=aad)
    assert decrypt(key, info.name, theirs["Data"], nonce, theirs["Tag"], aad) == message
    data, tag = encrypt(key, info.name, message, nonce, aad)
    opened = dapr.ask("decrypt", file, data, Algorithm=info.name, Nonce=nonce, Tag=tag or b"", AAD=aad)
    assert opened["Data"] == message
    return {"iv": nonce.hex(), "aad": aad.hex(), "ct": theirs["Data"].hex(), "tag": theirs["Tag"].hex()}


def opener(file: bytes) -> Callable[[bytes, str, str], Awaitable[bytes]]:
    """Return what unwraps the key of a document with the key of a file; none is a key that is not wrapped."""

    async def unwrap(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        return decrypt(parse_key(file, "key"), algorithm, wrapped, operation="unwrapKey") if file else wrapped

    return unwrap


async def documents(dapr: Dapr, samples: Path) -> tuple[Rows, int]:
    """Return documents of Dapr, and how many of lapel's Dapr has read."""
    rows: Rows = {"document": []}
    read = 0

    def add(name: str, file: bytes, plain: bytes, document: bytes) -> None:
        row = {"id": f"dapr {name}", "key": file.hex(), "result": "valid", "msg": plain.hex(), "ct": document.hex()}
        rows["document"].append(row)

    for algorithm in ("A256KW", "RSA-OAEP-256"):
        file = make_key(ALGORITHMS[algorithm])
        for cipher, length in DOCUMENTS:
            plain = (bytes(range(256)) * 257)[:length]
            names = {"Algorithm": algorithm, "Cipher": cipher, "KeyName": "mykey"}
            theirs = dapr.ask("encryptDocument", file, plain, **names)["Data"]
            assert await decrypt_bytes(theirs, unwrap=opener(file)) == plain

            async def wrap(file_key: bytes, file: bytes = file, algorithm: str = algorithm) -> bytes:
                return encrypt(parse_key(file, "key"), algorithm, file_key, operation="wrapKey")[0]

            own = await encrypt_bytes(plain, wrap=wrap, key_name="mykey", algorithm=algorithm, cipher=cipher)
            assert dapr.ask("decryptDocument", file, own)["Data"] == plain
            read += 1
            if algorithm == "A256KW" or length == 11:
                add(f"{algorithm} {cipher} {length}", file, plain, theirs)
    for file_name in sorted(samples.glob("*.enc")):
        document = file_name.read_bytes()
        plain = await decrypt_bytes(document, unwrap=opener(b""), key_name="mykey")
        print(f"sample {file_name.stem}: {len(plain)} bytes, sha256 {hashlib.sha256(plain).hexdigest()[:16]}")
        if file_name.stem in SAMPLES:
            add(f"sample {file_name.stem}", b"", plain, document)
    return rows, read


def main() -> None:
    """Build, ask, and write the table."""
    with tempfile.TemporaryDirectory() as work:
        dapr = Dapr(build(Path(work)))
        try:
            module = ["go", "list", "-m", "-f", "{{.Dir}}", "github.com/dapr/kit"]
            kit = subprocess.run(
                module, cwd=HERE / "dapr", stdout=subprocess.PIPE, text=True, check=True
            ).stdout.strip()
            rows, read = operations(dapr)
            more, documents_read = asyncio.run(documents(dapr, Path(kit, "schemes/enc/v1/testdata")))
        finally:
            dapr.close()
    write("dapr", rows | more)
    print(f"Dapr has read {read} results of single operations and {documents_read} documents of lapel")


if __name__ == "__main__":
    main()
