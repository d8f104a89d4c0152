"""What the fields of Redis components mean, without the client library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lapel.secret import Secret

__all__ = ["Address", "Mode", "QueryIndex", "RedisOptions", "parse_host", "parse_indexes"]

LONGEST_ANSWER = 5.0
"""Seconds for an answer that is waited for without any other limit; as long as a call may take by default."""

Address = tuple[str, int]
"""Host and port."""
Mode = Literal["node", "sentinel", "cluster"]


class RedisOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a Redis; times in seconds. Two clients with equal options are the same.

    `hosts` are the node, some nodes of the cluster, or the sentinels. `read_timeout` None: no limit of its own.
    `idle_timeout` None: never.
    """

    hosts: tuple[Address, ...]
    mode: Mode = "node"
    username: str | None = None
    password: Secret | None = None
    sentinel_master: str | None = None
    sentinel_username: str | None = None
    sentinel_password: Secret | None = None
    database: int = 0
    tls: bool = False
    skip_verify: bool = False
    client_cert: str | None = None
    client_key: Secret | None = None
    dial_timeout: float = 5.0
    read_timeout: float | None = 3.0
    pool_size: int = 10
    pool_timeout: float = 4.0
    idle_timeout: float | None = 300.0

    @property
    def patience(self) -> float:
        """How long to wait, in seconds, for what no caller's deadline ends: a half-open connection gives no sign."""
        return LONGEST_ANSWER if self.read_timeout is None else self.read_timeout

    @property
    def place(self) -> str:
        """Name the server in an error text."""
        hosts = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        if self.mode == "sentinel":
            return f"Redis primary {self.sentinel_master!r} of sentinels {hosts}"
        return f"Redis {'cluster' if self.mode == 'cluster' else 'server'} {hosts}"


class QueryIndex(msgspec.Struct, frozen=True):
    """One index: its name, and paths into the documents, each TEXT or NUMERIC."""

    name: str
    fields: tuple[tuple[str, str], ...]


def parse_host(text: str, port: int) -> Address:
    """Split `host`, `host:port`, `[v6]` or `[v6]:port`. Raises `ValueError`."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        given = rest.removeprefix(":")
        wrong = not bracket or (rest and not rest.startswith(":"))
    elif text.count(":") > 1:
        raise ValueError("has a host with several colons; put an IPv6 address in square brackets")
    else:
        host, colon, given = text.partition(":")
        wrong = bool(colon) and not given
    if wrong or not host or (given and not (given.isascii() and given.isdigit() and 0 < int(given) < 65536)):
        raise ValueError(f"has {text!r}, which is not host or host:port")
    return host, int(given) if given else port


def parse_indexes(value: Any) -> tuple[QueryIndex, ...]:
    """Check the decoded JSON of `queryIndexes`. Raises `ValueError`."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError("expected a JSON list of indexes")
    indexes = []
    for entry in value:
        if not isinstance(entry, Mapping) or not _text(entry.get("name")) or not isinstance(entry.get("indexes"), list):
            raise ValueError("expected objects with a name and a list of indexes")
        fields = []
        for field in entry["indexes"]:
            if not isinstance(field, Mapping) or not _text(field.get("key")):
                raise ValueError(f"index {entry['name']!r}: expected objects with a key and a type")
            if field.get("type") not in ("TEXT", "NUMERIC"):
                raise ValueError(f"index {entry['name']!r}, key {field['key']!r}: the type must be TEXT or NUMERIC")
            fields.append((field["key"], field["type"]))
        if not fields:
            raise ValueError(f"index {entry['name']!r} has no keys")
        indexes.append(QueryIndex(entry["name"], tuple(fields)))
    if len({index.name for index in indexes}) != len(indexes):
        raise ValueError("two indexes have the same name")
    return tuple(indexes)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
