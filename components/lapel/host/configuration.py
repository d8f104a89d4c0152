"""Files of `kind: Configuration`: which APIs and secrets there are, tracing and metrics.

Source: Dapr's configuration schema. What protects and is not there is refused: an ignored rule protects nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ..errors import ConfigurationError, InvalidArgumentError, Problem
from ..manifest import Document, Manifest, read_manifests
from ..values import parse_bool, parse_float
from .access import AccessRules, ApiRule, SecretScope

__all__ = ["HostConfiguration", "TracingOptions", "read_configuration"]

_APIS = ("dapr.io/v1alpha1",)
_WITHOUT_EFFECT = {
    "accessControl": "it is about service invocation, which lapel does not have",
    "features": "lapel has no feature flags",
    "mtls": "lapel does not talk to other sidecars",
    "nameResolution": "lapel resolves no names",
    "logging": "set the log level on the command line",
    "wasm": "lapel runs no WebAssembly",
    "workflow": "lapel has no workflows",
}
_PIPELINES = ("httpPipeline", "appHttpPipeline")
_KNOWN = ("api", "components", "secrets", "tracing", "metric", "metrics", *_PIPELINES, *_WITHOUT_EFFECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """Where spans go. `sampling_rate` is the share of traces that begin here and are recorded, from 0 to 1.

    `otlp_endpoint` is `host:port` or a URL, `otlp_protocol` `http` or `grpc`; `headers` go with every export.
    """

    sampling_rate: float = 1.0
    stdout: bool = False
    otlp_endpoint: str | None = None
    otlp_protocol: Literal["http", "grpc"] = "grpc"
    otlp_secure: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    zipkin_endpoint: str | None = None

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return self.sampling_rate > 0 and bool(self.stdout or self.otlp_endpoint or self.zipkin_endpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfiguration:
    """What a configuration file says. The default says nothing.

    `denied_components` are types, such as `bindings.smtp` or `bindings.smtp/v1`. `warnings` are about what has no
    effect here.
    """

    rules: AccessRules = field(default_factory=AccessRules)
    tracing: TracingOptions = field(default_factory=lambda: TracingOptions(sampling_rate=0.0))
    metrics: bool = True
    denied_components: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def check(self, manifest: Manifest) -> None:
        """Raise `ConfigurationError` for a component of a type that is denied."""
        names = {manifest.type, f"{manifest.type}/{manifest.version}"}
        if denied := sorted(names & set(self.denied_components)):
            text = f"components of type {denied[0]} are denied by the configuration (spec.components.deny)"
            raise ConfigurationError(text, component=manifest.name, driver=manifest.type)


def read_configuration(path: str | os.PathLike[str]) -> HostConfiguration:
    """Read the one `Configuration` of a file. Blocks on the disk.

    Raises `ManifestError` for a file that cannot be read and `ConfigurationError` with every problem.
    """
    documents = [document for document in read_manifests(path).others if document.kind == "Configuration"]
    if len(documents) != 1:
        raise ConfigurationError(f"{os.fspath(path)} has {len(documents)} documents of kind Configuration; expected 1")
    return _Reader(documents[0]).read()


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: list[Problem] = []

    def read(self) -> HostConfiguration:
        if self._document.api_version not in _APIS:
            self._problem("apiVersion", f"is {self._document.api_version!r}; expected {_APIS[0]}")
        spec = self._map(self._document.data, "spec", "")
        for key in spec:
            if key not in _KNOWN:
                self._problem(f"spec.{key}", "is not known and has no effect", warning=True)
            elif key in _WITHOUT_EFFECT and spec[key]:
                self._problem(f"spec.{key}", f"has no effect: {_WITHOUT_EFFECT[key]}", warning=True)
        for pipeline in _PIPELINES:
            if self._list(self._map(spec, pipeline, "spec."), "handlers", f"spec.{pipeline}."):
                self._problem(f"spec.{pipeline}", "names middleware, which lapel does not have; leave it out")
        metrics = {**self._map(spec, "metrics", "spec."), **self._map(spec, "metric", "spec.")}
        found = HostConfiguration(
            rules=self._rules(spec),
            tracing=self._tracing(self._map(spec, "tracing", "spec.")),
            metrics=self._flag(metrics, "enabled", "spec.metrics.", default=True),
            denied_components=tuple(
                str(entry).lower()
                for entry in self._list(self._map(spec, "components", "spec."), "deny", "spec.components.")
            ),
            warnings=tuple(problem for problem in self._problems if problem.warning),
        )
        if errors := [problem for problem in self._problems if not problem.warning]:
            lines = [str(problem) for problem in errors]
            text = (
                lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems in the configuration:", *lines])
            )
            raise ConfigurationError(text, problems=self._problems)
        return found

    def _rules(self, spec: Mapping[str, Any]) -> AccessRules:
        api = self._map(spec, "api", "spec.")
        scopes: dict[str, SecretScope] = {}
        for number, entry in enumerate(self._entries(self._map(spec, "secrets", "spec."), "scopes", "spec.secrets.")):
            place = f"spec.secrets.scopes[{number}]"
            store = str(entry.get("storeName") or "")
            default = str(entry.get("defaultAccess") or "allow").lower()
            if not store:
                self._problem(f"{place}.storeName", "is missing")
            if store in scopes:
                self._problem(f"{place}.storeName", f"has a scope for {store!r} already; there can be one")
            if default not in ("allow", "deny"):
                self._problem(f"{place}.defaultAccess", f"is {default[:64]!r}; expected allow or deny")
            scopes[store] = SecretScope(
                default_access="deny" if default == "deny" else "allow",
                allowed=frozenset(map(str, self._list(entry, "allowedSecrets", place + "."))),
                denied=frozenset(map(str, self._list(entry, "deniedSecrets", place + "."))),
            )
        return AccessRules(
            allowed_apis=tuple(self._apis(api, "allowed")),
            denied_apis=tuple(self._apis(api, "denied")),
            secrets=scopes,
        )

    def _apis(self, api: Mapping[str, Any], key: str) -> Iterator[ApiRule]:
        for number, entry in enumerate(self._entries(api, key, "spec.api.")):
            place = f"spec.api.{key}[{number}]"
            name, version = str(entry.get("name") or ""), str(entry.get("version") or "")
            protocol = str(entry.get("protocol") or "").lower()
            if not name or not version:
                self._problem(place, "needs a name, such as state, and a version, such as v1")
            if protocol not in ("", "http", "grpc"):
                self._problem(f"{place}.protocol", f"is {protocol[:64]!r}; expected http or grpc, or none for both")
                continue
            yield ApiRule(name=name, version=version, protocol=cast("Literal['', 'http', 'grpc']", protocol))

    def _tracing(self, tracing: Mapping[str, Any]) -> TracingOptions:
        otel, zipkin = self._map(tracing, "otel", "spec.tracing."), self._map(tracing, "zipkin", "spec.tracing.")
        protocol = str(otel.get("protocol") or "grpc").lower()
        if protocol not in ("grpc", "http"):
            self._problem("spec.tracing.otel.protocol", f"is {protocol[:64]!r}; expected grpc or http")
        rate = self._value(tracing, "samplingRate", "spec.tracing.", parse_float, 1.0 if tracing else 0.0)
        if not 0 <= rate <= 1:
            self._problem("spec.tracing.samplingRate", f"is {rate:g}; expected 0 to 1")
        return TracingOptions(
            sampling_rate=rate,
            stdout=self._flag(tracing, "stdout", "spec.tracing."),
            otlp_endpoint=str(otel.get("endpointAddress") or "") or None,
            otlp_protocol="http" if protocol == "http" else "grpc",
            otlp_secure=self._flag(otel, "isSecure", "spec.tracing.otel.", default=True),
            headers=dict(self._headers(otel)),
            zipkin_endpoint=str(zipkin.get("endpointAddress") or "") or None,
        )

    def _headers(self, otel: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Read a map, a list of `{name, value}`, or text `a=1,b=2`."""
        given = otel.get("headers")
        if isinstance(given, Mapping):
            yield from ((str(name), str(value)) for name, value in given.items())
        elif isinstance(given, str):
            for part in filter(None, map(str.strip, given.split(","))):
                name, equals, value = part.partition("=")
                if not equals:
                    self._problem("spec.tracing.otel.headers", "is not written as name=value,name=value")
                yield name.strip(), value.strip()
        elif given:
            for entry in self._entries(otel, "headers", "spec.tracing.otel."):
                if "secretKeyRef" in entry:
                    self._problem(
                        "spec.tracing.otel.headers", "uses secretKeyRef, which is not read here; give a value"
                    )
                yield str(entry.get("name") or ""), str(entry.get("value") or "")

    def _flag(self, given: Mapping[str, Any], key: str, place: str, *, default: bool = False) -> bool:
        flag: bool = self._value(given, key, place, parse_bool, default)
        return flag

    def _value(self, given: Mapping[str, Any], key: str, place: str, parse: Callable[[str], Any], default: Any) -> Any:
        value = given.get(key)
        if value is None or value == "":
            return default
        try:
            return parse(str(value))
        except InvalidArgumentError as exc:
            self._problem(f"{place}{key}", f"{exc.message}, not {str(value)[:64]!r}")
            return default

    def _map(self, parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
        value = parent.get(key)
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self._problem(f"{place}{key}", "must be a map")
        return {}

    def _list(self, parent: Mapping[str, Any], key: str, place: str) -> list[Any]:
        value = parent.get(key)
        if isinstance(value, list):
            return value
        if value is not None:
            self._problem(f"{place}{key}", "must be a list")
        return []

    def _entries(self, parent: Mapping[str, Any], key: str, place: str) -> Iterator[Mapping[str, Any]]:
        for number, entry in enumerate(self._list(parent, key, place)):
            if isinstance(entry, Mapping):
                yield entry
            else:
                self._problem(f"{place}{key}[{number}]", "must be a map")

    def _problem(self, field: str, text: str, *, warning: bool = False) -> None:
        document = self._document
        self._problems.append(Problem(text, field, None, document.file, document.line, warning))
