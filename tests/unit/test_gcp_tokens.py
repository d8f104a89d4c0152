"""How the drivers of Google Cloud fetch tokens: through which proxy, and never past the end of a call."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import google.auth
import google.oauth2.credentials
import pytest
import requests
from google.auth.transport.requests import Request
from tests.unit.test_gcp_settings import ACCOUNT

from lapel.driver import DriverContext, SharedClients
from lapel_contrib.gcp.client import StorageClient
from lapel_contrib.gcp.component_settings import BucketSettings, SecretManagerSettings
from lapel_contrib.gcp.secrets import SecretManagerStore, _Client
from lapel_contrib.gcp.transport import WatchedAdapter

PROXY = "http://proxy.example:3128"


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str | None]:
    """Which proxy a request to a host went through; every request is answered with an empty body."""
    used: dict[str, str | None] = {}

    def send(adapter: object, request: requests.PreparedRequest, *_: Any, proxies: Any, **__: Any) -> requests.Response:
        assert request.url is not None
        used[urlsplit(request.url).hostname or ""] = requests.utils.select_proxy(request.url, proxies)
        answer = requests.Response()
        answer.status_code, answer._content = 200, b""
        return answer

    monkeypatch.setattr(WatchedAdapter, "send", send)
    # In place of the environment, which backends that start meanwhile would see too.
    monkeypatch.setattr(requests.utils, "getproxies", lambda: {"http": PROXY, "https": PROXY})
    return used


HOSTS = {
    "metadata.google.internal": "http://metadata.google.internal/computeMetadata/v1/",
    "oauth2.googleapis.com": "https://oauth2.googleapis.com/token",
    "127.0.0.1": "http://127.0.0.1/token",
}


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("metadata.google.internal", {"metadata.google.internal"}),
        ("storage.googleapis.com,secretmanager.googleapis.com", set()),
    ],
)
async def test_a_token_goes_through_the_proxy_for_its_own_host(
    monkeypatch: pytest.MonkeyPatch, proxies: Mapping[str, str | None], no_proxy: str, direct: set[str]
) -> None:
    monkeypatch.setenv("no_proxy", no_proxy)
    shared = SharedClients()
    access = BucketSettings.parse({**ACCOUNT, "bucket": "b"}).access()
    storage = await StorageClient.acquire(access, shared)
    secrets = await _Client.open(SecretManagerSettings.parse(ACCOUNT).access())
    transport: Any = secrets.sdk.transport
    requesters: list[Request] = [storage.token_request, transport._session._auth_request]
    for request in requesters:
        for url in HOSTS.values():
            request(url)
        for host in HOSTS:
            assert proxies[host] == (None if host in direct or host == "127.0.0.1" else PROXY), host
    await secrets.close()
    await shared.release(StorageClient.key_of(access))


async def test_a_cancelled_call_that_waits_for_a_token_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        identity = google.oauth2.credentials.Credentials(
            None,
            refresh_token="r",
            token_uri=f"http://127.0.0.1:{server.getsockname()[1]}/token",
            client_id="i",
            client_secret="s",
        )
        monkeypatch.setattr(google.auth, "default", lambda scopes: (identity, None))
        settings = SecretManagerSettings.parse({"projectID": "shop"})
        store = SecretManagerStore(settings, DriverContext(component="secrets"))
        opening = asyncio.create_task(store.open())
        server.settimeout(20)
        connection, _ = await asyncio.to_thread(server.accept)
        with connection:
            connection.settimeout(20)
            assert await asyncio.to_thread(connection.recv, 65536)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            while await asyncio.to_thread(connection.recv, 65536):
                pass
        await store.close()
