"""The arguments that every connection to the brokers is made with, and why one could not be made."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from lapel.errors import LapelError, PermissionDeniedError, UnavailableError

from .errors import translate
from .oauth import TokenProvider, make_tokens
from .options import KafkaOptions
from .tls import make_context

__all__ = ["REQUEST_SECONDS", "Access"]

REQUEST_SECONDS = 8.0
"""How long a broker may take to answer, unless `readTimeout` says otherwise: a dead connection is to be noticed."""
_CLIENT_ONLY = ("metadata_max_age_ms", "retry_backoff_ms", "connections_max_idle_ms", "bootstrap_servers")

# There they log passwords and tokens, and the keys and values of messages, which may be anything but for everybody.
for _name in ("aiokafka.conn", "aiokafka.producer.producer"):
    logging.getLogger(_name).addFilter(lambda record: record.levelno > logging.DEBUG)


class Access:
    """How clients of these options connect and log in: made once, used by producers and consumers alike."""

    def __init__(self, options: KafkaOptions, context: ssl.SSLContext | None, tokens: TokenProvider | None) -> None:
        self.options = options
        self._context = context
        self._tokens = tokens

    @classmethod
    async def make(cls, options: KafkaOptions) -> Access:
        """Read certificates and keys. Raises `ConfigurationError`."""
        context = await asyncio.to_thread(make_context, options)
        return cls(options, context, await asyncio.to_thread(make_tokens, options.oidc))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that aiokafka's producers and consumers have in common."""
        options = self.options
        sasl = options.mechanism is not None
        protocol = ("SASL_SSL" if options.tls else "SASL_PLAINTEXT") if sasl else "SSL" if options.tls else "PLAINTEXT"
        found: dict[str, Any] = {
            "bootstrap_servers": [broker if ":" in broker else f"{broker}:9092" for broker in options.brokers],
            "client_id": options.client_id,
            "metadata_max_age_ms": int(options.metadata_refresh * 1000),
            "request_timeout_ms": int((options.request_timeout or REQUEST_SECONDS) * 1000),
            "retry_backoff_ms": 100,
            "connections_max_idle_ms": None if options.connection_idle is None else int(options.connection_idle * 1000),
            "security_protocol": protocol,
            "ssl_context": self._context,
        }
        if options.mechanism is not None:
            found["sasl_mechanism"] = options.mechanism
            found["sasl_plain_username"] = options.username
            found["sasl_plain_password"] = None if options.password is None else options.password.reveal()
            found["sasl_oauth_token_provider"] = self._tokens
        return found

    async def explain(self, error: BaseException) -> LapelError:
        """Return why no client could be started: aiokafka itself says only that it could not connect."""
        arguments = self.arguments()
        brokers = arguments["bootstrap_servers"]
        for name in _CLIENT_ONLY:
            del arguments[name]
        found: LapelError = translate(error, self.options.place)
        for broker in brokers:
            host, _, port = broker.rpartition(":")
            try:
                connection = await create_conn(host.strip("[]"), int(port), **arguments)
            except (KafkaError, OSError) as exc:
                if self._tokens is not None and self._tokens.failure is not None:
                    return self._tokens.failure
                found = self._connection_error(exc)
                if isinstance(found, PermissionDeniedError):
                    return found
            else:
                connection.close()
        return found

    def _connection_error(self, exc: BaseException) -> LapelError:
        place = self.options.place
        if isinstance(exc, ssl.SSLCertVerificationError):
            return UnavailableError(
                f"{place}: the broker's certificate is not trusted ({exc.verify_message}); check caCert"
            )
        if isinstance(exc, ssl.SSLError):
            reason = getattr(exc, "reason", None) or type(exc).__name__
            return UnavailableError(f"{place}: no TLS connection ({reason}); check authType and disableTls")
        if isinstance(exc, OSError) and not isinstance(exc, TimeoutError):
            return UnavailableError(f"{place}: cannot be reached: {exc.strerror or type(exc).__name__}")
        return translate(exc, place)

    async def close(self) -> None:
        """Let go of what fetches tokens."""
        if self._tokens is not None:
            await self._tokens.close()
