"""TLS contexts from certificates and keys that settings hold as text, for drivers."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

from .errors import ConfigurationError
from .secret import Secret

__all__ = ["client_context", "show_certificate"]


def client_context(authorities: str | None = None, *, field: str = "", verify: bool = True) -> ssl.SSLContext:
    """Return a context for connections to a server. Blocks: reads the system's roots.

    `authorities` are certificates in PEM form, and then only they are trusted; None trusts the system's. `field` is
    where they come from, for the error. `verify` false accepts any certificate and name.

    Raises `ConfigurationError` for text that holds no certificate.
    """
    if authorities is not None and not authorities.strip():
        # Empty text would mean the system's authorities to the library below.
        raise ConfigurationError(f"the field {field!r} is empty; expected certificates in PEM form")
    try:
        context = ssl.create_default_context(cadata=authorities)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigurationError(f"the field {field!r} holds no certificate in PEM form: {_reason(exc)}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def show_certificate(context: ssl.SSLContext, certificate: str, key: Secret, *, fields: tuple[str, str]) -> None:
    """Have connections show a client certificate, given with its key in PEM form. Blocks on a file.

    `fields` are where they come from, for the error. Raises `ConfigurationError` when they are not a certificate and
    its unencrypted key.
    """
    # OpenSSL's binding reads files only. The file is readable by this user alone, and gone before any connection.
    handle, name = tempfile.mkstemp(prefix="lapel-", suffix=".pem")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{certificate.strip()}\n{key.reveal().strip()}\n")
        context.load_cert_chain(name, password=_no_password)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigurationError(
            f"fields {fields[0]!r} and {fields[1]!r} are not a PEM certificate and its unencrypted key: {_reason(exc)}"
        ) from None
    finally:
        with suppress(OSError):
            Path(name).unlink()


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # OpenSSL would ask for it at the terminal


def _reason(exc: Exception) -> str:
    return getattr(exc, "reason", None) or type(exc).__name__
