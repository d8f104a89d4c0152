"""An authority, a server certificate for the loopback names, and a client certificate, made anew for every run."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_NAMES = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


@dataclass(frozen=True)
class TlsFiles:
    """Paths of PEM files: the authority, and the certificate and key that a client shows (None: shows none)."""

    ca: Path
    cert: Path | None
    key: Path | None

    def context(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority only."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context


@dataclass(frozen=True)
class Certificates:
    """What `make_certificates` wrote: the files of a client, and of the server."""

    client: TlsFiles
    server_cert: Path
    server_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Write an authority and what it signed to the folder; valid for a day."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("lapel test authority", authority_key.public_key(), None, authority_key)
    _write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))
    # A server is a client of its peers as well: replicas, nodes of a cluster, sentinels.
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    for role, usages in (("server", both), ("client", both[1:])):
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _certificate(f"lapel test {role}", key.public_key(), (authority.subject, usages), authority_key)
        _write(folder / f"{role}.crt", signed.public_bytes(serialization.Encoding.PEM))
        _write(
            folder / f"{role}.key",
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    client = TlsFiles(folder / "ca.crt", folder / "client.crt", folder / "client.key")
    return Certificates(client, folder / "server.crt", folder / "server.key")


def _certificate(
    name: str,
    public: ec.EllipticCurvePublicKey,
    signed_by: tuple[x509.Name, list[x509.ObjectIdentifier]] | None,
    signing_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if signed_by is None else signed_by[0])
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signed_by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=signed_by is None,
                crl_sign=signed_by is None,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if signed_by is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(signed_by[1]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(_NAMES), critical=False)
    return builder.sign(signing_key, hashes.SHA256())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
