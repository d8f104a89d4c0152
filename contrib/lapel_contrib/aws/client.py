"""Sessions and clients of the AWS SDK, shared by all components with equal options: a client for each service."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.credentials import RefreshableCredentials
from botocore.loaders import JSONFileLoader, Loader

from lapel.driver import SharedClients
from lapel.errors import ConfigurationError, LapelError, UnavailableError

from .credentials import RenewedCredentials, assumed_role, from_chain, in_own_loop, run_now
from .errors import EXPIRED, SDK_ERRORS, code_of, translate
from .options import AwsOptions

__all__ = ["ANSWER_SECONDS", "CLOSE_SECONDS", "AwsClients"]

CONNECTIONS = 128
"""Most connections to one service; long polls take one each."""
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
"""How long a service may be silent; the components' own deadlines are shorter, long polls a third of it."""
ANSWER_SECONDS = 10.0
"""How long a request may take that no caller's deadline ends: one that several calls share, or of a reader."""
CLOSE_SECONDS = 2.0
"""How long a closing component waits for its requests; within what it has itself, or it would let go of no client."""


class AwsClients:
    """A component's share in the clients of one session. `client` as often as needed, then `close` once.

    Clients are made in threads, because that reads and interprets megabytes of JSON.
    """

    def __init__(self, options: AwsOptions, shared: SharedClients) -> None:
        self._options = options
        self._shared = shared
        self._keys: list[Any] = []
        self._session: _Session | None = None

    async def client(self, service: str) -> Any:
        """Return the client of a service. Raises `PermissionDeniedError` without credentials, `ConfigurationError`."""
        options = self._options
        if self._session is None:
            key: Any = ("aws", options)
            session = await self._shared.acquire(key, lambda: _Session.open(options), _Session.close)
            self._keys.append(key)
            self._session = session
        else:
            session = self._session
        key = ("aws", options, service)
        client = await self._shared.acquire(key, lambda: session.make_client(service), _close)
        self._keys.append(key)
        return client

    async def call(self, reply: Awaitable[Any], place: str, *, writes: bool) -> Any:
        """Await a call of the SDK and return its reply. Raises only errors of lapel; `place` names the resource.

        `writes` false: the call only reads, so that a lost reply means that nothing was done.
        """
        try:
            return await reply
        except SDK_ERRORS as exc:
            raise self.translate(exc, place, writes=writes) from None

    def translate(self, exc: BaseException, place: str, *, writes: bool) -> LapelError:
        """Return the error for what a call of the SDK raised, and note when it says that credentials have expired."""
        if code_of(exc) in EXPIRED and self._session is not None and self._session.renew():
            return UnavailableError(
                f"{place}: the credentials had expired, the next call gets new ones; nothing was done ({code_of(exc)})"
            )
        return translate(exc, place, writes=writes)

    async def close(self) -> None:
        """Give everything back; the last component that uses a client closes it. Idempotent."""
        keys, self._keys = self._keys, []
        for key in reversed(keys):
            await self._shared.release(key)


