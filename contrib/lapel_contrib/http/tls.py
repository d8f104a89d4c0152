"""TLS as the settings ask for it."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from lapel.errors import ConfigurationError
from lapel.secret import Secret
from lapel.tls import client_context, show_certificate

from .settings import HttpSettings

__all__ = ["make_context"]

_PEM = "-----BEGIN"


def make_context(settings: HttpSettings) -> ssl.SSLContext:
    """Return the context of all connections. Reads files. Raises `ConfigurationError` naming the field."""
    root = settings.mtls_root_ca
    context = client_context(None if root is None else _pem(root, "MTLSRootCA"), field="MTLSRootCA")
    if settings.mtls_renegotiation == "RenegotiateNever":
        context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.mtls_client_cert is not None and settings.mtls_client_key is not None:
        certificate = _pem(settings.mtls_client_cert, "MTLSClientCert")
        key = Secret(_pem(settings.mtls_client_key.reveal(), "MTLSClientKey"))
        show_certificate(context, certificate, key, fields=("MTLSClientCert", "MTLSClientKey"))
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
