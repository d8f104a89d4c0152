"""TLS contexts from certificates and keys given as text."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

from lapel.errors import ConfigurationError

from .options import KafkaOptions

__all__ = ["make_context"]


def make_context(options: KafkaOptions) -> ssl.SSLContext | None:
    """Return the context for these options, None without TLS. Blocking: reads the system's roots.

    With `caCert` only that authority is trusted, else the system's. Raises `ConfigurationError` for a certificate or
    key that is none, or that do not belong together.
    """
    if not options.tls:
        return None
    try:
        context = ssl.create_default_context(cadata=options.ca_cert)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigurationError(f"field 'caCert' is not a PEM certificate: {_reason(exc)}") from None
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.client_cert is not None and options.client_key is not None:
        try:
            _load(context, options.client_cert, options.client_key.reveal())
        except (ssl.SSLError, ValueError) as exc:
            raise ConfigurationError(
                f"fields 'clientCert' and 'clientKey' are not a PEM certificate and its unencrypted key: {_reason(exc)}"
            ) from None
    return context


def _reason(exc: Exception) -> str:
    return getattr(exc, "reason", None) or type(exc).__name__


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
