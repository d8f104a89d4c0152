"""What appears, changes or goes while the application runs is armed, armed anew, or left."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.host.application import application
from tests.host.support import Running, component, running, side, until

from lapel.errors import UnavailableError
from lapel.reloading import reload_components


async def reload(host: Running, folder: Path) -> None:
    """Do what watching the folder does."""
    result = await reload_components(host.host.components, folder)
    if result.documents:
        await side(host).documents_changed()
    for name in result.changed:
        await side(host).component_changed(name)


async def test_the_first_pubsub_component_has_the_application_asked(tmp_path: Path) -> None:
    component(tmp_path, "store", "state.in-memory")
    async with application() as app:
        app.subscribes({"pubsubname": "bus", "topic": "t", "route": "/t"})
        app.answers["POST /t"] = 200
        async with running(tmp_path, app_port=app.port) as host:
            await until(lambda: side(host).unready() is None)
            assert not app.requests("GET /dapr/subscribe")
            component(tmp_path, "bus", "pubsub.in-memory")
            await reload(host, tmp_path)
            await until(lambda: ("bus", "t") in side(host).armed())
            await host.host.components.pubsub("bus").publish("t", 1)
            await app.wait_for("POST /t")
    assert len(app.requests("GET /dapr/subscribe")) == 1


async def test_a_component_that_opens_late_is_armed_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapel.assembly.REOPEN_SECONDS", (0.01, 0.01))
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"schedule": "@every 50ms"}))
    component(tmp_path, "vault", "secretstores.local.file", secretsFile=str(secrets))
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": "tick"},
        "spec": {
            "type": "bindings.cron",
            "version": "v1",
            "ignoreErrors": True,
            "metadata": [{"name": "schedule", "secretKeyRef": {"name": "schedule", "key": "schedule"}}],
        },
        "auth": {"secretStore": "vault"},
    }
    (tmp_path / "tick.yaml").write_text(json.dumps(document))
    answers = [False]

    async def now_and_then(self: Any, request: Any) -> Any:
        if not answers[0]:
            raise UnavailableError("not yet")
        return await read(self, request)

    from lapel_contrib.local.file_secrets import FileSecretStore

    read = FileSecretStore.get
    monkeypatch.setattr(FileSecretStore, "get", now_and_then)
    async with application() as app:
        app.answers |= {"OPTIONS /tick": 200, "POST /tick": 200}
        async with running(tmp_path, app_port=app.port) as host:
            await until(lambda: side(host).unready() is None)
            assert "tick" in host.host.components.failures
            answers[0] = True
            await app.wait_for("POST /tick")


async def test_what_is_still_being_armed_is_given_up_when_its_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    component(tmp_path, "bus", "pubsub.in-memory")
    document = {
        "apiVersion": "dapr.io/v2alpha1",
        "kind": "Subscription",
        "metadata": {"name": "s"},
        "spec": {"pubsubname": "bus", "topic": "t", "routes": {"default": "/old"}},
    }
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(document))
    async with application() as app:
        app.answers |= {"POST /old": 200, "POST /new": 200}
        async with running(tmp_path, app_port=app.port) as host:
            driver = host.host.components.pubsub("bus").driver
            await until(lambda: ("bus", "t") in side(host).armed())
            subscribe, tried = driver.subscribe, asyncio.Event()

            async def down(request: Any) -> Any:
                tried.set()
                raise UnavailableError("down")

            monkeypatch.setattr(driver, "subscribe", down)
            for route in ("/middle", "/new"):
                tried.clear()
                document["spec"]["routes"] = {"default": route}  # type: ignore[index]
                file.write_text(json.dumps(document))
                await reload(host, tmp_path)
                await tried.wait()
            monkeypatch.setattr(driver, "subscribe", subscribe)
            await until(lambda: ("bus", "t") in side(host).armed())
            await host.host.components.pubsub("bus").publish("t", 1)
            await app.wait_for("POST /new")
    assert not app.requests("POST /middle")
