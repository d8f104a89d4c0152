"""Routing, tokens, limits, the life of a host: over a real socket, with requests as they are written."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from tests.host.support import body, component, read_response, running

from lapel.errors import AssemblyError, ManifestError, UnavailableError
from lapel.host import AccessRules, ApiRule, HostApp, create_app, server

NO_APP = {
    "errorCode": "ERR_DIRECT_INVOKE",
    "message": "failed getting app id either from the URL path or the header dapr-app-id",
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return component(tmp_path, "store", "state.in-memory")


async def test_a_path_is_split_before_it_is_unescaped(store: Path) -> None:
    async with running(store) as host:
        for raw, key in (
            ("a%2Fb", "a/b"),
            ("a+b", "a b"),
            ("%C3%A9", "é"),
            ("..%2F..%2Fx", "../../x"),
            ("%2E%2E", ".."),
        ):
            saved = await host.ask("POST", "/v1.0/state/store", json=[{"key": key, "value": key}])
            assert saved.status_code == 204
            status, _, data = await host.get_raw(f"/v1.0/state/store/{raw}")
            assert (status, json.loads(data)) == (200, key)


async def test_repeated_slashes_and_one_at_the_end_are_ignored(store: Path) -> None:
    async with running(store) as host:
        await host.ask("POST", "/v1.0/state/store", json=[{"key": "k", "value": 1}])
        for target in ("//v1.0//state/store///k", "/v1.0/state/store/k/", "/v1.0/state/x/../store/./k"):
            assert (await host.get_raw(target))[::2] == (200, b"1"), target


@pytest.mark.parametrize(
    "target", ["/v1.0/state/store/a%zz", "/v1.0/state/store/a%2", "/nothing%", "/v1.0/healthz?a=%g1"]
)
async def test_a_bad_escape_is_refused_in_plain_text(store: Path, target: str) -> None:
    async with running(store) as host:
        status, headers, data = await host.get_raw(target)
        assert status == 400
        assert headers["content-type"].startswith("text/plain")
        assert b"invalid URL escape" in data


@pytest.mark.parametrize("target", ["/v1.0/state/store/%ff", "/v1.0/state/store/k?metadata.a=%ff"])
async def test_an_escape_that_is_no_text_is_refused(store: Path, target: str) -> None:
    async with running(store) as host:
        status, _, data = await host.get_raw(target)
        assert status == 400
        assert b"not UTF-8" in data


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/"),
        ("GET", "/v1.0"),
        ("GET", "/v2.0/state/store/k"),
        ("GET", "/v1.0/nothing/x"),
        ("GET", "/v1.0/state/store"),
        ("PATCH", "/v1.0/state/store/k"),
        ("POST", "/v1.0/healthz"),
        ("GET", "/v1.0/state/store/../../../../etc/passwd"),
        ("OPTIONS", "/v1.0/state/store"),
    ],
)
async def test_a_path_or_method_that_nobody_has_falls_through_to_invocation(
    store: Path, method: str, target: str
) -> None:
    async with running(store) as host:
        status, headers, data = await host.get_raw(target, method)
        assert (status, headers["content-type"], json.loads(data)) == (404, "application/json", NO_APP)


async def test_a_header_that_names_an_application_makes_an_unknown_path_an_invocation(store: Path) -> None:
    async with running(store) as host:
        answers = [
            await host.ask("GET", "/anything", headers={"dapr-app-id": "other"}),
            await host.ask("POST", "/anything", auth=("dapr-app-id", "other")),
            await host.ask("POST", "/v1.0/invoke/other/method/m"),
        ]
        for answer in answers:
            assert (answer.status_code, body(answer)["errorCode"]) == (501, "ERR_API_UNIMPLEMENTED")


async def test_a_token_is_asked_for_everywhere_but_at_the_health_routes(store: Path) -> None:
    async with running(store, api_token="secret") as host:
        for path in ("/v1.0/healthz", "/v1.0/healthz/outbound"):
            assert (await host.ask("GET", path)).status_code == 204
        for path in ("/v1.0/state/store/k", "/v1.0/metadata", "/nothing"):
            for headers in ({}, {"dapr-api-token": "wrong"}, {"dapr-api-token": ""}):
                refused = await host.ask("GET", path, headers=headers)
                assert (refused.status_code, refused.text) == (401, "invalid api token")
        allowed = await host.ask("GET", "/v1.0/state/store/k", headers={"dapr-api-token": "secret"})
        assert allowed.status_code == 204


async def test_a_body_over_the_limit_is_refused_and_changes_nothing(store: Path) -> None:
    async with running(store, max_body_size=1000) as host:
        large = json.dumps([{"key": "k", "value": "x" * 2000}])
        for content in (large, (part.encode() async for part in _parts(large))):
            refused = await host.ask("POST", "/v1.0/state/store", content=content)
            assert (refused.status_code, body(refused)["errorCode"]) == (413, "ERR_BODY_READ")
        assert (await host.ask("GET", "/v1.0/state/store/k")).status_code == 204
        fitting = json.dumps([{"key": "k", "value": "x" * 900}])
        assert (await host.ask("POST", "/v1.0/state/store", content=fitting)).status_code == 204


async def _parts(text: str):  # type: ignore[no-untyped-def]
    for start in range(0, len(text), 500):
        yield text[start : start + 500]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\nlong: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\nlong: " + b"a" * 20000,
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
    ],
    ids=["one header", "unfinished", "target", "many headers"],
)
async def test_a_head_over_the_limit_is_refused(store: Path, head: bytes) -> None:
    async with running(store) as host:
        assert (await host.raw(head))[0] == 431
        assert (await host.ask("GET", "/v1.0/healthz")).status_code == 204


async def test_a_body_in_the_packet_of_its_head_does_not_count_as_head(store: Path) -> None:
    async with running(store) as host:
        content = json.dumps([{"key": "k", "value": "x" * 30000}]).encode()
        head = b"POST /v1.0/state/store HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content)
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        for _ in range(3):
            writer.write(head + content)
            assert (await read_response(reader))[0] == 204
        writer.close()


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
async def test_a_wish_for_another_protocol_is_ignored_and_the_body_read(store: Path, name: str) -> None:
    async with running(store) as host:
        content = b'[{"key":"k","value":"\\r\\n\\r\\nUpgrade: x"}]'
        head = (
            f"POST /v1.0/state/store HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\n{name}: h2c\r\n"
            f"http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        for _ in range(2):  # the connection stays usable
            writer.write(head.encode() + content)
            assert (await read_response(reader))[0] == 204
        writer.close()
        assert (await host.ask("GET", "/v1.0/state/store/k")).json() == "\r\n\r\nUpgrade: x"


async def test_a_head_that_does_not_end_is_given_up(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    async with running(store) as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        for _ in range(2):
            writer.write(b"GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\n")
            await writer.drain()
            writer.write(b"\r\n")
            assert (await read_response(reader))[0] == 204
        writer.write(b"GET /v1.0/healthz HTTP/1.1\r\n")
        started = asyncio.get_running_loop().time()
        trickle = asyncio.create_task(_trickle(writer))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert asyncio.get_running_loop().time() - started < 5
        trickle.cancel()
        writer.close()


async def _trickle(writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(0.05)
        writer.write(b"a: b\r\n")


async def test_a_connection_without_a_request_is_closed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    async with running(store) as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_what_is_not_http_is_refused(store: Path) -> None:
    async with running(store) as host:
        assert (await host.raw(b"nonsense\r\n\r\n"))[0] == 400


async def test_lists_of_apis_take_routes_away(store: Path) -> None:
    denied = AccessRules(denied_apis=(ApiRule(name="state", version="v1"), ApiRule(name="healthz", version="v1")))
    async with running(store, rules=denied) as host:
        gone = await host.ask("GET", "/v1.0/state/store/k")
        assert (gone.status_code, body(gone)) == (404, NO_APP)
        assert (await host.ask("POST", "/v1.0-alpha1/state/store/query", json={})).status_code == 204
        assert (await host.ask("GET", "/v1.0/metadata")).status_code == 200
        assert (await host.ask("GET", "/v1.0/healthz")).status_code == 204
    allowed = AccessRules(
        allowed_apis=(ApiRule(name="state", version="v1", protocol="http"), ApiRule(name="x", version="v1"))
    )
    async with running(store, rules=allowed) as host:
        assert (await host.ask("GET", "/v1.0/state/store/k")).status_code == 204
        assert body(await host.ask("GET", "/v1.0/metadata")) == NO_APP
        assert (await host.ask("GET", "/v1.0/healthz/outbound")).status_code == 204


async def test_health_names_an_application_that_is_not_this_one(store: Path) -> None:
    async with running(store) as host:
        assert (await host.ask("GET", "/v1.0/healthz?appid=myapp")).status_code == 204
        wrong = await host.ask("GET", "/v1.0/healthz?appid=other")
        assert (wrong.status_code, body(wrong)["errorCode"]) == (500, "ERR_HEALTH_APPID_NOT_MATCH")


async def test_a_host_that_drains_says_that_it_is_not_ready_and_still_serves(store: Path) -> None:
    async with running(store) as host:
        await host.host.drain()
        for path, code in (("", "ERR_HEALTH_NOT_READY"), ("/outbound", "ERR_OUTBOUND_HEALTH_NOT_READY")):
            unready = await host.ask("GET", f"/v1.0/healthz{path}")
            assert (unready.status_code, body(unready)["errorCode"]) == (500, code)
        assert (await host.ask("GET", "/v1.0/state/store/k")).status_code == 204


async def test_metadata_shows_components_and_attributes(tmp_path: Path, store: Path) -> None:
    component(tmp_path, "cron", "bindings.cron", schedule="@every 1h")
    component(tmp_path, "env", "secretstores.local.env")
    async with running(tmp_path) as host:
        put = await host.ask("PUT", "/v1.0/metadata/my%20attribute", content="a value")
        assert put.status_code == 204
        document = body(await host.ask("GET", "/v1.0/metadata"))
        assert document["id"] == "myapp"
        assert document["extended"]["my attribute"] == "a value"
        shown = {entry["name"]: entry for entry in document["components"]}
        assert shown["store"]["type"] == "state.in-memory"
        assert shown["store"]["version"] == "v1"
        assert {"ETAG", "TRANSACTIONAL", "TTL", "QUERY_API", "ACTOR"} <= set(shown["store"]["capabilities"])
        assert shown["cron"]["capabilities"] == ["INPUT_BINDING"]


async def test_the_shutdown_api_answers_and_then_ends_the_host(store: Path) -> None:
    async with running(store) as host:
        assert (await host.ask("POST", "/v1.0/shutdown")).status_code == 204
        await asyncio.wait_for(asyncio.shield(host.serving), 10)
        with pytest.raises(httpx.ConnectError):
            await host.ask("GET", "/v1.0/healthz")


async def test_a_port_that_is_taken_is_named(store: Path) -> None:
    async with running(store) as host:
        with pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1 port {host.port}"):
            async with running(store, http_port=host.port):
                pass


async def test_components_that_do_not_open_end_the_start(tmp_path: Path) -> None:
    component(tmp_path, "bad", "state.sqlite", connectionString=str(tmp_path / "missing" / "x.db"))
    with pytest.raises(AssemblyError, match="bad"):
        async with running(tmp_path):
            pass
    component(tmp_path, "worse", "state.sqlite", connectionStrng="x")
    with pytest.raises(ManifestError, match="connectionStrng"):
        async with running(tmp_path):
            pass


async def test_hooks_see_route_and_status_of_every_request(store: Path) -> None:
    seen: list[tuple[str, str, int]] = []

    class Hook:
        def started(self, request: object, route: object) -> object:
            return route

        def finished(self, token: object, status: int) -> None:
            seen.append((token.template, token.group, status))  # type: ignore[attr-defined]

    async with running(store) as host:
        host.host.hooks.append(Hook())
        await host.ask("GET", "/v1.0/state/store/k")
        await host.ask("GET", "/v1.0/state/nothing/k")
        await host.ask("GET", "/nothing")
    assert seen == [("/v1.0/state/{store}/{key}", "state", 204), ("/v1.0/state/{store}/{key}", "state", 400)]


async def test_parts_live_with_the_host(store: Path) -> None:
    life: list[str] = []

    class Part:
        async def start(self) -> None:
            life.append("start")

        async def drain(self) -> None:
            life.append("drain")
            raise RuntimeError("a part that fails does not stop the others")

        async def stop(self) -> None:
            life.append("stop")

        def unready(self) -> str | None:
            return None if "drain" in life else "the part"

        def metadata(self) -> dict[str, object]:
            return {"part": 1}

    app: HostApp = create_app(store, app_id="myapp")
    app.host.parts.append(Part())
    async with app.host, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        unready = await client.get("/v1.0/healthz")
        assert (unready.status_code, "the part" in unready.json()["message"]) == (500, True)
        assert (await client.get("/v1.0/healthz/outbound")).status_code == 204
        assert (await client.get("/v1.0/metadata")).json()["part"] == 1
    assert life == ["start", "drain", "stop"]
