"""Read resiliency documents: every policy and target, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

from .._fields import suggestion
from .._manifest import Document
from ..descriptor import Kind
from ..errors import InvalidArgumentError, Problem
from ..values import parse_duration
from .policies import (
    BUILT_IN_RETRIES,
    NONE,
    AppPolicies,
    CircuitBreakerPolicy,
    CodeRanges,
    ComponentPolicies,
    Policies,
    ResiliencyRetry,
)
from .trip import parse_trip

__all__ = ["RESILIENCY_API", "Resiliency", "read_resiliency"]

RESILIENCY_API = "dapr.io/v1alpha1"

_TYPES = {
    Kind.BINDINGS: "Binding",
    Kind.CONFIGURATION: "Configuration",
    Kind.CRYPTO: "Crypto",
    Kind.LOCK: "Lock",
    Kind.PUBSUB: "Pubsub",
    Kind.SECRETSTORES: "Secretstore",
    Kind.STATE: "Statestore",
}
_HTTP_CODES = range(100, 600)
_GRPC_CODES = range(17)
LEAST_BUILT_IN_RETRIES = 3
"""A document that redefines a built-in retry policy cannot go below this, nor have it go on without end."""
_TARGET_KEYS = ("timeout", "retry", "circuitBreaker")
T = TypeVar("T")


@dataclass(slots=True)
class Resiliency:
    """The policies of all resiliency documents in scope, by name, and what the targets ask for.

    `names` are those of the documents.
    """

    names: list[str] = field(default_factory=list)
    timeouts: dict[str, timedelta] = field(default_factory=dict)
    retries: dict[str, ResiliencyRetry] = field(default_factory=dict)
    circuit_breakers: dict[str, CircuitBreakerPolicy] = field(default_factory=dict)
    apps: dict[str, Mapping[str, str]] = field(default_factory=dict)
    components: dict[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)

    def component(self, name: str, kind: Kind) -> ComponentPolicies:
        """Return the policies of a component; where the target names none, the `Default…Policy` that is there."""
        target = self.components.get(name, {})
        found: dict[str, Policies] = {}
        for direction in ("outbound", "inbound"):
            end = direction.capitalize()
            levels = (f"{_TYPES[kind]}Component{end}", f"Component{end}", "Component", "")
            found[direction] = self._policies(target.get(direction, {}), levels)
        return ComponentPolicies(**found)

    def app(self, app_id: str) -> AppPolicies:
        """Return the policies of calls to an application; defaults as for components."""
        target = self.apps.get(app_id, {})
        size = target.get("circuitBreakerCacheSize", "100")
        return AppPolicies(policies=self._policies(target, ("App", "")), cache_size=int(size))

    def _policies(self, target: Mapping[str, str], levels: Iterable[str]) -> Policies:
        def choose(key: str, kind: str, defined: Mapping[str, T]) -> T | None:
            names = [target[key]] if target.get(key) else [f"Default{level}{kind}Policy" for level in levels]
            return next((defined[name] for name in names if name in defined), None)

        levels = tuple(levels)
        policies = Policies(
            timeout=choose("timeout", "Timeout", self.timeouts),
            retry=choose("retry", "Retry", BUILT_IN_RETRIES | self.retries),
            circuit_breaker=choose("circuitBreaker", "CircuitBreaker", self.circuit_breakers),
        )
        return policies or NONE


def read_resiliency(
    documents: Iterable[Document], *, app_id: str | None = None, namespace: str | None = None
) -> tuple[Resiliency, list[Problem]]:
    """Return what the documents of kind `Resiliency` define, and every problem; other documents are left alone.

    With `app_id`, documents whose scopes leave it out are skipped; with `namespace`, those that name another one. A
    policy that is wrong is left out; a name defined twice means the later one, with a warning.
    """
    found, problems = Resiliency(), []
    readers = [_Reader(document, found) for document in documents if document.kind == "Resiliency"]
    wanted = [reader for reader in readers if reader.in_scope(app_id, namespace) and reader.served()]
    for reader in wanted:
        reader.read_policies()
    # A target may name a policy of any document, also of a later one.
    for reader in wanted:
        reader.read_targets()
    for reader in readers:
        problems += reader.problems
    return found, problems


class _Reader:
    """Reads one document into what is there."""

    def __init__(self, document: Document, found: Resiliency) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._found = found
        self._name = ""
        self._spec: Mapping[str, Any] = {}

    def in_scope(self, app_id: str | None, namespace: str | None) -> bool:
        scopes = self._document.data.get("scopes") or ()
        metadata = self._map(self._document.data, "metadata", "")
        self._name = str(metadata.get("name") or "")
        elsewhere = metadata.get("namespace") and namespace and metadata["namespace"] != namespace
        return not elsewhere and (app_id is None or not scopes or app_id in scopes)

    def served(self) -> bool:
        document = self._document
        if document.api_version != RESILIENCY_API:
            text = f"apiVersion is {document.api_version!r}; a Resiliency has {RESILIENCY_API!r}"
            self._problem(text, "apiVersion", warning=True)
            return False
        self._spec = self._map(document.data, "spec", "")
        return True

    def read_policies(self) -> None:
        found, spec = self._found, self._spec
        found.names.append(self._name)
        self._known(spec, ("policies", "targets"), "spec")
        policies = self._map(spec, "policies", "spec.")
        self._known(policies, ("timeouts", "retries", "circuitBreakers"), "spec.policies")
        self._define(policies, "timeouts", found.timeouts, self._duration)
        self._define(policies, "retries", found.retries, self._retry)
        for name in BUILT_IN_RETRIES.keys() & found.retries.keys():
            given = found.retries[name]
            if given.max_retries is None or given.max_retries < LEAST_BUILT_IN_RETRIES:
                found.retries[name] = replace(given, max_retries=LEAST_BUILT_IN_RETRIES)
        self._define(policies, "circuitBreakers", found.circuit_breakers, self._breaker)

    def read_targets(self) -> None:
        found = self._found
        targets = self._map(self._spec, "targets", "spec.")
        self._known(targets, ("apps", "actors", "components"), "spec.targets")
        if targets.get("actors"):
            self._problem("has no effect: lapel has no actors", "spec.targets.actors", warning=True)
        for app, target in self._map(targets, "apps", "spec.targets.").items():
            place = f"spec.targets.apps.{app}"
            if read := self._target(target, place, (*_TARGET_KEYS, "circuitBreakerCacheSize")):
                if self._number(read, "circuitBreakerCacheSize", place, 100, least=1) is None:
                    read.pop("circuitBreakerCacheSize")
                found.apps[app] = read
        for component, target in self._map(targets, "components", "spec.targets.").items():
            place = f"spec.targets.components.{component}"
            if not isinstance(target, Mapping):
                self._problem("must be a map with outbound and inbound", place)
                continue
            self._known(target, ("outbound", "inbound"), place)
            found.components[component] = {
                direction: self._target(target.get(direction) or {}, f"{place}.{direction}", _TARGET_KEYS)
                for direction in ("outbound", "inbound")
            }

    def _define(
        self, policies: Mapping[str, Any], key: str, defined: dict[str, T], read: Callable[[Any, str], T | None]
    ) -> None:
        for name, value in self._map(policies, key, "spec.policies.").items():
            place = f"spec.policies.{key}.{name}"
            if name in defined:
                self._problem("is defined already; this one replaces it", place, warning=True)
            policy = read(value, place)
            if policy is not None:
                defined[name] = policy

    def _target(self, target: Any, place: str, keys: tuple[str, ...]) -> dict[str, str]:
        if not isinstance(target, Mapping):
            self._problem("must be a map of policy names", place)
            return {}
        self._known(target, keys, place)
        found = self._found
        policies: tuple[Mapping[str, Any], ...] = (found.timeouts, found.retries, found.circuit_breakers)
        for key, defined in zip(_TARGET_KEYS, policies, strict=True):
            name = target.get(key)
            if name and name not in defined and not (key == "retry" and name in BUILT_IN_RETRIES):
                there = ", ".join(defined) or "none"
                self._problem(f"there is no policy {name!r}; defined are: {there}", f"{place}.{key}")
        return {key: str(value) for key, value in target.items() if value is not None}

    def _retry(self, value: Any, place: str) -> ResiliencyRetry | None:
        if not isinstance(value, Mapping):
            self._problem("must be a map", place)
            return None
        self._known(value, ("policy", "duration", "maxInterval", "maxRetries", "matching"), place)
        before = len(self.problems)
        policy = str(value.get("policy") or "constant").lower()
        if policy not in ("constant", "exponential"):
            self._problem(f"must be constant or exponential, not {policy[:64]!r}", f"{place}.policy")
        duration = self._duration(value.get("duration") or "5s", f"{place}.duration", zero=True)
        longest = self._duration(value.get("maxInterval") or "60s", f"{place}.maxInterval", zero=True)
        number = self._number(value, "maxRetries", place, -1, least=-1)
        matching = self._map(value, "matching", f"{place}.")
        self._known(matching, ("httpStatusCodes", "gRPCStatusCodes"), f"{place}.matching")
        http = self._codes(matching.get("httpStatusCodes"), f"{place}.matching.httpStatusCodes", _HTTP_CODES)
        grpc = self._codes(matching.get("gRPCStatusCodes"), f"{place}.matching.gRPCStatusCodes", _GRPC_CODES)
        if any(not problem.warning for problem in self.problems[before:]):
            return None
        assert duration is not None
        assert longest is not None
        return ResiliencyRetry(
            policy="constant" if policy == "constant" else "exponential",
            duration=duration.total_seconds(),
            max_interval=longest.total_seconds(),
            max_retries=None if number == -1 else number,
            http_status_codes=http,
            grpc_status_codes=grpc,
        )

    def _breaker(self, value: Any, place: str) -> CircuitBreakerPolicy | None:
        if not isinstance(value, Mapping):
            self._problem("must be a map", place)
            return None
        self._known(value, ("maxRequests", "interval", "timeout", "trip"), place)
        requests = self._number(value, "maxRequests", place, 1, least=1)
        interval = self._duration(value.get("interval") or "0s", f"{place}.interval", zero=True)
        timeout = self._duration(value.get("timeout") or "60s", f"{place}.timeout")
        trip = None
        try:
            trip = parse_trip(value.get("trip"))
        except InvalidArgumentError as exc:
            self._problem(exc.message, f"{place}.trip")
        if requests is None or interval is None or timeout is None or trip is None:
            return None
        return CircuitBreakerPolicy(
            name=place.rpartition(".")[2],
            max_requests=requests,
            interval=interval.total_seconds(),
            timeout=timeout.total_seconds(),
            trip=trip,
        )

    def _duration(self, value: Any, place: str, *, zero: bool = False) -> timedelta | None:
        try:
            duration = parse_duration(str(value), "ms")
        except InvalidArgumentError as exc:
            self._problem(f"{exc.message}, not {str(value)[:64]!r}", place)
            return None
        if duration < timedelta() or not (duration or zero):
            self._problem(f"must be {'at least' if zero else 'more than'} 0, not {str(value)[:64]!r}", place)
            return None
        return duration

    def _number(self, given: Mapping[str, Any], key: str, place: str, default: int, *, least: int) -> int | None:
        value = given.get(key)
        if value is None:
            return default
        text = str(value)
        if not text.lstrip("-").isascii() or not text.lstrip("-").isdecimal() or int(text) < least:
            self._problem(f"must be a whole number from {least}, not {text[:64]!r}", f"{place}.{key}")
            return None
        return int(text)

    def _codes(self, value: Any, place: str, allowed: range) -> CodeRanges | None:
        if value is None:
            return None
        ranges: list[range] = []
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            last = last if dash else first
            if not (first.isdecimal() and last.isdecimal() and first.isascii() and last.isascii()):
                self._problem(f"{part.strip()[:64]!r} is neither a code nor a range such as 500-599", place)
                return None
            codes = range(int(first), int(last) + 1)
            if not codes or codes[0] not in allowed or codes[-1] not in allowed:
                text = f"{part.strip()[:64]!r} is not a range within {allowed[0]}-{allowed[-1]}"
                self._problem(text, place)
                return None
            ranges.append(codes)
        return tuple(ranges)

    def _map(self, parent: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
        value = parent.get(key)
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self._problem("must be a map", f"{place}{key}")
        return {}

    def _known(self, given: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
        for key in given:
            if key not in known:
                self._problem(f"key {key[:64]!r} is not known{suggestion(key, known)}", place)

    def _problem(self, text: str, place: str, *, warning: bool = False) -> None:
        document = self._document
        name = f"Resiliency {self._name!r}: " if self._name else ""
        self.problems.append(Problem(f"{name}{text}", place, None, document.file, document.line, warning))
