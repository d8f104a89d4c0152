"""The examples of Dapr's API reference, as they are written there but for the port, on a real socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.host.curl import parse
from tests.host.support import Running, body, component, running

EXAMPLES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("curl_examples.yaml").read_text("utf-8"))
STATE_STORES = ("starwars", "myRedisStore", "myStore", "statestore")


@asynccontextmanager
async def galaxy(folder: Path, state: str = "state.in-memory", **values: str) -> AsyncIterator[Running]:
    """Run a host with every component that an example names."""
    resources = folder / "resources"
    resources.mkdir()
    for name in STATE_STORES:
        component(resources, name, state, **values)
    component(resources, "pubsubName", "pubsub.in-memory")
    component(resources, "myKafka", "bindings.localstorage", rootPath=str(folder / "files"))
    secrets = folder / "secrets.json"
    secrets.write_text('{"db-secret": "p4ssw0rd", "other": "x"}')
    for name in ("kubernetes", "vault", "mySecretStore", "myAwsSecretStore"):
        component(resources, name, "secretstores.local.file", secretsFile=str(secrets))
    config = folder / "config.yaml"
    config.write_text("myConfigKey: {value: myConfigValue}")
    component(resources, "mystore", "configuration.local.file", path=str(config))
    component(resources, "redisStore", "lock.in-memory")
    (folder / "keys").mkdir()
    (folder / "keys" / "myCryptoKey").write_bytes(os.urandom(32))
    component(resources, "myAzureKeyVault", "crypto.dapr.localstorage", path=str(folder / "keys"))
    async with running(resources) as host:
        yield host


async def test_examples_in_order(tmp_path: Path) -> None:
    wrong = []
    asked = 0
    async with galaxy(tmp_path) as host:
        for example in EXAMPLES:
            if example.get("to") == "application":
                continue
            curl = parse(example["command"])
            parts = urlsplit(curl.url)
            target = curl.url.removeprefix(f"{parts.scheme}://{parts.netloc}")
            head = f"{curl.method} {target} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in curl.headers)
            head += f"content-length: {len(curl.content)}\r\n\r\n"
            status, _, data = await host.raw(head.encode() + curl.content)
            asked += 1
            code = example.get("code")
            if status != example["status"] or (code and f'"errorCode":"{code}"'.encode() not in data):
                wrong.append((example["command"], status, data))
        assert body(await host.ask("GET", "/v1.0/state/starwars/key1")) == "myData"
        assert body(await host.ask("GET", "/v1.0/metadata"))["extended"]["myDemoAttribute"] == "myDemoAttributeValue"
    assert not wrong
    assert asked == 53


ANSWERS = {
    "/v1.0/state/starwars/planet?metadata.contentType=application/json": {"name": "Tatooine"},
    "/v1.0/secrets/vault/db-secret": {"db-secret": "p4ssw0rd"},
    "/v1.0/secrets/vault/bulk": {"db-secret": {"db-secret": "p4ssw0rd"}, "other": {"other": "x"}},
    "/v1.0/configuration/mystore?key=myConfigKey": {"myConfigKey": {"value": "myConfigValue"}},
}


@pytest.mark.parametrize("path", ANSWERS)
async def test_bodies_that_the_reference_shows(tmp_path: Path, path: str) -> None:
    async with galaxy(tmp_path) as host:
        await host.ask("POST", "/v1.0/state/starwars", json=[{"key": "planet", "value": {"name": "Tatooine"}}])
        answer = await host.ask("GET", path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert body(answer) == ANSWERS[path]


async def test_locks_as_the_reference_shows_them(tmp_path: Path) -> None:
    async with galaxy(tmp_path) as host:
        for version in ("v1.0-alpha1", "v1.0-alpha"):
            lock = {"resourceId": "lock1", "lockOwner": "vader", "expiryInSeconds": 60}
            other = {"resource_id": "lock1", "lock_owner": "luke", "expiry_in_seconds": "60"}
            answers = [
                await host.ask("POST", f"/{version}/{word}/redisStore", json=fields)
                for word, fields in (
                    ("unlock", lock),
                    ("lock", lock),
                    ("lock", lock),
                    ("unlock", other),
                    ("unlock", lock),
                    ("lock", other),
                    ("unlock", other),
                )
            ]
            assert [answer.status_code for answer in answers] == [200] * 7
            assert [body(answer) for answer in answers] == [
                {"status": 1},
                {"success": True},
                {"success": False},
                {"status": 2},
                {"status": 0},
                {"success": True},
                {"status": 0},
            ]
