"""What else reaches the application: events of bindings, configuration, probes; and an application that is not well."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.host.application import Asked, application
from tests.host.support import component, running, side, until

from lapel.pubsub import Subscription


def cron(folder: Path, **more: str) -> None:
    component(folder, "tick", "bindings.cron", schedule="@every 50ms", **more)


@pytest.mark.parametrize("answer", [200, 405])
async def test_an_application_that_answers_the_probe_gets_the_events_of_a_binding(tmp_path: Path, answer: int) -> None:
    cron(tmp_path)
    async with application() as app:
        app.answers |= {"OPTIONS /tick": answer, "POST /tick": 200}
        async with running(tmp_path, app_port=app.port):
            await app.wait_for("POST /tick", 2)
    assert len(app.requests("OPTIONS /tick")) == 1


async def test_one_that_does_not_gets_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lapel.host")
    cron(tmp_path)
    async with application() as app, running(tmp_path, app_port=app.port):
        await app.wait_for("OPTIONS /tick")
        await until(lambda: "does not take the events of 'tick'" in caplog.text)
    assert not app.requests("POST /tick")


async def test_a_direction_and_a_route_of_the_component_spare_the_probe(tmp_path: Path) -> None:
    cron(tmp_path, direction="input", route="/custom/route")
    async with application() as app:
        app.answers["POST /custom/route"] = 200
        async with running(tmp_path, app_port=app.port):
            await app.wait_for("POST /custom/route")
    assert not [asked for asked in app.asked if asked.method == "OPTIONS"]


@pytest.mark.parametrize("concurrency", ["parallel", "sequential", None])
async def test_a_reply_saves_state_and_goes_on_to_other_bindings(tmp_path: Path, concurrency: str | None) -> None:
    cron(tmp_path)
    component(tmp_path, "store", "state.in-memory")
    (tmp_path / "files").mkdir()
    component(tmp_path, "out", "bindings.localstorage", rootPath=str(tmp_path / "files"))
    reply = {
        "storeName": "store",
        "state": [{"key": "k", "value": {"exact": 12345678901234567890}}],
        "to": ["out"],
        "data": {"passed": "on"},
        "concurrency": concurrency,
    }
    async with application() as app:
        app.answers |= {"OPTIONS /tick": 200, "POST /tick": (200, reply)}
        async with running(tmp_path, app_port=app.port) as host:
            await app.wait_for("POST /tick", 2)
            saved = await host.host.components.state("store").driver.get(_get("k"))
    assert saved is not None
    assert json.loads(saved.data) == {"exact": 12345678901234567890}
    written = [path.read_text() for path in (tmp_path / "files").iterdir()]
    assert written
    assert {json.loads(text)["passed"] for text in written} == {"on"}


def _get(key: str) -> Any:
    from lapel.state import GetRequest

    return GetRequest(key)


async def test_changed_configuration_is_told_key_by_key(tmp_path: Path) -> None:
    items = tmp_path / "items.json"
    items.write_text(json.dumps({"a": "1"}))
    component(tmp_path, "settings", "configuration.local.file", path=str(items))
    async with application() as app:
        app.answers |= {"POST /configuration/settings/a": 200, "POST /configuration/settings/b": 200}
        async with running(tmp_path / "settings.yaml", app_port=app.port) as host:
            answer = await host.ask("GET", "/v1.0/configuration/settings/subscribe?key=a&key=b")
            identifier = answer.json()["id"]
            items.write_text(json.dumps({"a": "2", "b": "3"}))
            (first,) = await app.wait_for("POST /configuration/settings/a")
            (second,) = await app.wait_for("POST /configuration/settings/b")
            ended = await host.ask("GET", f"/v1.0/configuration/settings/{identifier}/unsubscribe")
            assert ended.json() == {"ok": True}
    assert first.json["id"] == identifier
    assert first.json["items"]["a"]["value"] == "2"
    assert second.json["items"]["b"]["value"] == "3"


async def test_an_item_that_is_refused_keeps_no_other_from_the_application(tmp_path: Path) -> None:
    items = tmp_path / "items.json"
    items.write_text(json.dumps({"a": "1", "b": "1"}))
    component(tmp_path, "settings", "configuration.local.file", path=str(items))
    async with application() as app:
        app.answers["POST /configuration/settings/b"] = 200
        async with running(tmp_path / "settings.yaml", app_port=app.port) as host:
            await host.ask("GET", "/v1.0/configuration/settings/subscribe")
            items.write_text(json.dumps({"a": "2", "b": "2"}))
            (second,) = await app.wait_for("POST /configuration/settings/b")
    assert second.json["items"]["b"]["value"] == "2"
    assert len(app.requests("POST /configuration/settings/a")) == 1


async def test_a_retry_repeats_only_the_item_that_was_refused(tmp_path: Path) -> None:
    items = tmp_path / "items.json"
    items.write_text(json.dumps({"a": "1", "b": "1"}))
    component(tmp_path, "settings", "configuration.local.file", path=str(items))
    retry = {"policy": "constant", "duration": "10ms", "maxRetries": 5, "matching": {"httpStatusCodes": "500-599"}}
    spec = {
        "policies": {"retries": {"some": retry}},
        "targets": {"components": {"settings": {"inbound": {"retry": "some"}}}},
    }
    document = {"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "r"}, "spec": spec}
    (tmp_path / "resiliency.yaml").write_text(json.dumps(document))
    async with application() as app:

        async def third_time(asked: Asked) -> int:
            return 200 if len(app.requests("POST /configuration/settings/a")) == 3 else 503

        app.answers |= {"POST /configuration/settings/a": third_time, "POST /configuration/settings/b": 200}
        sources = [tmp_path / "settings.yaml", tmp_path / "resiliency.yaml"]
        async with running(*sources, app_port=app.port) as host:
            await host.ask("GET", "/v1.0/configuration/settings/subscribe")
            items.write_text(json.dumps({"a": "2", "b": "2"}))
            await app.wait_for("POST /configuration/settings/a", 3)
            # A status that the policy does not name is final.
            app.answers["POST /configuration/settings/a"] = 400
            items.write_text(json.dumps({"a": "3", "b": "3"}))
            await app.wait_for("POST /configuration/settings/b", 2)
    assert len(app.requests("POST /configuration/settings/a")) == 4
    assert len(app.requests("POST /configuration/settings/b")) == 2


async def test_the_host_waits_for_an_application_that_starts_later(tmp_path: Path) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    async with application() as first:
        port = first.port
    async with running(tmp_path, app_port=port) as host:
        response = await host.ask("GET", "/v1.0/healthz")
        assert response.status_code == 500
        assert response.json()["errorCode"] == "ERR_HEALTH_NOT_READY"
        assert (await host.ask("GET", "/v1.0/healthz/outbound")).status_code == 204
        async with application(port=port) as app:
            await app.wait_for("GET /dapr/subscribe")
            async with asyncio.timeout(20):
                while (await host.ask("GET", "/v1.0/healthz")).status_code != 204:
                    await asyncio.sleep(0.01)


async def test_discovery_is_tried_again(tmp_path: Path) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    async with application() as app:

        async def second_time(asked: Asked) -> Any:
            if len(app.requests("GET /dapr/subscribe")) == 1:
                return 500
            return 200, [{"pubsubname": "bus", "topic": "t", "route": "/t"}]

        app.answers["GET /dapr/subscribe"] = second_time
        async with running(tmp_path, app_port=app.port) as host:
            await until(lambda: side(host).armed())


async def test_a_document_says_how_often_discovery_is_tried(tmp_path: Path) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    retries = {"DaprBuiltInInitializationRetries": {"policy": "constant", "duration": "1ms", "maxRetries": 7}}
    document = {"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "r"}}
    spec = {"spec": {"policies": {"retries": retries}}}
    (tmp_path / "resiliency.yaml").write_text(json.dumps(document | spec))
    async with application() as app:
        app.answers["GET /dapr/subscribe"] = 500
        async with running(tmp_path, app_port=app.port) as host:
            await until(lambda: side(host).unready() is None)
    assert len(app.requests("GET /dapr/subscribe")) == 8


HEALTH: dict[str, Any] = {
    "app_health_check": True,
    "app_health_probe_interval": 0.05,
    "app_health_probe_timeout": 5.0,
    "app_health_threshold": 2,
}


async def test_nothing_is_delivered_while_the_application_is_unwell(tmp_path: Path) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    async with application() as app:
        app.subscribes({"pubsubname": "bus", "topic": "t", "route": "/t"})
        app.answers |= {"GET /healthz": 200, "POST /t": 200}
        async with running(tmp_path, app_port=app.port, **HEALTH) as host:
            await until(lambda: side(host).armed())
            (armed,) = side(host).armed().values()
            assert isinstance(armed, Subscription)
            bus = host.host.components.pubsub("bus")
            await bus.publish("t", {"n": 1})
            await app.wait_for("POST /t")

            app.answers["GET /healthz"] = 503
            await until(lambda: armed.paused)
            await bus.publish("t", {"n": 2})
            await app.wait_for("GET /healthz", len(app.requests("GET /healthz")) + 3)
            assert len(app.requests("POST /t")) == 1

            app.answers["GET /healthz"] = 200
            await app.wait_for("POST /t", 2)
    assert len(app.requests("POST /t")) == 2


async def test_an_application_that_answers_wrongly_or_not_at_all_harms_nobody(tmp_path: Path) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    stuck = asyncio.Event()

    async def never(asked: Asked) -> int:
        await stuck.wait()
        return 200

    async with application() as app:
        app.subscribes(
            {"pubsubname": "bus", "topic": "slow", "route": "/slow"},
            {"pubsubname": "bus", "topic": "fine", "route": "/fine"},
        )
        app.answers |= {"POST /slow": never, "POST /fine": 200}
        async with running(tmp_path, app_port=app.port, app_timeout=0.1, graceful_shutdown_seconds=0.2) as host:
            await until(lambda: len(side(host).armed()) == 2)
            bus = host.host.components.pubsub("bus")
            await bus.publish("slow", 1)
            await bus.publish("fine", 1)
            await app.wait_for("POST /fine")
            await app.wait_for("POST /slow", 2)
            stuck.set()


async def test_a_replaced_component_is_subscribed_again(tmp_path: Path) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    async with application() as app:
        app.subscribes({"pubsubname": "bus", "topic": "t", "route": "/t"})
        app.answers["POST /t"] = 200
        async with running(tmp_path, app_port=app.port) as host:
            await until(lambda: side(host).armed())
            (before,) = side(host).armed().values()
            components = host.host.components
            await components.replace(components.manifests["bus"])
            await side(host).component_changed("bus")
            await until(lambda: side(host).armed() and before not in side(host).armed().values())
            await components.pubsub("bus").publish("t", 1)
            await app.wait_for("POST /t")


async def test_actors_of_the_application_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    async with application() as app:
        app.answers["GET /dapr/config"] = (200, {"entities": ["Counter"]})
        async with running(tmp_path, app_port=app.port):
            await app.wait_for("GET /dapr/subscribe")
    assert "the application has actors (Counter)" in caplog.text
