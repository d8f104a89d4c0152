"""The connections of one component.

httpx's transport is used without its client: the client logs every URL, which may hold credentials, and keeps cookies
between calls.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from lapel.errors import ConfigurationError

__all__ = ["Lease", "Transports", "is_local"]

PER_POOL: Final = 8
KEPT_POOLS: Final = 8
"""How many pools without work are kept open, with up to `PER_POOL` connections each."""

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=PER_POOL, keepalive_expiry=30.0)


class _Pool:
    """A pool of connections, and how many requests use it now."""

    __slots__ = ("busy", "transport")

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self.transport = transport
        self.busy = 0


class _Pools:
    """Connections by one way, in many small pools: httpx looks at every connection of a pool for each request."""

    def __init__(self, make: Callable[[], httpx.AsyncHTTPTransport]) -> None:
        self._make = make
        self._pools = [_Pool(make())]

    def take(self) -> _Pool:
        pool = next((each for each in self._pools if each.busy < PER_POOL), None)
        if pool is None:
            pool = _Pool(self._make())
            self._pools.append(pool)
        pool.busy += 1
        return pool

    async def give_back(self, pool: _Pool) -> None:
        pool.busy -= 1
        if pool.busy == 0 and sum(each.busy == 0 for each in self._pools) > KEPT_POOLS:
            self._pools.remove(pool)
            await pool.transport.aclose()

    async def close(self) -> None:
        await asyncio.gather(*(pool.transport.aclose() for pool in self._pools))


class Lease:
    """The right to send requests by `transport` until `release`."""

    def __init__(self, pools: _Pools) -> None:
        self._pools = pools
        self._pool: _Pool | None = pools.take()
        self.transport = self._pool.transport

    async def release(self) -> None:
        """Let others use it. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await self._pools.give_back(pool)


class Transports:
    """The direct connections, and those by each proxy that the environment names.

    Raises `ConfigurationError` for a proxy that cannot be used. `context` is for all TLS connections.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._direct = _Pools(partial(httpx.AsyncHTTPTransport, verify=context, limits=_LIMITS))
        self._by_scheme: dict[str, _Pools] = {}
        proxies = getproxies_environment()
        for scheme in ("http", "https"):
            proxy = proxies.get(scheme) or proxies.get("all")
            if proxy:
                address = proxy if "://" in proxy else f"http://{proxy}"
                try:
                    self._by_scheme[scheme] = _Pools(
                        partial(httpx.AsyncHTTPTransport, verify=context, limits=_LIMITS, proxy=address)
                    )
                except (ValueError, httpx.InvalidURL, ImportError):
                    raise ConfigurationError(
                        f"the environment's proxy for {scheme} cannot be used; expected an http or https URL"
                    ) from None

    def lease(self, url: httpx.URL) -> Lease:
        """Return connections for one request at a time."""
        pools = self._by_scheme.get(url.scheme)
        if pools is None or is_local(url.host) or proxy_bypass(url.host):
            pools = self._direct
        return Lease(pools)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(pools.close() for pools in (self._direct, *self._by_scheme.values())))


def is_local(host: str) -> bool:
    """Tell whether the host is this machine, by a loopback address or the name `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
