"""Messages reach the application as events, and its answers decide what becomes of them."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.host.application import Answer, application
from tests.host.support import Running, component, running, side

from lapel.health import HealthState
from lapel.host.app.subscriptions import AppSubscription

EVENT = "application/cloudevents+json"


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    component(tmp_path, "bus", "pubsub.in-memory")
    return tmp_path


async def armed(host: Running, *topics: str) -> None:
    """Return when these are subscribed."""
    async with asyncio.timeout(20):
        while {("bus", topic) for topic in topics} - set(side(host).armed()):
            await asyncio.sleep(0.01)


async def publish(host: Running, topic: str, data: Any = None, **arguments: Any) -> None:
    response = await host.ask("POST", f"/v1.0/publish/bus/{topic}", json=data or {"id": 1}, **arguments)
    assert response.status_code == 204, response.text


def subscription(topic: str = "t", **more: Any) -> dict[str, Any]:
    return {"pubsubname": "bus", "topic": topic, "route": "/events", **more}


async def test_an_event_arrives_as_it_was_stored_with_its_attributes_as_headers(bus: Path) -> None:
    async with application() as app:
        app.subscribes(subscription())
        app.answers["POST /events"] = 200
        async with running(bus, app_port=app.port, app_api_token="app-secret") as host:
            await armed(host, "t")
            await publish(host, "t", {"n": 12345678901234567890}, params={"metadata.color": "red"})
            (asked,) = await app.wait_for("POST /events")
    assert asked.headers["content-type"] == EVENT
    assert asked.headers["pubsubname"] == "bus"
    assert asked.headers["color"] == "red"
    assert asked.headers["dapr-api-token"] == "app-secret"
    assert b'"data":{"n":12345678901234567890}' in asked.body.replace(b" ", b"")
    event = asked.json
    assert (event["topic"], event["pubsubname"], event["source"], event["type"]) == (
        "t",
        "bus",
        "myapp",
        "com.dapr.event.sent",
    )
    (question,) = app.requests("GET /dapr/subscribe")
    assert question.headers["dapr-app-id"] == "myapp"


ANSWERS: dict[str, Answer] = {
    "empty": (200, b""),
    "not JSON": (200, b"fine"),
    "no status": (200, {"hello": 1}),
    "a list": (201, [1]),
    "empty status": (200, {"status": ""}),
    "SUCCESS": (204, b""),
    "with SUCCESS": (200, {"status": "SUCCESS"}),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_these_answers_settle_a_message(bus: Path, name: str) -> None:
    async with application() as app:
        app.subscribes(subscription())
        app.answers["POST /events"] = ANSWERS[name]
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t")
            await publish(host, "t")
            await publish(host, "t")
            await app.wait_for("POST /events", 2)
    assert len(app.requests("POST /events")) == 2


@pytest.mark.parametrize("answer", [(200, {"status": "RETRY"}), (200, {"status": "what"}), 500, 400], ids=str)
async def test_these_answers_bring_a_message_again(bus: Path, answer: Any) -> None:
    async with application() as app:
        app.subscribes(subscription())

        async def second_time_lucky(asked: Any) -> Any:
            return answer if len(app.requests("POST /events")) == 1 else 200

        app.answers["POST /events"] = second_time_lucky
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t")
            await publish(host, "t")
            first, second = await app.wait_for("POST /events", 2)
    assert first.body == second.body


DEAD: dict[str, Answer] = {"DROP": (200, {"status": "DROP"}), "404": 404, "first failure": 500}


@pytest.mark.parametrize("name", DEAD)
async def test_what_is_given_up_goes_to_the_dead_letter_topic(bus: Path, name: str) -> None:
    async with application() as app:
        app.subscribes(subscription(deadLetterTopic="dead"), subscription("dead", route="/dead"))
        app.answers |= {"POST /events": DEAD[name], "POST /dead": 200}
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t", "dead")
            await publish(host, "t")
            (dead,) = await app.wait_for("POST /dead")
    (live,) = app.requests("POST /events")
    assert dead.body == live.body
    assert dead.json["topic"] == "t"
    assert dead.headers["dead-letter-topic"] == "t"


@pytest.mark.parametrize("name", ["DROP", "404"])
async def test_without_such_a_topic_it_is_settled(bus: Path, name: str) -> None:
    async with application() as app:
        app.subscribes(subscription(), subscription("next", route="/next"))
        app.answers |= {"POST /events": DEAD[name], "POST /next": 200}
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t", "next")
            await publish(host, "t")
            await app.wait_for("POST /events")
            await publish(host, "next")
            await app.wait_for("POST /next")
    assert len(app.requests("POST /events")) == 1


async def test_a_policy_gives_a_message_more_tries_before_it_is_dead(bus: Path) -> None:
    (bus / "policy.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n"
        "  policies: {retries: {again: {duration: 5ms, maxRetries: 2}}}\n"
        "  targets: {components: {bus: {inbound: {retry: again}}}}\n"
    )
    async with application() as app:
        app.subscribes(subscription(deadLetterTopic="dead"), subscription("dead", route="/dead"))
        app.answers |= {"POST /events": 500, "POST /dead": 200}
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t", "dead")
            await publish(host, "t")
            await app.wait_for("POST /dead")
    assert len(app.requests("POST /events")) == 3


ROUTES = {
    "rules": [
        {"match": 'event.type == "widget"', "path": "/widgets"},
        {"match": "event.data.amount > 100", "path": "/large"},
    ],
    "default": "/rest",
}


async def test_rules_choose_the_path_and_the_first_that_matches_counts(bus: Path) -> None:
    async with application() as app:
        app.subscribes({"pubsubname": "bus", "topic": "t", "routes": ROUTES})
        app.answers |= {"POST /widgets": 200, "POST /large": 200, "POST /rest": 200}
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t")
            await publish(host, "t", {"amount": 500}, params={"metadata.cloudevent.type": "widget"})
            await publish(host, "t", {"amount": 500})
            await publish(host, "t", {"amount": 5})
            await app.wait_for("POST /widgets")
            await app.wait_for("POST /large")
            await app.wait_for("POST /rest")
    assert [len(app.requests(f"POST /{path}")) for path in ("widgets", "large", "rest")] == [1, 1, 1]


async def test_what_no_rule_matches_is_dropped_to_the_dead_letter_topic(bus: Path) -> None:
    async with application() as app:
        rules = {"rules": [{"match": 'event.type == "x"', "path": "/x"}]}
        app.subscribes(
            {"pubsubname": "bus", "topic": "t", "routes": rules, "deadLetterTopic": "dead"},
            subscription("dead", route="/dead"),
        )
        app.answers["POST /dead"] = 200
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t", "dead")
            await publish(host, "t")
            await app.wait_for("POST /dead")
    assert not app.requests("POST /x")


async def test_a_raw_message_arrives_inside_a_new_event(bus: Path) -> None:
    async with application() as app:
        app.subscribes(subscription(metadata={"rawPayload": "true"}))
        app.answers["POST /events"] = 200
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t")
            await publish(host, "t", {"a": 1}, params={"metadata.rawPayload": "true"})
            (asked,) = await app.wait_for("POST /events")
    event = asked.json
    assert json.loads(base64.b64decode(event["data_base64"])) == {"a": 1}
    assert (event["datacontenttype"], event["source"], event["topic"]) == ("application/octet-stream", "Dapr", "t")


async def test_what_is_no_event_goes_to_the_dead_letter_topic(bus: Path) -> None:
    async with application() as app:
        app.subscribes(
            subscription(deadLetterTopic="dead"),
            subscription("dead", route="/dead", metadata={"rawPayload": "true"}),
        )
        app.answers["POST /dead"] = 200
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t", "dead")
            await host.host.components.pubsub("bus").publish("t", b"not an event", raw=True)
            (dead,) = await app.wait_for("POST /dead")
    assert base64.b64decode(dead.json["data_base64"]) == b"not an event"
    assert not app.requests("POST /events")


def declare(folder: Path, name: str, spec: dict[str, Any], api: str = "v2alpha1", **more: Any) -> None:
    document = {
        "apiVersion": f"dapr.io/{api}",
        "kind": "Subscription",
        "metadata": {"name": name},
        "spec": {"pubsubname": "bus", **spec},
        **more,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(document))


async def test_subscriptions_come_from_files_too_and_the_application_s_own_win(bus: Path) -> None:
    declare(bus, "a", {"topic": "old", "route": "/old"}, "v1alpha1")
    declare(bus, "b", {"topic": "new", "routes": {"default": "/new"}})
    declare(bus, "c", {"topic": "t", "route": "/file"})
    declare(bus, "d", {"topic": "other", "route": "/other"}, scopes=["someone-else"])
    async with application() as app:
        app.subscribes(subscription())
        app.answers |= {f"POST /{path}": 200 for path in ("old", "new", "events")}
        async with running(bus, app_port=app.port) as host:
            await armed(host, "old", "new", "t")
            for topic in ("old", "new", "t"):
                await publish(host, topic)
            for path in ("old", "new", "events"):
                await app.wait_for(f"POST /{path}")
            shown = (await host.ask("GET", "/v1.0/metadata")).json()
    assert {(item["topic"], item["type"]) for item in shown["subscriptions"]} == {
        ("old", "DECLARATIVE"),
        ("new", "DECLARATIVE"),
        ("t", "PROGRAMMATIC"),
    }
    assert shown["appConnectionProperties"]["port"] == app.port


BULK = {"enabled": True, "maxMessagesCount": 3, "maxAwaitDurationMs": 200}


async def test_messages_come_together_and_only_those_that_failed_come_again(bus: Path) -> None:
    seen: list[list[str]] = []

    async def answer(asked: Any) -> Any:
        entries = asked.json["entries"]
        seen.append([entry["event"]["data"]["id"] for entry in entries])
        statuses = [
            "RETRY" if entry["event"]["data"]["id"] == "b" and len(seen) == 1 else "SUCCESS" for entry in entries
        ]
        return 200, {
            "statuses": [
                {"entryId": entry["entryId"], "status": status} for entry, status in zip(entries, statuses, strict=True)
            ]
        }

    async with application() as app:
        app.subscribes(subscription(bulkSubscribe=BULK))
        app.answers["POST /events"] = answer
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t")
            bus_component = host.host.components.pubsub("bus")
            await bus_component.bulk_publish("t", [{"id": name} for name in "abc"])
            first, _ = await app.wait_for("POST /events", 2)
    assert first.headers["content-type"] == "application/json"
    batch = first.json
    assert (batch["topic"], batch["pubsubname"], batch["type"]) == ("t", "bus", "com.dapr.event.sent.bulk")
    assert [entry["contentType"] for entry in batch["entries"]] == [EVENT] * 3
    assert sorted(seen[0]) == ["a", "b", "c"]
    assert seen[1] == ["b"]


@pytest.mark.parametrize("answer", [(200, b"no"), (200, {"statuses": []}), 500], ids=str)
async def test_a_batch_without_statuses_comes_again(bus: Path, answer: Any) -> None:
    async with application() as app:
        app.subscribes(subscription(bulkSubscribe=BULK))
        app.answers["POST /events"] = answer
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t")
            await publish(host, "t")
            first, second = await app.wait_for("POST /events", 2)
    assert first.json["entries"][0]["event"] == second.json["entries"][0]["event"]


async def test_the_application_gets_no_more_at_once_than_it_wants(bus: Path) -> None:
    running_now, most = 0, 0

    async def slow(asked: Any) -> int:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(0.02)
        running_now -= 1
        return 200

    async with application() as app:
        app.subscribes(subscription())
        app.answers["POST /events"] = slow
        async with running(bus, app_port=app.port, app_max_concurrency=2) as host:
            await armed(host, "t")
            for _ in range(10):
                await publish(host, "t")
            await app.wait_for("POST /events", 10)
    assert most == 2


async def test_a_host_that_ends_finishes_what_the_application_has_begun(bus: Path) -> None:
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(asked: Any) -> int:
        begun.set()
        await go.wait()
        done.set()
        return 200

    async with application() as app:
        app.subscribes(subscription())
        app.answers["POST /events"] = slow
        async with running(bus, app_port=app.port, graceful_shutdown_seconds=10.0) as host:
            await armed(host, "t")
            await publish(host, "t")
            await begun.wait()
            host.host.stopping.set()
            asyncio.get_running_loop().call_later(0.2, go.set)
    assert done.is_set()


async def test_nothing_is_a_dead_letter_because_host_and_application_end_together(bus: Path) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def ending(asked: Any) -> int:
        begun.set()
        await end.wait()
        return 503

    async with application() as app:
        app.subscribes(subscription(deadLetterTopic="dead"), subscription("dead"))
        app.answers["POST /events"] = ending
        async with running(bus, app_port=app.port, graceful_shutdown_seconds=10.0) as host:
            await armed(host, "t", "dead")
            await publish(host, "t")
            await begun.wait()
            (subscribed,) = [one for place, one in side(host).armed().items() if place == ("bus", "t")]
            host.host.stopping.set()
            async with asyncio.timeout(20):
                while subscribed.health().state is not HealthState.CLOSED:
                    await asyncio.sleep(0.01)
            end.set()
    assert len(app.requests("POST /events")) == 1
    assert subscribed.health().details["given_up"] == 0


async def test_a_bad_rule_leaves_one_subscription_out(bus: Path) -> None:
    async with application() as app:
        app.subscribes(
            {"pubsubname": "bus", "topic": "bad", "routes": {"rules": [{"match": "event.", "path": "/x"}]}},
            {"pubsubname": "bus", "topic": "no-route"},
            {"pubsubname": "unknown", "topic": "t", "route": "/x"},
            subscription(),
        )
        async with running(bus, app_port=app.port) as host:
            await armed(host, "t")
            found: list[AppSubscription] = side(host).subscriptions
            assert [(item.pubsub, item.topic) for item in found] == [("unknown", "t"), ("bus", "t")]
            assert set(side(host).armed()) == {("bus", "t")}


async def test_without_pubsub_the_application_is_not_asked(tmp_path: Path) -> None:
    component(tmp_path, "store", "state.in-memory")
    async with application() as app, running(tmp_path, app_port=app.port) as host:
        async with asyncio.timeout(20):
            while (await host.ask("GET", "/v1.0/healthz")).status_code != 204:
                await asyncio.sleep(0.01)
    assert not app.requests("GET /dapr/subscribe")
