"""Publish, bindings, secrets and configuration over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.host.support import Embedded, b64, body, component, embedded

from lapel.configuration import ConfigurationEvent
from lapel.delivery import Outcome
from lapel.errors import UnavailableError
from lapel.host import AccessRules, SecretScope
from lapel.host.app import AppSide
from lapel.pubsub import Message

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Embedded]:
    folder = tmp_path / "resources"
    folder.mkdir()
    (tmp_path / "secrets.json").write_text('{"a": "1", "b": "2", "group": {"x": "3"}}')
    component(folder, "bus", "pubsub.in-memory")
    component(folder, "files", "bindings.localstorage", rootPath=str(tmp_path / "files"))
    component(folder, "secrets", "secretstores.local.file", secretsFile=str(tmp_path / "secrets.json"))
    component(folder, "narrow", "secretstores.local.file", secretsFile=str(tmp_path / "secrets.json"))
    component(folder, "config", "configuration.sqlite", connectionString=str(tmp_path / "c.db"), tableName="c")
    rules = AccessRules(
        secrets={"narrow": SecretScope(default_access="deny", allowed=frozenset({"a"}), denied=frozenset({"a"}))}
    )
    async with embedded(folder, rules=rules) as running:
        yield running


class Heard:
    """What a subscription of the test has got."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()

    async def __call__(self, message: Message) -> Outcome | None:
        await self.messages.put(message)
        return None

    async def next(self) -> Message:
        return await asyncio.wait_for(self.messages.get(), 10)


async def heard(host: Embedded, topic: str, *, raw: bool = False) -> Heard:
    listener = Heard()
    await host.host.components.pubsub("bus").subscribe(topic, listener, raw=raw)
    return listener


