"""TLS contexts from certificates and keys given as text."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

from lapel.errors import ConfigurationError

from .options import RabbitOptions

__all__ = ["make_context"]


def make_context(options: RabbitOptions) -> ssl.SSLContext | None:
    """Return the context for these options, None without TLS. Blocking: reads the system's roots.

    Raises `ConfigurationError` for certificates or a key that are none, or that do not belong together.
    """
    if not options.tls:
        return None
    try:
        context = ssl.create_default_context(cadata=options.ca_cert)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError("the field 'caCert' holds no certificate in PEM form") from None
    if options.client_cert is not None and options.client_key is not None:
        try:
            _load(context, options.client_cert, options.client_key.reveal())
        except (ssl.SSLError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or type(exc).__name__
            raise ConfigurationError(
                f"fields 'clientCert' and 'clientKey' are not a PEM certificate and its unencrypted key: {reason}"
            ) from None
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    # OpenSSL's binding reads files only. The file is readable by this user alone, and gone before any connection.
    handle, name = tempfile.mkstemp(prefix="lapel-", suffix=".pem")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{certificate.strip()}\n{key.strip()}\n")

        def no_password() -> str:
            raise ValueError("the key is encrypted")

        context.load_cert_chain(name, password=no_password)
    finally:
        with suppress(OSError):
            Path(name).unlink()
