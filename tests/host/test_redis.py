"""The main parts of the host on a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.backends.redis import RedisBackend
from tests.host.support import Running, body, component, running

STATE = "/v1.0/state/store"


@pytest.fixture
async def host(tmp_path: Path, redis_server: RedisBackend) -> AsyncIterator[Running]:
    values = {key: str(value) for key, value in redis_server.properties.items()}
    for name, kind in (("store", "state"), ("bus", "pubsub"), ("locks", "lock"), ("config", "configuration")):
        component(tmp_path, name, f"{kind}.redis", **values)
    component(tmp_path, "cache", "bindings.redis", **values)
    # Other tests use this server too.
    async with running(tmp_path, app_id=f"host-{tmp_path.name}") as served:
        yield served


async def test_state(host: Running) -> None:
    saved = await host.ask("POST", STATE, content=b'[{"key":"a/b","value":12345678901234567890.10},{"key":"l"}]')
    assert saved.status_code == 204
    answer = await host.ask("GET", f"{STATE}/a%2Fb")
    assert (answer.status_code, answer.text) == (200, "12345678901234567890.10")
    etag = answer.headers["etag"]
    assert etag.isdigit()
    stale = await host.ask("POST", STATE, json=[{"key": "a/b", "value": 1, "etag": "1"}])
    assert (stale.status_code, body(stale)["errorCode"]) == (409, "ERR_STATE_SAVE")
    wrong = await host.ask("DELETE", f"{STATE}/a%2Fb", headers={"if-match": "no number"})
    assert (wrong.status_code, body(wrong)["errorCode"]) == (400, "ERR_STATE_DELETE")
    assert (await host.ask("DELETE", f"{STATE}/a%2Fb", headers={"if-match": etag})).status_code == 204
    assert (await host.ask("GET", f"{STATE}/a%2Fb")).status_code == 204
    ttl = await host.ask("POST", f"{STATE}?metadata.ttlInSeconds=100", json=[{"key": "t", "value": 1}])
    assert ttl.status_code == 204
    assert "metadata.ttlexpiretime" in (await host.ask("GET", f"{STATE}/t")).headers
    operations = [{"operation": "upsert", "request": {"key": k, "value": k}} for k in "xyz"]
    assert (await host.ask("POST", f"{STATE}/transaction", json={"operations": operations})).status_code == 204
    found = body(await host.ask("POST", f"{STATE}/bulk", json={"keys": ["x", "none", "z"]}))
    assert [entry.get("data") for entry in found] == ["x", None, "z"]


async def test_a_value_is_where_a_sidecar_would_look_for_it(host: Running, redis_server: RedisBackend) -> None:
    from redis.asyncio import Redis

    await host.ask("POST", STATE, json=[{"key": "k", "value": {"a": 1}}])
    client = Redis(
        host=redis_server.host,
        port=redis_server.port,
        username=redis_server.username,
        password=redis_server.password,
    )
    async with client:
        stored: Any = await client.hget(f"{host.host.options.app_id}||k", "data")
    assert json.loads(stored) == {"a": 1}


async def test_many_clients_at_once(host: Running) -> None:
    async def one(number: int) -> None:
        path = f"{STATE}/k{number}"
        assert (await host.ask("POST", STATE, json=[{"key": f"k{number}", "value": number}])).status_code == 204
        assert (await host.ask("GET", path)).text == str(number)

    await asyncio.gather(*(one(number) for number in range(100)))


async def test_publish(host: Running) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(message: Any) -> None:
        await got.put(message.event.data)

    await host.host.components.pubsub("bus").subscribe("orders/new", handler)
    answer = await host.ask("POST", "/v1.0/publish/bus/orders/new", json={"id": 1})
    assert answer.status_code == 204
    bulk = [{"entryId": "1", "event": {"id": 2}, "contentType": "application/json"}]
    assert (await host.ask("POST", "/v1.0/publish/bulk/bus/orders/new", json=bulk)).status_code == 204
    datas = {json.dumps(json.loads(await asyncio.wait_for(got.get(), 20))) for _ in range(2)}
    assert datas == {'{"id": 1}', '{"id": 2}'}


async def test_lock_binding_and_configuration(host: Running) -> None:
    lock = {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 20}
    assert body(await host.ask("POST", "/v1.0-alpha1/lock/locks", json=lock)) == {"success": True}
    assert body(await host.ask("POST", "/v1.0-alpha1/lock/locks", json=lock)) == {"success": False}
    assert body(await host.ask("POST", "/v1.0-alpha1/unlock/locks", json=lock)) == {"status": 0}
    key = {"key": f"{host.host.options.app_id}-binding"}
    create = {"operation": "create", "data": {"n": 1}, "metadata": key}
    assert (await host.ask("POST", "/v1.0/bindings/cache", json=create)).status_code in (200, 204)
    got = await host.ask("POST", "/v1.0/bindings/cache", json={"operation": "get", "metadata": key})
    assert (got.status_code, body(got)) == (200, {"n": 1})
    nothing = await host.ask("GET", "/v1.0/configuration/config?key=none-of-this-name")
    assert nothing.status_code == 204
