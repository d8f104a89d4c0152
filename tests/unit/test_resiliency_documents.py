"""Resiliency documents: what they define, for whom, and every mistake in them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from lapel.descriptor import Kind
from lapel.errors import Problem
from lapel.manifest import parse_manifests
from lapel.resiliency import Policies, Resiliency, read_resiliency

HEAD = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
"""


def read(spec: str, **scope: str) -> tuple[Resiliency, list[Problem]]:
    loaded = parse_manifests(HEAD + spec)
    assert not loaded.problems
    return read_resiliency(loaded.others, **scope)


def good(spec: str, **scope: str) -> Resiliency:
    found, problems = read(spec, **scope)
    assert problems == []
    return found


WHOLE = """
spec:
  policies:
    timeouts: {quick: 5s, digits: "250"}
    retries:
      plain: {policy: constant, duration: 2s, maxRetries: 3}
      growing: {policy: exponential, maxInterval: 15s, maxRetries: -1}
      picky: {matching: {httpStatusCodes: "429,500-599", gRPCStatusCodes: "1,4-8,14"}}
    circuitBreakers:
      cb: {maxRequests: 2, interval: 8s, timeout: 45s, trip: consecutiveFailures >= 2}
      bare: {}
  targets:
    apps: {peer: {timeout: quick, retry: plain, circuitBreaker: cb, circuitBreakerCacheSize: 10}}
    components:
      store:
        outbound: {timeout: digits, retry: growing, circuitBreaker: cb}
        inbound: {retry: plain}
"""


def test_every_policy_has_what_was_written() -> None:
    found = good(WHOLE)
    assert found.names == ["r"]
    assert found.timeouts == {"quick": timedelta(seconds=5), "digits": timedelta(milliseconds=250)}
    plain, growing = found.retries["plain"], found.retries["growing"]
    assert (plain.policy, plain.duration, plain.max_retries, plain.attempts) == ("constant", 2.0, 3, 4)
    assert (growing.policy, growing.max_interval, growing.max_retries, growing.total) == (
        "exponential",
        15.0,
        None,
        900,
    )
    breaker = found.circuit_breakers["cb"]
    assert (breaker.max_requests, breaker.interval, breaker.timeout) == (2, 8.0, 45.0)


def test_what_is_not_written_has_the_reference_s_defaults() -> None:
    found = good(WHOLE)
    picky, bare = found.retries["picky"], found.circuit_breakers["bare"]
    assert (picky.policy, picky.duration, picky.max_interval, picky.max_retries) == ("constant", 5.0, 60.0, None)
    assert (bare.max_requests, bare.interval, bare.timeout) == (1, 0.0, 60.0)
    counts = dict.fromkeys(("requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses"), 0)
    assert not bare.trip({**counts, "consecutiveFailures": 5})
    assert bare.trip({**counts, "consecutiveFailures": 6})


def test_codes_are_lists_and_inclusive_ranges() -> None:
    picky = good(WHOLE).retries["picky"]
    assert [code for code in (200, 428, 429, 499, 500, 599) if picky.retries_http(code)] == [429, 500, 599]


def test_the_documented_example_is_right() -> None:
    page = Path(__file__).parents[2] / "docs" / "resiliency.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    found, problems = read_resiliency(parse_manifests(example).others)
    assert problems == []
    assert found.component("statestore", Kind.STATE).outbound.circuit_breaker is found.circuit_breakers["careful"]
    assert found.component("orders", Kind.PUBSUB).inbound.retry is found.retries["thrice"]


def test_targets_get_the_policies_that_they_name() -> None:
    found = good(WHOLE)
    store = found.component("store", Kind.STATE)
    assert store.outbound == Policies(
        timeout=found.timeouts["digits"],
        retry=found.retries["growing"],
        circuit_breaker=found.circuit_breakers["cb"],
    )
    assert store.inbound == Policies(retry=found.retries["plain"])
    assert not found.component("other", Kind.STATE).outbound
    assert (found.app("peer").cache_size, found.app("peer").policies.retry) == (10, found.retries["plain"])
    assert (found.app("stranger").cache_size, found.app("stranger").policies) == (100, Policies())


def test_default_policies_hold_where_a_target_names_none_the_most_specific_first() -> None:
    found = good("""
spec:
  policies:
    retries:
      DefaultRetryPolicy: {duration: 1s}
      DefaultComponentRetryPolicy: {duration: 2s}
      DefaultComponentInboundRetryPolicy: {duration: 3s}
      DefaultPubsubComponentOutboundRetryPolicy: {duration: 4s}
      DefaultAppRetryPolicy: {duration: 5s}
      own: {duration: 6s}
  targets:
    components: {chosen: {outbound: {retry: own}}}
""")

    def pauses(name: str, kind: Kind) -> list[float | None]:
        policies = found.component(name, kind)
        return [side.retry.duration if side.retry else None for side in (policies.outbound, policies.inbound)]

    assert pauses("any", Kind.STATE) == [2.0, 3.0]
    assert pauses("any", Kind.PUBSUB) == [4.0, 3.0]
    assert pauses("chosen", Kind.STATE) == [6.0, 3.0]
    retry = found.app("any").policies.retry
    assert retry is not None
    assert retry.duration == 5.0


