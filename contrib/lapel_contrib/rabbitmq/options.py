"""What the connection fields of RabbitMQ components mean, without the client library."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import msgspec

from lapel.secret import Secret

__all__ = ["Address", "RabbitOptions", "Uri", "default_port", "parse_hosts", "parse_uri"]

Address = tuple[str, int]
"""Host and port."""

_PORTS = {"amqp": 5672, "amqps": 5671}
_LONGEST_HEARTBEAT = 65_534


class RabbitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a RabbitMQ; times in seconds. Two clients with equal options are the same.

    `hosts` are nodes of one cluster, any of which will do. `reconnect_wait` is the longest pause between two attempts
    to connect. `heartbeat` 0: none. `external` logs in with the client certificate instead of name and password.
    """

    hosts: tuple[Address, ...]
    username: str = "guest"
    password: Secret
    vhost: str = "/"
    tls: bool = False
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: Secret | None = None
    external: bool = False
    heartbeat: int = 10
    reconnect_wait: float = 3.0
    client_name: str | None = None

    @property
    def place(self) -> str:
        """Name the server in an error text."""
        return f"RabbitMQ {', '.join(f'{host}:{port}' for host, port in self.hosts)}"


class Uri(msgspec.Struct, frozen=True, kw_only=True):
    """An AMQP URI, read. `heartbeat` None: not given."""

    scheme: str
    hosts: tuple[Address, ...]
    username: str
    password: Secret
    vhost: str
    heartbeat: int | None = None


def parse_uri(text: str) -> Uri:
    """Read `amqp[s]://user:password@host:port,host:port/vhost?heartbeat=10`; everything after the scheme is optional.

    A path that is empty or `/` is the default vhost, `/`. Raises `ValueError`, whose text holds nothing of the URI.
    """
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise ValueError("must begin with amqp:// or amqps://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    name, _, password = login.partition(":")
    return Uri(
        scheme=scheme,
        hosts=parse_hosts(hosts or "localhost", _PORTS[scheme]),
        username=unquote(name) if at and name else "guest",
        password=Secret(unquote(password) if at and password else "guest"),
        vhost=unquote(path) or "/",
        heartbeat=_heartbeat(query),
    )


def parse_hosts(text: str, port: int) -> tuple[Address, ...]:
    """Split hosts at commas, each `host`, `host:port`, `[v6]` or `[v6]:port`. Raises `ValueError`."""
    return tuple(_parse_host(part.strip(), port) for part in text.split(","))


def default_port(scheme: str) -> int:
    """Return the port of `amqp` or `amqps`."""
    return _PORTS[scheme]


def _parse_host(text: str, port: int) -> Address:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        given, wrong = rest.removeprefix(":"), not bracket or (rest != "" and not rest.startswith(":"))
    else:
        host, colon, given = text.partition(":")
        wrong = ":" in given or (colon != "" and not given)
    if wrong or not host or (given and not (given.isascii() and given.isdigit() and 0 < int(given) < 65536)):
        # Not shown: a misplaced `@` may have made a password of it.
        raise ValueError("has a host that is not written as host, host:port or [IPv6 address]:port")
    return host, int(given) if given else port


def _heartbeat(query: str) -> int | None:
    found: int | None = None
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.lower() != "heartbeat":
            raise ValueError("has parameters other than heartbeat; use the component's fields instead")
        if not (value.isascii() and value.isdigit() and int(value) <= _LONGEST_HEARTBEAT):
            raise ValueError(f"has a heartbeat that is not a whole number of seconds up to {_LONGEST_HEARTBEAT}")
        found = int(value)
    return found
