"""Where a RabbitMQ is and how to log in: as a URL, as fields of a component file."""

from __future__ import annotations

import dataclasses
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from .certificates import TlsFiles
from .process import NotReady

_HEADER = b"AMQP\x00\x00\x09\x01"


@dataclass(frozen=True, kw_only=True)
class RabbitAddress:
    """One node. `tls` None means that connections are not encrypted."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    vhost: str = "/"
    tls: TlsFiles | None = None

    @classmethod
    def parse(cls, url: str) -> RabbitAddress:
        """Read `amqp[s]://user:password@host:port/vhost`; queries `ca`, `cert` and `key` are paths of PEM files."""
        parts = urlsplit(url)
        if parts.scheme not in ("amqp", "amqps"):
            raise ValueError(f"expected amqp[s]://…, got {parts.scheme}://…")
        files = {name: Path(values[-1]) for name, values in parse_qs(parts.query).items()}
        secure = parts.scheme == "amqps"
        if secure and "ca" not in files:
            raise ValueError("an address with TLS needs the query `ca`")
        return cls(
            host=parts.hostname or "localhost",
            port=parts.port or (5671 if secure else 5672),
            username=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            vhost=unquote(parts.path.removeprefix("/")) or "/",
            tls=TlsFiles(files["ca"], files.get("cert"), files.get("key")) if secure else None,
        )

    @property
    def amqp(self) -> str:
        """The address as clients take it: without the files."""
        scheme = "amqp" if self.tls is None else "amqps"
        login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}"
        return f"{scheme}://{login}@{self.host}:{self.port}/{quote(self.vhost, safe='')}"

    @property
    def url(self) -> str:
        """The address with its files, as `parse` reads it."""
        if self.tls is None:
            return self.amqp
        files = {"ca": self.tls.ca, "cert": self.tls.cert, "key": self.tls.key}
        return f"{self.amqp}?{urlencode({name: str(path) for name, path in files.items() if path})}"

    @property
    def properties(self) -> dict[str, str]:
        """Fields of a component file, in the spelling that pub/sub and binding have in common."""
        fields = {"host": self.amqp}
        if self.tls is not None:
            files = {"caCert": self.tls.ca, "clientCert": self.tls.cert, "clientKey": self.tls.key}
            fields |= {name: path.read_text() for name, path in files.items() if path}
        return fields

    def through(self, host: str, port: int) -> RabbitAddress:
        """Return the same broker, reached through something that stands in between."""
        return dataclasses.replace(self, host=host, port=port)


def greet(host: str, port: int, tls: TlsFiles | None = None, *, timeout: float = 2.0) -> None:
    """Return when a broker begins to talk; raise `NotReady` or `OSError` when none does."""
    plain = socket.create_connection((host, port), timeout)
    with plain, plain if tls is None else tls.context().wrap_socket(plain, server_hostname=host) as link:
        link.settimeout(timeout)
        link.sendall(_HEADER)
        if link.recv(1) != b"\x01":
            raise NotReady("no AMQP broker answers")
