"""The connections and the token that all Vault components with the same settings share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import hvac  # type: ignore[import-untyped]  # it has no annotations
import msgspec
import requests
from hvac.adapters import RawAdapter  # type: ignore[import-untyped]

from lapel.driver import SharedClients
from lapel.errors import ConfigurationError

from .errors import Reply, failed, is_bad_token, reason_of
from .flights import SingleFlight
from .login import Login, make_login
from .options import VaultOptions
from .session import make_client
from .tokens import TokenKeeper

__all__ = ["ClientLease", "VaultClient", "path_of"]

_CLOSE_SECONDS = 2.0
_HEALTH = {"standbyok": "true", "perfstandbyok": "true"}
_REVOKE = "auth/token/revoke-self"
T = TypeVar("T")


class _Health(msgspec.Struct):
    enterprise: bool | None = None
    """False for Vault's community edition; OpenBao, which has namespaces, does not say."""


class VaultClient:
    """Requests to one server, in a bounded pool of threads, with a token that is kept alive.

    Nothing is repeated but a request that was refused because of its token, once, with a newer one. Calls may overlap
    and belong to one event loop. A cancelled call that waits for a thread is never sent; a request under way ends by
    `requestTimeout` at the latest, unheard.
    """

    def __init__(self, options: VaultOptions, client: hvac.Client, pool: ThreadPoolExecutor) -> None:
        self.options = options
        self.place = f"Vault at {urlsplit(options.address).netloc}"
        """Names the server in error texts."""
        self.hvac = client
        self._pool = pool
        self._login: Login = make_login(options.login)
        self._flights: SingleFlight[Reply] = SingleFlight(f"request to {self.place}")
        self.tokens = TokenKeeper(self._login, self)

    @classmethod
    async def open(cls, options: VaultOptions, logger: logging.Logger) -> VaultClient:
        """Log in. Raises `UnavailableError`, `PermissionDeniedError`, `ConfigurationError`."""
        pool = ThreadPoolExecutor(options.pool_size, thread_name_prefix="lapel-vault")
        try:
            made = await asyncio.get_running_loop().run_in_executor(pool, make_client, options)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        client = cls(options, made, pool)
        try:
            if options.skip_verify and options.address.startswith("https:"):
                logger.warning("skipVerify is on: whoever answers in the place of %s gets the token", client.place)
            if options.namespace is not None:
                await client._need_namespaces()
            await client.tokens.open(logger)
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """Give back a token of our own, end the connections, and wait up to two seconds for requests under way."""
        await self._flights.close()
        await self.tokens.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(self._end))], timeout=_CLOSE_SECONDS)

    async def send(self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None) -> Reply:
        """Send one request below `/v1/`, and once more with another token if it was refused for its token."""
        reply = await self.send_once(method, path, body, params)
        if reply.status in (401, 403) and await self.tokens.replaced(reply.token, sure=is_bad_token(reply)):
            return await self.send_once(method, path, body, params)
        return reply

    async def read(self, method: str, path: str, params: Mapping[str, str] | None = None) -> Reply:
        """Send a request that only reads, shared by all who ask for the same while it is under way."""
        key = (method, path, None if params is None else tuple(params.items()))
        return await self._flights.run(key, lambda: self.send(method, path, None, params))

    async def send_once(
        self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request exactly once. Never raises for what comes back, or does not."""
        reply: Reply = await self.in_thread(self._exchange, method, path, body, params)
        self.tokens.noticed(reply.token)
        return reply

    async def revoke(self, token: str) -> None:
        """End a token. Never raises for what comes back: one that is left over ends by itself."""
        await self.in_thread(self._exchange_with, token, "POST", _REVOKE)

    async def in_thread(self, work: Any, *arguments: Any) -> Any:
        """Run blocking work in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def check(self) -> None:
        """Ask the server how it is; raise `UnavailableError` unless it serves, and what is wrong with the token."""
        await self._checked_health()
        self.tokens.check()

    async def _checked_health(self) -> Reply:
        reply: Reply = await self.in_thread(self._health)
        # Who answers with another error is there; a proxy may hide the path.
        if not reply.status or reply.status >= 429:
            raise failed(reply, self.place, "its health")
        return reply

    async def _need_namespaces(self) -> None:
        """Refuse a server that would ignore the namespace, and so answer with secrets of another one."""
        reply = await self._checked_health()
        try:
            ignores = msgspec.json.decode(reply.content, type=_Health).enterprise is False
        except (msgspec.DecodeError, UnicodeDecodeError):
            ignores = False
        if ignores:
            raise ConfigurationError(
                f"{self.place} is the community edition, which ignores namespaces; remove vaultNamespace, or name a "
                "server that has them"
            )

    # in a thread

    def obtain_token(self) -> str:
        """Log in, use the token from now on, and return it. Blocking."""
        token = self._login.obtain(self._send_without_token, self.place)
        self.hvac.token = token
        return token

    def _exchange(self, method: str, path: str, body: object, params: Mapping[str, str] | None) -> Reply:
        if (newer := self._login.changed()) is not None:
            self.hvac.token = newer
        return self._exchange_on(self.hvac.adapter, method, path, body, params)

    def _exchange_with(self, token: str | None, method: str, path: str, body: object = None) -> Reply:
        """Send a request with a token that need not be the one in use, or without one."""
        adapter = RawAdapter.from_adapter(self.hvac.adapter)
        adapter.token = token
        return self._exchange_on(adapter, method, path, body, None)

    def _exchange_on(
        self, adapter: Any, method: str, path: str, body: object, params: Mapping[str, str] | None
    ) -> Reply:
        used: str | None = adapter.token
        extra: dict[str, Any] = {} if body is None else {"json": body}
        if params:
            extra["params"] = dict(params)
        try:
            # The request of JSONAdapter decodes the body, which loses how numbers were written.
            response = RawAdapter.request(adapter, method, f"/v1/{path}", raise_exception=False, **extra)
        except requests.RequestException as exc:
            return Reply.none(reason_of(exc, self.options.timeout))
        return Reply(response.status_code, response.content, used)

    def _send_without_token(self, method: str, path: str, body: Any) -> Reply:
        return self._exchange_with(None, method, path, body)

    def _health(self) -> Reply:
        # Without namespace, in which there is no such path, and without token.
        try:
            response = self.hvac.session.get(
                f"{self.options.address}/v1/sys/health", params=_HEALTH, timeout=self.options.timeout
            )
        except requests.RequestException as exc:
            return Reply.none(reason_of(exc, self.options.timeout))
        return Reply(response.status_code, response.content, None)

    def _end(self) -> None:
        self.hvac.adapter.close()
        self._pool.shutdown(wait=True)


class ClientLease:
    """A component's share in a client. Components of one assembly with equal options have the same.

    `acquire` once, then `release`; not to be used again.
    """

    def __init__(self, options: VaultOptions, shared: SharedClients, logger: logging.Logger) -> None:
        self._options = options
        self._shared = shared
        self._logger = logger
        self._key: Hashable | None = None

    async def acquire(self) -> VaultClient:
        """Log in, or join those who have. Raises as `VaultClient.open` does."""
        key = ("vault", self._options)
        client = await self._shared.acquire(
            key, lambda: VaultClient.open(self._options, self._logger), VaultClient.close
        )
        self._key = key
        return client

    async def release(self) -> None:
        """Give the client back; the last one closes it. Idempotent, and without effect when nothing was acquired."""
        key, self._key = self._key, None
        if key is not None:
            await self._shared.release(key)


def path_of(*parts: str) -> str:
    """Join parts to a path, each escaped but for its slashes; empty ones are left out."""
    return "/".join(quote(part, safe="/") for part in parts if part)
