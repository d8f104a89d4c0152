"""Fields that the RabbitMQ components have in common."""

from __future__ import annotations

from collections.abc import Iterable

from lapel.settings import Secret, Settings, setting

from .options import Uri, parse_uri

__all__ = ["LONGEST_TTL", "RabbitTlsSettings", "uri_of"]

LONGEST_TTL = 4_294_967
"""Seconds: the server takes 32 bits of milliseconds."""

_PEM = "-----BEGIN"


class RabbitTlsSettings(Settings):
    """The fields about TLS. They need an `amqps://` address."""

    ca_cert: str | None = setting(
        "caCert",
        default=None,
        doc="Certificates of the authorities to trust instead of the system's, as PEM text. Needs `amqps`.",
    )
    client_cert: str | None = setting(
        "clientCert", default=None, doc="Certificate to show to the server, as PEM text. Needs `clientKey` and `amqps`."
    )
    client_key: Secret | None = setting("clientKey", default=None, doc="Private key of the certificate, as PEM text.")

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield which PEM fields are none, or lack the other one."""
        yield from super().check()
        for name, text in (
            ("caCert", self.ca_cert),
            ("clientCert", self.client_cert),
            ("clientKey", self.client_key.reveal() if self.client_key else None),
        ):
            if text is not None and _PEM not in text:
                yield name, "is not PEM text; expected -----BEGIN ..."
        if (self.client_cert is None) != (self.client_key is None):
            yield (
                "clientKey" if self.client_key is None else "clientCert",
                "is missing; certificate and key are needed together",
            )

    def check_tls(self, *, tls: bool, external: bool, external_field: str) -> Iterable[tuple[str, str]]:
        """Yield what does not fit together: certificates without TLS, log-in by certificate without one."""
        if not tls:
            for name, value in (("caCert", self.ca_cert), ("clientCert", self.client_cert)):
                if value is not None:
                    yield name, "has no effect without TLS; use an address that begins with amqps://"
        if external and (not tls or None in (self.ca_cert, self.client_cert, self.client_key)):
            yield external_field, "needs an address that begins with amqps://, and caCert, clientCert and clientKey"


def uri_of(text: Secret) -> Uri | str:
    """Return the address that a field holds, or what is wrong with it."""
    try:
        return parse_uri(text.reveal())
    except ValueError as exc:
        return str(exc)
