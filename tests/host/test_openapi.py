"""The OpenAPI document, and requests made from it at random."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans
from schemathesis.core.result import Ok
from tests.host.support import component, embedded, running

from lapel.host import AccessRules, ApiRule, Host
from lapel.host.openapi import document

REFERENCE_CODES = frozenset(
    {
        "ERR_STATE_STORE_NOT_SUPPORTED",
        "ERR_STATE_GET",
        "ERR_STATE_BULK_GET",
        "ERR_STATE_SAVE",
        "ERR_STATE_DELETE",
        "ERR_STATE_TRANSACTION",
        "ERR_STATE_QUERY",
        "ERR_PUBSUB_CLOUD_EVENTS_SER",
        "ERR_PUBSUB_PUBLISH_MESSAGE",
        "ERR_INVOKE_OUTPUT_BINDING",
        "ERR_SECRET_GET",
        "ERR_CONFIGURATION_GET",
        "ERR_CONFIGURATION_SUBSCRIBE",
        "ERR_APP_CHANNEL_NIL",
        "ERR_TRY_LOCK",
        "ERR_UNLOCK",
        "ERR_CRYPTO_KEY",
        "ERR_CRYPTO",
        "ERR_HEALTH_APPID_NOT_MATCH",
    }
)
"""What a 500 may say when every component is there and well."""
EXAMPLES = 15
NAMES = ("store", "bus", "files", "secrets", "config", "locks", "keys")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve every kind from a thread, for schemathesis asks synchronously."""
    folder = tmp_path_factory.mktemp("host")
    resources = folder / "resources"
    resources.mkdir()
    (folder / "secrets.json").write_text('{"k": "v"}')
    (folder / "items.yaml").write_text("a: {value: one}")
    (folder / "keys").mkdir()
    (folder / "keys" / "k").write_bytes(b"k" * 32)
    component(resources, "store", "state.in-memory")
    component(resources, "bus", "pubsub.in-memory")
    component(resources, "files", "bindings.localstorage", rootPath=str(folder / "files"))
    component(resources, "secrets", "secretstores.local.file", secretsFile=str(folder / "secrets.json"))
    component(resources, "config", "configuration.local.file", path=str(folder / "items.yaml"))
    component(resources, "locks", "lock.in-memory")
    component(resources, "keys", "crypto.dapr.localstorage", path=str(folder / "keys"))
    ready, found = threading.Event(), []
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def main() -> None:
        async with running(resources) as host:
            found.append(host.port)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert ready.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(20)
    loop.close()


SCHEMA = schemathesis.openapi.from_dict(document(Host([]).router.routes))
OPERATIONS = {
    operation.label: operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok))
    if operation.path != "/v1.0/shutdown"  # the host would end, and with it the test
}
KINDS = {"state": 0, "publish": 1, "bindings": 2, "secrets": 3, "configuration": 4, "lock": 5, "unlock": 5}


@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_asked_the_answer_is_one_of_the_reference(port: int, label: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=OPERATIONS[label].as_strategy(), there=booleans())
    def ask(case: Any, there: bool) -> None:
        names = case.path_parameters or {}
        group = case.path.split("/")[2]
        for parameter in ("store", "pubsub", "name"):
            # Half of the time a component that is there, or nothing but their lookup would be tested.
            if there and parameter in names and not (group == "secrets" and parameter == "name"):
                names[parameter] = NAMES[KINDS.get(group, 6)]
        answer = case.call(base_url=f"http://127.0.0.1:{port}", timeout=20)
        case.validate_response(
            answer,
            checks=[
                schemathesis.checks.content_type_conformance,
                schemathesis.checks.response_schema_conformance,
                schemathesis.checks.status_code_conformance,
            ],
        )
        if answer.status_code >= 500 and "failedEntries" not in answer.text and "unsubscribe" not in case.path:
            assert answer.json()["errorCode"] in REFERENCE_CODES, answer.text

    ask()


async def test_the_document_shows_what_is_served(tmp_path: Path) -> None:
    rules = AccessRules(denied_apis=(ApiRule(name="state", version="v1"),))
    async with embedded(component(tmp_path, "store", "state.in-memory"), rules=rules) as host:
        shown = (await host.ask("GET", "/v1.0/openapi.json")).json()
    paths = shown["paths"]
    assert "/v1.0/state/{store}" not in paths
    assert paths["/v1.0/publish/{pubsub}/{topic}"].keys() == {"post", "put"}
    assert {"Error", "Entry", "Invocation"} <= shown["components"]["schemas"].keys()
    assert not any("invoke" in path or "actors" in path for path in paths)
    publish = paths["/v1.0/publish/{pubsub}/{topic}"]["post"]
    assert [each["name"] for each in publish["parameters"]][:2] == ["pubsub", "topic"]
