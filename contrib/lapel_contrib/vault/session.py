"""hvac's client, on connections of our own choice."""

from __future__ import annotations

import ssl
from typing import Any

import hvac  # type: ignore[import-untyped]  # it has no annotations
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from .options import VaultOptions
from .tls import make_context

__all__ = ["make_client"]


def make_client(options: VaultOptions) -> hvac.Client:
    """Return a client without a token. Blocking: reads files. Raises `ConfigurationError`.

    Its session has as many connections as may be used at a time, repeats nothing and takes nothing from the
    environment but proxies: no token, no authorities to trust, no log-in from a `.netrc`.
    """
    session = _Session()
    session.trust_env = False
    session.proxies = get_environ_proxies(options.address)
    session.verify = not options.skip_verify
    if options.address.startswith("https:"):
        if options.skip_verify:
            # It would be one for every connection; the component logs its own, once.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        session.mount("https://", _Secure(make_context(options), options.server_name, options.pool_size))
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=options.pool_size, max_retries=0))
    return hvac.Client(
        url=options.address,
        token="",  # None would be looked for in the environment and in the home of the user
        verify=session.verify,
        timeout=options.timeout,
        session=session,
        namespace=options.namespace,
    )


class _Session(requests.Session):
    """Follows redirects as Vault's own clients do, from a standby to the active node, but never to plain HTTP."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None and resp.url.startswith("https:") and target.lower().startswith("http:"):
            return None
        return target


class _Secure(HTTPAdapter):
    """Connections that trust whom the context trusts, and nobody else."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None, size: int) -> None:
        self._tls: dict[str, Any] = {"ssl_context": context}
        if server_name is not None:
            self._tls["server_hostname"] = server_name
        super().__init__(pool_connections=1, pool_maxsize=size, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block=block, **kwargs, **self._tls)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs, **self._tls)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave it to the context: the base class would add the authorities that requests brings."""
