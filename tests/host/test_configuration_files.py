"""Files of kind Configuration: what they allow, what they switch on, and every mistake in them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.host.support import component

from lapel.errors import ConfigurationError
from lapel.host import Host, HostOptions
from lapel.host.access import ApiRule
from lapel.host.configuration import HostConfiguration, read_configuration


def read(folder: Path, spec: str) -> HostConfiguration:
    path = folder / "config.yaml"
    path.write_text(f"apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: c}}\nspec:\n{spec}")
    return read_configuration(path)


def test_everything_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
  api:
    allowed: [{name: state, version: v1, protocol: http}, {name: publish, version: v1}]
    denied: [{name: shutdown, version: v1}]
  secrets:
    scopes:
      - {storeName: vault, defaultAccess: deny, allowedSecrets: [a], deniedSecrets: [b]}
  tracing:
    samplingRate: "0.25"
    stdout: true
    otel: {endpointAddress: "127.0.0.1:4317", isSecure: false, protocol: grpc, headers: "a=1,b=2"}
  metric: {enabled: false}
  components: {deny: [bindings.smtp, State.Redis/v1]}
""",
    )
    assert found.rules.allowed_apis[0] == ApiRule(name="state", version="v1", protocol="http")
    assert found.rules.denied_apis == (ApiRule(name="shutdown", version="v1"),)
    assert not found.rules.allows_secret("vault", "b")
    assert found.rules.allows_secret("vault", "a")
    tracing = found.tracing
    assert (tracing.sampling_rate, tracing.stdout, tracing.otlp_secure) == (0.25, True, False)
    assert (tracing.otlp_endpoint, dict(tracing.headers)) == ("127.0.0.1:4317", {"a": "1", "b": "2"})
    assert tracing.enabled
    assert not found.metrics
    assert found.denied_components == ("bindings.smtp", "state.redis/v1")
    assert not found.warnings


def test_nothing_said_means_everything_allowed_and_no_traces(tmp_path: Path) -> None:
    found = read(tmp_path, "  {}\n")
    assert found.rules.allows_secret("any", "any")
    assert found.metrics
    assert not found.tracing.enabled


def test_headers_of_exports_are_in_no_repr(tmp_path: Path) -> None:
    found = read(tmp_path, "  tracing: {otel: {endpointAddress: x, headers: {authorization: canary-token}}}\n")
    assert "canary-token" not in repr(found)


MISTAKES = {
    "api: {allowed: [{name: state}]}": "needs a name, such as state, and a version",
    "api: {denied: [{name: state, version: v1, protocol: smtp}]}": "expected http or grpc",
    "secrets: {scopes: [{storeName: a}, {storeName: a}]}": "there can be one",
    "secrets: {scopes: [{storeName: a, defaultAccess: perhaps}]}": "expected allow or deny",
    "tracing: {samplingRate: often}": "not 'often'",
    "tracing: {samplingRate: '2'}": "expected 0 to 1",
    "tracing: {otel: {protocol: carrier-pigeon}}": "expected grpc or http",
    "httpPipeline: {handlers: [{name: auth, type: middleware.http.bearer}]}": "middleware, which lapel does not have",
    "components: {deny: bindings.smtp}": "must be a list",
}


@pytest.mark.parametrize("spec", MISTAKES)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ConfigurationError, match=MISTAKES[spec]) as caught:
        read(tmp_path, f"  {spec}\n")
    assert (caught.value.problems[0].field or "").startswith(f"spec.{spec.partition(':')[0]}")


def test_what_has_no_effect_is_a_warning(tmp_path: Path) -> None:
    found = read(tmp_path, "  mtls: {enabled: true}\n  novelty: 1\n")
    assert [problem.field for problem in found.warnings] == ["spec.mtls", "spec.novelty"]


def test_a_file_has_exactly_one(tmp_path: Path) -> None:
    path = component(tmp_path, "store", "state.in-memory")
    with pytest.raises(ConfigurationError, match="has 0 documents of kind Configuration"):
        read_configuration(path)


async def test_a_component_of_a_denied_type_is_not_opened(tmp_path: Path) -> None:
    configuration = await asyncio.to_thread(read, tmp_path, "  components: {deny: [state.in-memory]}\n")
    path = component(tmp_path, "store", "state.in-memory")
    host = Host(path, HostOptions(app_id="app"), configuration=configuration)
    with pytest.raises(ConfigurationError, match=r"state\.in-memory are denied by the configuration"):
        await host.start()
    await host.stop()
