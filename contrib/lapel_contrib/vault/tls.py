"""Whom to trust, as the settings say."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from lapel.errors import ConfigurationError

from .options import VaultOptions

__all__ = ["make_context"]


def make_context(options: VaultOptions) -> ssl.SSLContext:
    """Return the context of all connections. Blocking: reads files. Raises `ConfigurationError` naming the field."""
    if options.skip_verify:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if options.ca_pem is not None:
        return _trusting([options.ca_pem], "caPem")
    if options.ca_folder is not None:
        return _trusting(_read_all(options.ca_folder), "caPath")
    if options.ca_file is not None:
        return _trusting([_read(options.ca_file, "caCert")], "caCert")
    return ssl.create_default_context()


def _trusting(texts: list[str], field: str) -> ssl.SSLContext:
    text = "\n".join(texts)
    # Without any text the authorities of the system would be trusted.
    if text.strip():
        try:
            return ssl.create_default_context(cadata=text)
        except (ssl.SSLError, ValueError):
            pass
    raise ConfigurationError(
        f"the field {field!r} gives no certificate in PEM form, or a broken one; see that the authority's is there"
    )


def _read_all(folder: Path) -> list[str]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
    else:
        return [_read(path, "caPath") for path in files]
    raise ConfigurationError(f"cannot read the folder named by the field 'caPath': {reason}")


def _read(path: Path, field: str) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
    except ValueError:
        reason = "it is no PEM file"
    raise ConfigurationError(f"cannot read the certificates named by the field {field!r}: {reason}")
