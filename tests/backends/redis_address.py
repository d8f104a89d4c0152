"""Where a Redis is and how to log in: as a URL, as fields of a component file, as a connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from .certificates import TlsFiles
from .resp import Connection

Mode = Literal["node", "cluster", "sentinel"]
_SENTINEL = "+sentinel"


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """Hosts are the node, all nodes of the cluster, or the sentinels; `None` means that no login or TLS is needed."""

    hosts: tuple[tuple[str, int], ...]
    mode: Mode = "node"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    master: str | None = None
    tls: TlsFiles | None = None

    @classmethod
    def parse(cls, url: str, mode: Mode) -> RedisAddress:
        """Read `redis[s]://user:password@host:port,host:port` or `redis[s]+sentinel://…/master`.

        Queries: `ca`, `cert` and `key` are paths of PEM files; `sentinel_username` and `sentinel_password`.
        """
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        scheme = parts.scheme.removesuffix(_SENTINEL)
        if scheme not in ("redis", "rediss") or (parts.scheme != scheme) != (mode == "sentinel"):
            raise ValueError(f"expected redis[s]{_SENTINEL if mode == 'sentinel' else ''}://…, got {parts.scheme}://…")
        login, _, places = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        tls = None
        if scheme == "rediss":
            default = ssl.get_default_verify_paths().cafile or ""
            paths = {name: Path(query[name]) for name in ("ca", "cert", "key") if name in query}
            tls = TlsFiles(paths.get("ca", Path(default)), paths.get("cert"), paths.get("key"))
        return cls(
            hosts=tuple(_host_port(place, 26379 if mode == "sentinel" else 6379) for place in places.split(",")),
            mode=mode,
            username=unquote(username) or None,
            password=unquote(password) or None,
            sentinel_username=query.get("sentinel_username"),
            sentinel_password=query.get("sentinel_password"),
            master=parts.path.strip("/") or None,
            tls=tls,
        )

    @property
    def url(self) -> str:
        """What `parse` reads."""
        login = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        query = {"sentinel_username": self.sentinel_username, "sentinel_password": self.sentinel_password}
        if self.tls is not None:
            paths = {"ca": self.tls.ca, "cert": self.tls.cert, "key": self.tls.key}
            query |= {name: str(path) for name, path in paths.items() if path is not None}
        given = urlencode({name: value for name, value in query.items() if value})
        scheme = f"redis{'s' if self.tls else ''}{_SENTINEL if self.mode == 'sentinel' else ''}"
        return f"{scheme}://{login}{self.host_list}/{self.master or ''}{'?' if given else ''}{given}"

    @property
    def host_list(self) -> str:
        """`host:port`, several separated by commas."""
        return ",".join(f"{host}:{port}" for host, port in self.hosts)

    @property
    def properties(self) -> dict[str, str]:
        """The fields of Dapr's Redis components. Dapr has none for the authority: `tls.ca` holds it."""
        given = {
            "redisHost": self.host_list,
            "redisUsername": self.username,
            "redisPassword": self.password,
            "redisType": "cluster" if self.mode == "cluster" else None,
            "failover": "true" if self.mode == "sentinel" else None,
            "sentinelMasterName": self.master,
            "sentinelUsername": self.sentinel_username,
            "sentinelPassword": self.sentinel_password,
        }
        if self.tls is not None:
            given["enableTLS"] = "true"
            if self.tls.cert is not None and self.tls.key is not None:
                given |= {"clientCert": self.tls.cert.read_text(), "clientKey": self.tls.key.read_text()}
        return {name: value for name, value in given.items() if value is not None}

    def connect(self, host: str, port: int, *, timeout: float = 5.0, sentinel: bool = False) -> Connection:
        """Open a connection to one of its servers, logged in."""
        return Connection(
            host,
            port,
            username=self.sentinel_username if sentinel else self.username,
            password=self.sentinel_password if sentinel else self.password,
            tls=None if self.tls is None else self.tls.context(),
            timeout=timeout,
        )


def _host_port(place: str, default: int) -> tuple[str, int]:
    host, _, port = place.rpartition(":") if ":" in place else (place, "", "")
    return host.strip("[]"), int(port or default)
