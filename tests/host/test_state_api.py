"""State over HTTP: values untouched, etags, lifetimes, bulk, transactions, queries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.host.support import Embedded, body, component, embedded

STATE = "/v1.0/state/store"
VALUES = [
    "12345678901234567890123456789",
    "1.10",
    "1e400",
    "-0",
    '{"b": 1, "a" : [ 2,3 ], "b2": 1.0}',
    '"DeathStar"',
    '""',
    "null",
    "false",
    "[]",
    '"\\u00e9 é \\n"',
    '{"a":1,"a":2}',
]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with embedded(component(tmp_path, "store", "state.in-memory")) as running:
        yield running


@pytest.mark.parametrize("value", VALUES)
async def test_values_come_back_as_they_were_written(host: Embedded, value: str) -> None:
    for path, text in (
        (STATE, f'[{{"key":"k","value": {value} }}]'),
        (
            f"{STATE}/transaction",
            f'{{"operations":[{{"operation":"upsert","request":{{"value":{value},"key":"k"}}}}]}}',
        ),
    ):
        saved = await host.ask("POST", path, content=text.encode())
        assert (saved.status_code, saved.content) == (204, b"")
        answer = await host.ask("GET", f"{STATE}/k")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.text == value
        bulk = await host.ask("POST", f"{STATE}/bulk", json={"keys": ["k"]})
        assert f'"data":{value},'.encode() in bulk.content


async def test_a_value_that_is_missing_is_null(host: Embedded) -> None:
    assert (await host.ask("POST", STATE, json=[{"key": "k"}])).status_code == 204
    assert (await host.ask("GET", f"{STATE}/k")).content == b"null"


async def test_put_is_post(host: Embedded) -> None:
    assert (await host.ask("PUT", STATE, json=[{"key": "k", "value": 1}])).status_code == 204
    assert (await host.ask("PUT", f"{STATE}/bulk", json={"keys": ["k"]})).json()[0]["data"] == 1


async def test_bulk_and_transaction_are_keys_to_get(host: Embedded) -> None:
    await host.ask("POST", STATE, json=[{"key": "bulk", "value": 1}, {"key": "transaction", "value": 2}])
    assert (await host.ask("GET", f"{STATE}/bulk")).text == "1"
    assert (await host.ask("GET", f"{STATE}/transaction")).text == "2"
    assert (await host.ask("DELETE", f"{STATE}/bulk")).status_code == 204
    assert (await host.ask("GET", f"{STATE}/bulk")).status_code == 204


async def test_nothing_to_do_is_no_error(host: Embedded) -> None:
    assert (await host.ask("POST", STATE, json=[])).status_code == 204
    assert (await host.ask("POST", f"{STATE}/transaction", json={})).status_code == 204
    assert body(await host.ask("POST", f"{STATE}/bulk", json={})) == []
    missing = await host.ask("GET", f"{STATE}/k")
    assert (missing.status_code, missing.content) == (204, b"")
    assert (await host.ask("DELETE", f"{STATE}/k")).status_code == 204


async def test_etags_guard_writes(host: Embedded) -> None:
    await host.ask("POST", STATE, json=[{"key": "k", "value": 1, "etag": ""}])
    etag = (await host.ask("GET", f"{STATE}/k")).headers["etag"]
    assert '"' not in etag
    saved = await host.ask("POST", STATE, json=[{"key": "k", "value": 2, "etag": etag}])
    assert saved.status_code == 204
    for response in (
        await host.ask("POST", STATE, json=[{"key": "k", "value": 3, "etag": etag}]),
        await host.ask("POST", STATE, json=[{"key": "k", "value": 3, "options": {"concurrency": "first-write"}}]),
        await host.ask("DELETE", f"{STATE}/k", headers={"if-match": etag}),
        await host.ask("DELETE", f"{STATE}/none", headers={"if-match": etag}),
    ):
        assert response.status_code == 409
    assert (await host.ask("GET", f"{STATE}/k")).text == "2"
    etag = (await host.ask("GET", f"{STATE}/k")).headers["etag"]
    deleted = await host.ask("DELETE", f"{STATE}/k?concurrency=first-write", headers={"if-match": etag})
    assert deleted.status_code == 204


async def test_one_wrong_item_keeps_all_from_being_written(host: Embedded) -> None:
    good = {"key": "good", "value": 1}
    for bad in ({"key": "a||b"}, {"key": ""}, {"key": "b", "options": {"concurrency": "x"}}, {"key": "b\0"}):
        assert (await host.ask("POST", STATE, json=[good, bad])).status_code == 400
        operations = [{"operation": "upsert", "request": good}, {"operation": "upsert", "request": bad}]
        assert (await host.ask("POST", f"{STATE}/transaction", json={"operations": operations})).status_code == 400
        assert (await host.ask("GET", f"{STATE}/good")).status_code == 204


async def test_several_items_are_no_transaction(host: Embedded) -> None:
    await host.ask("POST", STATE, json=[{"key": "k", "value": 1}])
    items = [{"key": "k", "value": 2, "etag": "other"}, {"key": "l", "value": 2}]
    assert (await host.ask("POST", STATE, json=items)).status_code == 409
    assert (await host.ask("GET", f"{STATE}/k")).text == "1"
    assert (await host.ask("GET", f"{STATE}/l")).text == "2"


async def test_a_lifetime_comes_from_item_or_query(host: Embedded) -> None:
    item = {"key": "k", "value": 1, "metadata": {"ttlInSeconds": "1000"}}
    for path, json_, seconds in (
        (STATE, [item], 1000),
        (f"{STATE}?metadata.ttlInSeconds=60&metadata.ttlInSeconds=5", [item], 60),
    ):
        assert (await host.ask("POST", path, json=json_)).status_code == 204
        text = (await host.ask("GET", f"{STATE}/k")).headers["metadata.ttlExpireTime"]
        left = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) - datetime.now(UTC)
        assert seconds - 5 < left.total_seconds() <= seconds
        (entry,) = body(await host.ask("POST", f"{STATE}/bulk", json={"keys": ["k"]}))
        assert entry["metadata"] == {"ttlExpireTime": text}
    for forever in ("-1", "0"):
        item["metadata"] = {"ttlInSeconds": forever}
        await host.ask("POST", STATE, json=[item])
        assert "metadata.ttlexpiretime" not in (await host.ask("GET", f"{STATE}/k")).headers


async def test_bulk_get_answers_every_key(host: Embedded) -> None:
    await host.ask("POST", STATE, json=[{"key": "a", "value": 1}, {"key": "b", "value": "x"}])
    answer = await host.ask("POST", f"{STATE}/bulk", json={"keys": ["a", "none", "b", "a"], "parallelism": -1})
    found = body(answer)
    assert answer.status_code == 200
    assert [entry["key"] for entry in found] == ["a", "none", "b", "a"]
    assert found[1] == {"key": "none"}
    assert [entry.get("data") for entry in found] == [1, None, "x", 1]
    assert all(entry["etag"] for entry in found if entry["key"] != "none")


async def test_bulk_get_of_what_is_no_json(host: Embedded) -> None:
    store = host.host.components.state("store")
    await store.set("text", b"plain text")
    await store.set("bytes", b"\xff\x00")
    await store.set("json", b'{"a": "\xff"}')
    text, data, broken = body(await host.ask("POST", f"{STATE}/bulk", json={"keys": ["text", "bytes", "json"]}))
    assert text["data"] == "plain text"
    for entry in (data, broken):
        assert "data" not in entry
        assert "neither JSON nor text" in entry["error"]
    assert (await host.ask("GET", f"{STATE}/bytes")).content == b"\xff\x00"


async def test_a_transaction_is_all_or_nothing(host: Embedded) -> None:
    upsert = {"operation": "upsert", "request": {"key": "a", "value": {"n": 1}}}
    delete = {"operation": "delete", "request": {"key": "b"}}
    await host.ask("POST", STATE, json=[{"key": "b", "value": 1}])
    done = await host.ask("POST", f"{STATE}/transaction", json={"operations": [upsert, delete]})
    assert (done.status_code, done.content) == (204, b"")
    assert (await host.ask("GET", f"{STATE}/b")).status_code == 204
    failing = {"operation": "delete", "request": {"key": "a", "etag": "other"}}
    upsert["request"] = {"key": "a", "value": 2}
    refused = await host.ask("POST", f"{STATE}/transaction", json={"operations": [upsert, failing]})
    assert (refused.status_code, body(refused)["errorCode"]) == (500, "ERR_STATE_TRANSACTION")
    assert (await host.ask("GET", f"{STATE}/a")).json() == {"n": 1}


async def test_metadata_of_a_transaction_is_that_of_every_operation(host: Embedded) -> None:
    operations = [{"operation": "upsert", "request": {"key": key, "value": 1}} for key in "ab"]
    transaction = {"operations": operations, "metadata": {"ttlInSeconds": "100"}}
    assert (await host.ask("POST", f"{STATE}/transaction", json=transaction)).status_code == 204
    for key in "ab":
        assert "metadata.ttlexpiretime" in (await host.ask("GET", f"{STATE}/{key}")).headers


async def test_a_query_pages_through_its_hits(host: Embedded) -> None:
    people = [{"key": f"p{n}", "value": {"n": n, "state": "CA" if n % 2 else "WA"}} for n in range(5)]
    await host.ask("POST", f"{STATE}?metadata.contentType=application/json", json=people)
    question = {"filter": {"EQ": {"state": "WA"}}, "sort": [{"key": "n", "order": "DESC"}], "page": {"limit": 2}}
    path = "/v1.0-alpha1/state/store/query"
    first = body(await host.ask("POST", path, json=question))
    assert [hit["key"] for hit in first["results"]] == ["p4", "p2"]
    assert first["results"][0]["data"] == {"n": 4, "state": "WA"}
    assert first["results"][0]["etag"]
    question["page"] = {"limit": 2, "token": first["token"]}
    second = body(await host.ask("POST", path, json=question))
    assert [hit["key"] for hit in second["results"]] == ["p0"]
    assert "token" not in second
    nothing = await host.ask("PUT", path, json={"filter": {"EQ": {"state": "XX"}}})
    assert (nothing.status_code, nothing.content) == (204, b"")
    everything = await host.ask("POST", path, content=b"")
    assert len(body(everything)["results"]) == 5


@pytest.mark.parametrize(
    ("strategy", "namespace", "stored"),
    [
        (None, None, "myapp||k"),
        ("appid", None, "myapp||k"),
        ("NAME", None, "store||k"),
        ("namespace", "prod", "prod.myapp||k"),
        ("namespace", None, "myapp||k"),
        ("none", None, "k"),
        ("Custom", None, "custom||k"),
    ],
)
async def test_keys_get_the_prefix_of_their_strategy(
    tmp_path: Path, strategy: str | None, namespace: str | None, stored: str
) -> None:
    values = {"keyPrefix": strategy} if strategy else {}
    source = component(tmp_path, "store", "state.in-memory", **values)
    async with embedded(source, namespace=namespace) as host:
        await host.ask("POST", STATE, json=[{"key": "k", "value": 1}])
        driver = host.host.components.state("store").driver
        assert list(driver._items) == [stored]  # type: ignore[attr-defined]
        assert (await host.ask("GET", f"{STATE}/k")).text == "1"
        assert body(await host.ask("POST", f"{STATE}/bulk", json={"keys": ["k"]}))[0]["key"] == "k"


async def test_a_component_for_other_applications_is_not_there(tmp_path: Path) -> None:
    source = component(tmp_path, "store", "state.in-memory")
    document = json.loads(source.read_text())
    document["scopes"] = ["other"]
    source.write_text(json.dumps(document))
    mine = component(tmp_path, "mine", "state.in-memory")
    async with embedded(source, mine) as host:
        hidden = await host.ask("GET", f"{STATE}/k")
        assert (hidden.status_code, body(hidden)["errorCode"]) == (400, "ERR_STATE_STORE_NOT_FOUND")


async def test_writes_of_one_key_at_once_have_one_winner(host: Embedded) -> None:
    items = [{"key": "k", "value": n, "options": {"concurrency": "first-write"}} for n in range(20)]
    answers = await asyncio.gather(*(host.ask("POST", STATE, json=[item]) for item in items))
    assert sorted(answer.status_code for answer in answers) == [204] + [409] * 19


async def test_names_of_fields_are_read_in_any_case_and_unknown_ones_are_left_out(tmp_path: Path) -> None:
    async with embedded(component(tmp_path, "store", "state.in-memory")) as host:
        body = '[{"KEY": "a", "Value": {"Key": 1.50}, "novelty": 1}, {"key": "b", "Key": "c", "value": 2}]'
        assert (await host.ask("POST", "/v1.0/state/store", content=body)).status_code == 204
        read = await host.ask("GET", "/v1.0/state/store/a")
        assert read.content == b'{"Key": 1.50}'
        assert (await host.ask("GET", "/v1.0/state/store/b")).content == b"2"
        stale = [{"key": "a", "value": 2, "ETag": "not-this-one"}]
        assert (await host.ask("POST", "/v1.0/state/store", json=stale)).status_code == 409
        work = {"Operations": [{"operation": "upsert", "Request": {"Key": "d", "value": 4}}]}
        assert (await host.ask("POST", "/v1.0/state/store/transaction", json=work)).status_code == 204
        assert (await host.ask("GET", "/v1.0/state/store/d")).content == b"4"