@pytest.mark.parametrize(
    ("content_type", "content", "field", "value"),
    [
        ("application/json", b'{"n":12345678901234567890.10}', "data", '{"n":12345678901234567890.10}'),
        ("application/json; charset=utf-8", b"[1]", "data", "[1]"),
        ("application/json", b"no json", "data", '"no json"'),
        ("text/plain", b"text", "data", '"text"'),
        ("application/vnd.x+json", b"{}", "data", '"{}"'),
        ("application/octet-stream", b"\xff", "data_base64", '"/w=="'),
        (None, b"", "data", '""'),
    ],
)
async def test_an_event_is_put_into_an_envelope(
    host: Embedded, content_type: str | None, content: bytes, field: str, value: str
) -> None:
    listener = await heard(host, "a/b", raw=True)
    headers = {"traceparent": TRACE, "tracestate": "a=b"} | ({"content-type": content_type} if content_type else {})
    answer = await host.ask("POST", "/v1.0/publish/bus/a/b?metadata.x=y", content=content, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    message = await listener.next()
    assert f'"{field}":{value}'.encode() in message.data
    event = json.loads(message.data)
    assert event["datacontenttype"] == (content_type or "text/plain")
    assert (event["source"], event["topic"], event["pubsubname"]) == ("myapp", "a/b", "bus")
    assert (event["traceparent"], event["traceid"], event["tracestate"]) == (TRACE, TRACE, "a=b")
    assert message.metadata["x"] == "y"


async def test_an_event_may_go_without_an_envelope(host: Embedded) -> None:
    listener = await heard(host, "t", raw=True)
    for value in ("true", "1", "T"):
        answer = await host.ask("PUT", f"/v1.0/publish/bus/t?metadata.rawPayload={value}", content=b"\x00raw")
        assert answer.status_code == 204
        assert (await listener.next()).data == b"\x00raw"


async def test_an_event_that_is_one_already_is_not_wrapped(host: Embedded) -> None:
    listener = await heard(host, "t")
    event = {"id": "7", "source": "me", "data": {"x": 1}, "own": "attribute", "topic": "other"}
    headers = {"content-type": "application/cloudevents+json"}
    assert (await host.ask("POST", "/v1.0/publish/bus/t", json=event, headers=headers)).status_code == 204
    got = (await listener.next()).event
    assert (got.id, got.source, got.topic) == ("7", "me", "t")


@pytest.mark.parametrize("path", ["/v1.0/publish/bulk/bus/t", "/v1.0-alpha1/publish/bulk/bus/t"])
async def test_a_bulk_publishes_every_kind_of_event(host: Embedded, path: str) -> None:
    listener = await heard(host, "t", raw=True)
    entries: list[dict[str, Any]] = [
        {"entryId": "1", "event": "text", "contentType": "text/plain"},
        {"entryId": "2", "event": {"n": 1}, "contentType": "application/json", "metadata": {"cloudevent.id": "own"}},
        {"entryId": "3", "event": b64(b"\xff"), "contentType": "application/octet-stream"},
        {"entryId": "4", "event": {"id": "e", "data": 1}, "contentType": "application/cloudevents+json"},
        {"entryId": "5", "event": "<x/>", "contentType": "application/xml; charset=utf-8"},
    ]
    answer = await host.ask("POST", path, json=entries)
    assert (answer.status_code, answer.content) == (204, b"")
    datas = [(await listener.next()).data for _ in entries]
    for expected in (b'"data":"text"', b'"data":{"n":1}', b'"data_base64":"/w=="', b'"id":"e"', b'"data":"<x/>"'):
        assert sum(expected in data for data in datas) == 1, expected
    assert any(b'"id":"own"' in data for data in datas)
    assert (await host.ask("POST", path, json=[])).status_code == 204


async def test_a_bulk_of_which_some_fail_names_them(host: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = host.host.components.pubsub("bus").driver
    publish = driver.publish

    async def some(request: Any) -> None:
        if b"bad" in request.data:
            raise UnavailableError("the broker is away")
        await publish(request)

    monkeypatch.setattr(driver, "publish", some)
    entries = [{"entryId": text, "event": text, "contentType": "text/plain"} for text in ("good", "bad")]
    answer = await host.ask("POST", "/v1.0/publish/bulk/bus/t", json=entries)
    assert answer.status_code == 500
    assert body(answer) == {
        "failedEntries": [{"entryId": "bad", "error": "the broker is away"}],
        "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE",
    }
    assert answer.headers["metadata.responseData"] == answer.text
    assert "the broker is away" in answer.headers["metadata.error"]


async def test_a_binding_gets_its_data_as_json_and_answers_with_bytes(host: Embedded, tmp_path: Path) -> None:
    # A string is the text itself, as in Dapr, whatever that looks like.
    for text, stored in (
        ('"x"', b"x"),
        ('"\\u00fc\\n"', "ü\n".encode()),
        ('"dGVzdA=="', b"dGVzdA=="),
        ('{"n": 1.10}', b'{"n": 1.10}'),
    ):
        content = f'{{"operation":"create","data":{text},"metadata":{{"fileName":"f"}}}}'.encode()
        assert (await host.ask("POST", "/v1.0/bindings/files", content=content)).status_code == 200
        assert (tmp_path / "files" / "f").read_bytes() == stored
        got = await host.ask("PUT", "/v1.0/bindings/files", json={"operation": "get", "metadata": {"fileName": "f"}})
        assert (got.status_code, got.content) == (200, stored)
    gone = await host.ask("POST", "/v1.0/bindings/files", json={"operation": "delete", "metadata": {"fileName": "f"}})
    assert (gone.status_code, gone.content) == (204, b"")


async def test_secrets_are_given_out_as_scopes_allow(host: Embedded) -> None:
    assert body(await host.ask("GET", "/v1.0/secrets/secrets/a")) == {"a": "1"}
    assert body(await host.ask("GET", "/v1.0/secrets/secrets/group:x")) == {"group:x": "3"}
    everything = body(await host.ask("GET", "/v1.0/secrets/secrets/bulk"))
    assert everything["b"] == {"b": "2"}
    assert body(await host.ask("GET", "/v1.0/secrets/narrow/a")) == {"a": "1"}
    assert (await host.ask("GET", "/v1.0/secrets/narrow/b")).status_code == 403
    assert body(await host.ask("GET", "/v1.0/secrets/narrow/bulk")) == {"a": {"a": "1"}}


class Application:
    """Stands for the application's side of a host."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, ConfigurationEvent]] = asyncio.Queue()

    def on_configuration(self, store: str) -> Callable[[ConfigurationEvent], Awaitable[None]]:
        return lambda event: self.told.put((store, event))


@pytest.mark.parametrize("version", ["v1.0", "v1.0-alpha1"])
async def test_configuration_is_read_and_watched(tmp_path: Path, version: str) -> None:
    path = tmp_path / "items.yaml"
    path.write_text("a: {value: one, version: v7, metadata: {m: n}}\nb: {value: two}\n")
    source = component(tmp_path, "config", "configuration.local.file", path=str(path))
    base = f"/{version}/configuration/config"
    async with embedded(source) as host:
        app = Application()
        host.host.app = cast("AppSide", app)
        assert body(await host.ask("GET", f"{base}?key=a")) == {
            "a": {"value": "one", "version": "v7", "metadata": {"m": "n"}}
        }
        assert body(await host.ask("GET", base)).keys() == {"a", "b"}
        nothing = await host.ask("GET", f"{base}?key=none")
        assert (nothing.status_code, nothing.content) == (204, b"")
        subscription = body(await host.ask("GET", f"{base}/subscribe?key=b"))["id"]
        path.write_text("a: {value: other}\nb: {value: three}\n")
        store, event = await asyncio.wait_for(app.told.get(), 20)
        assert (store, event.id, event.items["b"].value) == ("config", subscription, "three")
        ended = await host.ask("GET", f"{base}/{subscription}/unsubscribe")
        assert (ended.status_code, body(ended)) == (200, {"ok": True})
        again = await host.ask("GET", f"{base}/{subscription}/unsubscribe")
        assert again.status_code == 500
        assert body(again).keys() == {"message"}
