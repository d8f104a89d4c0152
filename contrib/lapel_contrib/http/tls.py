"""TLS as the settings ask for it."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from lapel.errors import ConfigurationError

from .settings import HttpSettings

__all__ = ["make_context"]

_PEM = "-----BEGIN"


def make_context(settings: HttpSettings) -> ssl.SSLContext:
    """Return the context of all connections. Reads files. Raises `ConfigurationError` naming the field."""
    if settings.mtls_root_ca is None:
        context = ssl.create_default_context()
    else:
        authorities = _pem(settings.mtls_root_ca, "MTLSRootCA")
        try:
            context = ssl.create_default_context(cadata=authorities)
        except (ssl.SSLError, ValueError):
            raise ConfigurationError("the field 'MTLSRootCA' holds no certificate in PEM form") from None
    if settings.mtls_renegotiation == "RenegotiateNever":
        context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.mtls_client_cert is not None and settings.mtls_client_key is not None:
        certificate = _pem(settings.mtls_client_cert, "MTLSClientCert")
        key = _pem(settings.mtls_client_key.reveal(), "MTLSClientKey")
        _load_pair(context, certificate, key)
    return context


def _pem(text: str, field: str) -> str:
    if _PEM in text:
        return text
    try:
        content = Path(text).read_text(encoding="ascii")
    except OSError as exc:
        raise ConfigurationError(
            f"cannot read the file named by the field {field!r}: {os.strerror(exc.errno or 0)}"
        ) from None
    except ValueError:
        content = ""
    if _PEM not in content:
        raise ConfigurationError(f"the field {field!r} is neither PEM nor the path of a PEM file")
    return content


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load both from files that only this user can read and that are gone right afterwards; there is no other way."""
    with tempfile.TemporaryDirectory(prefix="lapel-") as folder:
        paths = [os.path.join(folder, name) for name in ("certificate.pem", "key.pem")]
        for path, text in zip(paths, (certificate, key), strict=True):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(text)
        try:
            # An encrypted key would otherwise ask for its password at the terminal.
            context.load_cert_chain(paths[0], paths[1], password=lambda: b"")
        except (ssl.SSLError, ValueError, OSError):
            raise ConfigurationError(
                "the fields 'MTLSClientCert' and 'MTLSClientKey' must be a certificate and its unencrypted key (PEM)"
            ) from None
