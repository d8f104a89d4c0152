"""Dapr's own Python SDK against a host, as far as it speaks HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dapr.actor.id import ActorId
from dapr.clients.exceptions import DaprHttpError, DaprInternalError
from dapr.clients.health import DaprHealth
from dapr.clients.http.client import DaprHttpClient
from dapr.clients.http.dapr_actor_http_client import DaprActorHttpClient
from dapr.clients.http.dapr_invocation_http_client import DaprInvocationHttpClient
from dapr.clients.http.helpers import get_api_url
from dapr.conf import settings
from dapr.serializers import DefaultJSONSerializer
from tests.host.support import Running, component, running

TOKEN = "a token of the test"


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    (tmp_path / "resources").mkdir()
    component(tmp_path / "resources", "store", "state.in-memory")
    component(tmp_path / "resources", "bus", "pubsub.in-memory")
    async with running(tmp_path / "resources", api_token=TOKEN) as served:
        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", served.port)
        monkeypatch.setattr(settings, "DAPR_HTTP_ENDPOINT", None)
        monkeypatch.setattr(settings, "DAPR_RUNTIME_HOST", "127.0.0.1")
        monkeypatch.setattr(settings, "DAPR_API_TOKEN", TOKEN)
        monkeypatch.setattr(settings, "DAPR_HEALTH_TIMEOUT", 5)
        yield served


async def _client(kind: Any, *arguments: Any) -> Any:
    """Make a client in a thread: it waits for the sidecar, which is in this loop."""
    return await asyncio.to_thread(kind, *arguments)


async def test_it_waits_for_the_components_and_not_for_the_application(
    host: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(DaprHealth.wait_for_sidecar)
    await host.host.drain()
    monkeypatch.setattr(settings, "DAPR_HEALTH_TIMEOUT", 1)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(DaprHealth.wait_for_sidecar)


async def test_its_http_client_saves_and_reads_state(host: Running) -> None:
    client: DaprHttpClient = await _client(DaprHttpClient, DefaultJSONSerializer())
    store = f"{get_api_url()}/state/store"
    data = json.dumps([{"key": "k", "value": {"n": 12345678901234567890}}]).encode()
    body, answer = await client.send_bytes("POST", store, data, headers={})
    assert (answer.status, body) == (204, b"")
    body, answer = await client.send_bytes("GET", f"{store}/k", None, headers={})
    assert (answer.status, json.loads(body)) == (200, {"n": 12345678901234567890})
    await client.send_bytes("POST", f"{get_api_url()}/publish/bus/t", b"{}", headers={})


async def test_it_understands_our_errors(host: Running) -> None:
    client: DaprHttpClient = await _client(DaprHttpClient, DefaultJSONSerializer())
    with pytest.raises(DaprHttpError) as caught:
        await client.send_bytes("GET", f"{get_api_url()}/state/nothing/k", None, headers={})
    error: Any = caught.value
    assert error.status_code == 400
    assert error.error_code == "ERR_STATE_STORE_NOT_FOUND"
    assert error.message == "state store nothing is not found"


async def test_without_the_token_it_is_refused(host: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DAPR_API_TOKEN", "another")
    client: DaprHttpClient = await _client(DaprHttpClient, DefaultJSONSerializer())
    with pytest.raises(DaprHttpError) as caught:
        await client.send_bytes("GET", f"{get_api_url()}/state/store/k", None, headers={})
    assert caught.value.status_code == 401


async def test_it_learns_that_actors_and_invocation_are_not_here(host: Running) -> None:
    actors: DaprActorHttpClient = await _client(DaprActorHttpClient, DefaultJSONSerializer())
    with pytest.raises(DaprInternalError) as caught:
        await actors.invoke_method("type", str(ActorId("1")), "method", b"{}")
    assert "currently not implemented" in str(caught.value)
    caller: DaprInvocationHttpClient = await _client(DaprInvocationHttpClient)
    with pytest.raises(DaprInternalError) as caught:
        await caller.invoke_method_async("other", "method", b"", "application/json")
    assert "currently not implemented" in str(caught.value)
