"""TLS as the options ask for it."""

from __future__ import annotations

import ssl

from lapel.tls import client_context, show_certificate

from .options import RedisOptions

__all__ = ["make_context"]


def make_context(options: RedisOptions) -> ssl.SSLContext | None:
    """Return the context for these options, None without TLS. Blocking: reads the system's roots.

    Raises `ConfigurationError` for a certificate or key that is none, or that do not belong together.
    """
    if not options.tls:
        return None
    context = client_context(verify=not options.skip_verify)
    if options.client_cert is not None and options.client_key is not None:
        show_certificate(context, options.client_cert, options.client_key, fields=("clientCert", "clientKey"))
    return context