@pytest.mark.parametrize(
    ("scope", "there"), [({}, True), ({"app_id": "shop"}, True), ({"app_id": "bank"}, False)], ids=str
)
def test_scopes_choose_the_documents(scope: dict[str, str], there: bool) -> None:
    found = good("spec: {policies: {timeouts: {t: 1s}}}\nscopes: [shop]", **scope)
    assert ("t" in found.timeouts) is there


MISTAKES = {
    "retries: {r: {policy: linear}}": "must be constant or exponential, not 'linear'",
    "retries: {r: {duration: soon}}": "expected a duration",
    "retries: {r: {maxRetries: -2}}": "must be a whole number from -1, not '-2'",
    "retries: {r: {maxRetries: many}}": "must be a whole number from -1, not 'many'",
    "retries: {r: {attempts: 2}}": "key 'attempts' is not known",
    "retries: {r: {matching: {httpStatusCodes: '500-400'}}}": "'500-400' is not a range within 100-599",
    "retries: {r: {matching: {httpStatusCodes: '99'}}}": "'99' is not a range within 100-599",
    "retries: {r: {matching: {httpStatusCodes: '500,,501'}}}": "'' is neither a code nor a range",
    "retries: {r: {matching: {gRPCStatusCodes: '17'}}}": "'17' is not a range within 0-16",
    "timeouts: {t: 0s}": "must be more than 0, not '0s'",
    "timeouts: [5s]": "must be a map",
    "circuitBreakers: {c: {maxRequests: 0}}": "must be a whole number from 1, not '0'",
    "circuitBreakers: {c: {trip: 'consecutiveFailures >'}}": "is not a CEL expression",
    "circuitBreakers: {c: {trip: 'failures > 3'}}": "does not know failures; there are requests",
    "circuitBreakers: {c: {trip: 'requests + 1'}}": "must be true or false, and is int",
}


@pytest.mark.parametrize("policy", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_the_policy_is_left_out(policy: str) -> None:
    found, (problem,) = read(f"spec: {{policies: {{{policy}}}}}")
    assert MISTAKES[policy] in problem.message
    assert "Resiliency 'r'" in problem.message
    assert (problem.field or "").startswith(f"spec.policies.{policy.partition(':')[0]}")
    assert not problem.warning
    assert not (found.retries or found.timeouts or found.circuit_breakers) or "attempts" in policy


def test_a_target_names_a_policy_that_is_there() -> None:
    _, (problem,) = read("spec: {policies: {retries: {a: {}}}, targets: {components: {s: {outbound: {retry: b}}}}}")
    assert problem.field == "spec.targets.components.s.outbound.retry"
    assert problem.message == "Resiliency 'r': there is no policy 'b'; defined are: a"


def test_a_target_may_name_a_policy_of_a_later_document() -> None:
    first = HEAD + "spec: {targets: {components: {s: {outbound: {retry: late}}}}}"
    second = HEAD + "spec: {policies: {retries: {late: {duration: 2s}}}}"
    loaded = parse_manifests(f"{first}\n---\n{second}")
    found, problems = read_resiliency(loaded.others)
    assert problems == []
    retry = found.component("s", Kind.STATE).outbound.retry
    assert retry is not None
    assert retry.duration == 2


def test_a_target_may_name_a_built_in_policy() -> None:
    found = good("spec: {targets: {components: {s: {outbound: {retry: DaprBuiltInServiceRetries}}}}}")
    retry = found.component("s", Kind.STATE).outbound.retry
    assert retry is not None
    assert (retry.policy, retry.duration, retry.max_retries) == ("constant", 1, 3)


@pytest.mark.parametrize(("given", "kept"), [(-1, 3), (0, 3), (2, 3), (5, 5)])
def test_a_built_in_policy_keeps_at_least_three_retries(given: int, kept: int) -> None:
    found = good(f"spec: {{policies: {{retries: {{DaprBuiltInInitializationRetries: {{maxRetries: {given}}}}}}}}}")
    assert found.retries["DaprBuiltInInitializationRetries"].max_retries == kept


def test_actors_are_a_warning() -> None:
    _, (problem,) = read("spec: {targets: {actors: {t: {timeout: x}}}}")
    assert problem.warning
    assert "lapel has no actors" in problem.message


def test_every_mistake_is_reported_at_once() -> None:
    _, problems = read("spec: {policies: {timeouts: {a: x, b: -1s}, retries: {c: {duration: y, maxRetries: z}}}}")
    assert len(problems) == 4
