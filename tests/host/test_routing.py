"""Which route a path leads to, the first time and when the way there is remembered."""

from __future__ import annotations

import pytest

from lapel.host.errors import HostError
from lapel.host.http import NO_CONTENT, Request, Response
from lapel.host.routing import Route, Router


async def answer(request: Request) -> Response:
    return NO_CONTENT


def route(template: str, *methods: str) -> Route:
    return Route(methods, template, answer, "state", "")


STORE = route("/v1.0/state/{store}", "POST")
KEY = route("/v1.0/state/{store}/{key}", "GET")
BULK = route("/v1.0/state/{store}/bulk", "POST")
HEALTH = route("/v1.0/healthz", "GET")
REST = route("/v1.0/invoke/{target...}", "GET")


@pytest.fixture(scope="module")
def router() -> Router:
    """Return one router for all paths, as a host has."""
    return Router([STORE, KEY, BULK, HEALTH, REST])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1.0/healthz", (HEALTH, ())),
        ("GET", "/v1.0/healthz/", (HEALTH, ())),
        ("GET", "/v1.0/state/s/k", (KEY, ("s", "k"))),
        ("GET", "/v1.0/state/s/other", (KEY, ("s", "other"))),
        ("GET", "/v1.0/state/s/bulk", (KEY, ("s", "bulk"))),
        ("POST", "/v1.0/state/s/bulk", (BULK, ("s",))),
        ("POST", "/v1.0/state/s", (STORE, ("s",))),
        ("POST", "/v1.0/state/s/", (STORE, ("s",))),
        ("GET", "/v1.0/state/s/a%2Fb", (KEY, ("s", "a/b"))),
        ("GET", "/v1.0/state/s/a+b", (KEY, ("s", "a b"))),
        ("GET", "/v1.0/state/s+t/k", (KEY, ("s t", "k"))),
        ("GET", "/v1.0/state/%73/k", (KEY, ("s", "k"))),
        ("GET", "/v1.0/state/s/.env", (KEY, ("s", ".env"))),
        ("GET", "/v1.0/state/.s/k", (KEY, (".s", "k"))),
        ("GET", "/v1.0/state//s///k", (KEY, ("s", "k"))),
        ("GET", "/v1.0/state/s/x/../k", (KEY, ("s", "k"))),
        ("GET", "/v1.0/state/s/./k", (KEY, ("s", "k"))),
        ("GET", "/v1.0/state/s/k/..", None),
        ("POST", "/v1.0/state/s/k/..", (STORE, ("s",))),
        ("GET", "/v1.0/state/s/%2e%2e", (KEY, ("s", ".."))),
        ("GET", "/v1.0/invoke/app/method/a%20b", (REST, ("app/method/a b",))),
        ("GET", "/v1.0/invoke/", None),
        ("GET", "/v1.0/state/s", None),
        ("DELETE", "/v1.0/state/s/k", None),
        ("GET", "/v1.0/state/s/k/more", None),
        ("GET", "/", None),
        ("GET", "", None),
    ],
)
def test_a_path_leads_to_its_route(
    router: Router, method: str, path: str, expected: tuple[Route, tuple[str, ...]] | None, again: bool
) -> None:
    assert router.find(method, path) == expected


@pytest.mark.parametrize("path", ["/v1.0/state/s/%", "/v1.0/state/s/%zz", "/v1.0/state/%1/k", "/nowhere/%x"])
def test_a_bad_escape_is_a_bad_request(router: Router, path: str) -> None:
    for _ in range(2):
        with pytest.raises(HostError, match="invalid URL escape"):
            router.find("GET", path)


def test_many_different_paths_are_not_remembered_for_ever(router: Router) -> None:
    for number in range(1000):
        assert router.find("GET", f"/v1.0/state/s{number}/k") == (KEY, (f"s{number}", "k"))
    assert router._lead.cache_info().currsize <= 128