class _Session:
    """A session of the SDK and what all its clients have in common."""

    def __init__(self, options: AwsOptions, session: AioSession, config: AioConfig) -> None:
        self._options = options
        self._session = session
        self._config = config
        self._credentials: RenewedCredentials | None = None

    @classmethod
    async def open(cls, options: AwsOptions) -> _Session:
        """Find the credentials; nothing is connected yet, unless they come from a service."""
        _keep_quiet()
        made = cls(options, await asyncio.to_thread(_new_session, options.region), _config(options))
        try:
            await made._find_credentials()
        except SDK_ERRORS as exc:
            await made.close()
            raise translate(exc, "AWS credentials", writes=False) from None
        except BaseException:
            await made.close()
            raise
        return made

    async def close(self) -> None:
        """Renew no credentials any more. The clients are closed each for itself."""
        if self._credentials is not None:
            await self._credentials.close()

    def renew(self) -> bool:
        """Have the credentials renewed before the next request; False when they cannot be."""
        if self._credentials is None:
            return False
        self._credentials.expire()
        return True

    async def make_client(self, service: str) -> Any:
        """Make a client in a thread. It connects with its first call, on the loop of that call."""
        try:
            return await asyncio.to_thread(lambda: run_now(self._create(service).__aenter__()))
        except SDK_ERRORS as exc:
            raise translate(exc, f"AWS {service}", writes=False) from None
        except ValueError:
            text = f"AWS {service}: endpoint or region do not make a URL; check both"
            raise ConfigurationError(text) from None

    def _create(self, service: str, session: AioSession | None = None) -> Any:
        options = self._options
        return (session or self._session).create_client(
            service,
            region_name=options.region,
            endpoint_url=options.endpoint,
            verify=None if options.verify else False,
            # Else S3 would sign URLs with the old signature in some regions, and for endpoints of one's own.
            config=self._config.merge(AioConfig(signature_version="s3v4")) if service == "s3" else self._config,
        )

    async def _find_credentials(self) -> None:
        """Find the credentials now, so that making a client waits for nothing."""
        options, session = self._options, self._session
        if options.access_key is not None and options.secret_key is not None:
            token = None if options.session_token is None else options.session_token.reveal()
            session.set_credentials(options.access_key.reveal(), options.secret_key.reveal(), token)
        else:
            await asyncio.to_thread(_warm, session.get_component("data_loader"))
        found = await in_own_loop(session.get_credentials())
        if options.role is not None:
            source = await asyncio.to_thread(_new_session, options.region)
            source.register_component("credential_provider", _Found(found))
            await in_own_loop(source.get_credentials())
            self._credentials = assumed_role(lambda: self._create("sts", source), options.role, options.role_session)
            # Asked for once now, so that a role that may not be assumed is noticed when the component opens.
            await self._credentials.get_frozen_credentials()
        elif isinstance(found, RefreshableCredentials):
            self._credentials = from_chain(found)
        if self._credentials is not None:
            # The only way to give a session credentials that are an object of one's own.
            session._credentials = self._credentials


class _OnceSession(AIOHTTPSession):  # type: ignore[misc]  # published without types
    """Sends every request once; aiohttp would send a PUT again when a connection that it kept is closed."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        session._retry_connection = False
        return session


class _Found:
    """Stands where the session looks for credentials."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> Any:
        return self._credentials


class _QuickLoader(JSONFileLoader):  # type: ignore[misc]  # published without types
    """Reads the SDK's models four times as fast, so that the interpreter's lock is not held for long at a time."""

    def _load_file(self, full_path: str, open_method: Callable[..., Any]) -> Any:
        if not os.path.isfile(full_path):
            return None
        with open_method(full_path, "rb") as file:
            return msgspec.json.decode(file.read())


def _new_session(region: str | None) -> AioSession:
    session = get_session()
    if region is not None:
        # For the services that credentials come from.
        session.set_config_variable("region", region)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@functools.cache
def _loader(paths: str | None) -> Loader:
    """Return what reads the models, and keeps them for all sessions of the process."""
    return Loader(extra_search_paths=paths.split(os.pathsep) if paths else None, file_loader=_QuickLoader())


def _warm(loader: Loader) -> None:
    """Read what a client of STS needs, in case that credentials come from there."""
    for name in ("_retry", "endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data(name)
    for name in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("sts", name)


def _keep_quiet() -> None:
    """Keep messages and secrets out of the log: at the level DEBUG the SDK writes every request and reply to it.

    Whoever wants that sets the level of these loggers, which is then left alone.
    """
    for name in ("aiobotocore", "botocore"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


def _config(options: AwsOptions) -> AioConfig:
    # Without an endpoint of one's own it is S3 itself, which knows checksums in trailers; others may not.
    checksums = "when_supported" if options.endpoint is None else "when_required"
    return AioConfig(
        retries={"total_max_attempts": 1, "mode": "standard"},
        http_session_cls=_OnceSession,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation=checksums,
        response_checksum_validation="when_required",
        s3={"addressing_style": _addressing(options), "payload_signing_enabled": False},
    )


def _addressing(options: AwsOptions) -> str:
    if options.path_style:
        return "path"
    # S3 itself has buckets with dots, which no certificate covers as part of the host's name.
    return "auto" if options.path_style is None or options.endpoint is None else "virtual"


async def _close(client: Any) -> None:
    await client.close()
