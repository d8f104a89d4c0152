"""The client of Google Cloud Storage."""

from __future__ import annotations

from typing import Final

import requests
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage

from lapel.driver import SharedClients

from .credentials import Identity, load_identity
from .settings import Access
from .threads import Threads

__all__ = ["THREADS", "StorageClient"]

THREADS: Final = 64
"""Most blocking calls at once; further ones wait for a thread."""

_PUBLIC: Final = "https://storage.googleapis.com"


class StorageClient(Threads):
    """google-cloud-storage off the event loop.

    Nothing is repeated by it, except a request that was answered with 401: it was not done, and goes out once more with
    a new token.
    """

    sdk: storage.Client
    session: AuthorizedSession
    token_request: Request
    """What tokens are fetched with; not `session`, which would want one first."""
    identity: Identity
    endpoint: str = _PUBLIC

    def __init__(self) -> None:
        super().__init__("lapel-gcs", THREADS)

    @classmethod
    async def acquire(cls, access: Access, shared: SharedClients) -> StorageClient:
        """Make a client, or join those who have one with equal access; to be given back as `key_of(access)`.

        Nothing is sent but for what finding credentials needs. Raises `ConfigurationError` and `UnavailableError`.
        """
        return await shared.acquire(cls.key_of(access), lambda: cls._open(access), cls.close)

    @staticmethod
    def key_of(access: Access) -> tuple[str, Access]:
        """Return the key under which a client is shared."""
        return "gcp.storage", access

    @classmethod
    async def _open(cls, access: Access) -> StorageClient:
        client = cls()
        try:
            await client.run(client._make, access, place="credentials", writes=False)
        except BaseException:
            await client.close()
            raise
        return client

    def _make(self, access: Access) -> None:
        self.endpoint = access.endpoint or _PUBLIC
        self.identity = load_identity(access, storage.Client.SCOPE)
        tokens = requests.Session()
        self.adopt(tokens)
        self.token_request = Request(tokens)
        self.session = AuthorizedSession(self.identity.requests, auth_request=self.token_request)
        self.adopt(self.session, self.endpoint)
        self.sdk = storage.Client(
            project=access.project,
            credentials=self.identity.requests,
            _http=self.session,
            client_options=None if access.endpoint is None else {"api_endpoint": access.endpoint},
        )
        # Release 3.17 reads the bucket's attributes for spans on threads of its own, even where nobody traces.
        self.sdk._bucket_metadata_cache = None
