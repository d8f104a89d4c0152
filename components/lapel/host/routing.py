"""From a raw path to a handler. Segments are split before they are unescaped, so `a%2Fb` is one of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from .errors import plain_error
from .http import Request, Response

__all__ = ["Handler", "Route", "Router", "under_root"]

Handler = Callable[[Request], Awaitable[Response]]
_LEADS = 128
"""For how many begins of paths the way is remembered."""
_BAD_ESCAPE = re.compile("%(?![0-9a-fA-F]{2}).{0,2}")
_VERSIONS = {
    "v1.0": "v1",
    "v1.0-alpha": "v1alpha1",
    "v1.0-alpha1": "v1alpha1",
    "v1.0-alpha2": "v1alpha2",
    "v1.0-beta1": "v1beta1",
}


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One operation of an API.

    `template` is its path; `{name}` is one segment and `{name...}` the rest of the path, both not empty. `group` is
    the name that API allow and deny lists use, and `listed_as` their version where the path has another, as one beside
    Dapr's own may: what is denied must not stay open there. `body` says what the handler wants: nothing, all of it, or
    a stream.
    An `open` route needs no token.

    The rest is for the OpenAPI document: `accepts` is the type of the body (a mapping of names to types, `str` for
    text, `bytes` for anything), `query` and `headers` the names of what it reads there, `answers` its good statuses,
    none for a route that only refuses.
    """

    methods: tuple[str, ...]
    template: str
    handler: Handler
    group: str
    summary: str
    body: Literal["none", "whole", "stream"] = "none"
    open: bool = False
    listed_as: str = ""
    accepts: Any = None
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    answers: tuple[int, ...] = (200,)

    @property
    def version(self) -> str:
        """The version as API allow and deny lists write it, such as `v1alpha1`."""
        return self.listed_as or _VERSIONS.get(self.template.split("/")[1], "")


class _Node:
    __slots__ = ("literals", "parameter", "rest", "routes")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rest: dict[str, Route] = {}
        self.routes: dict[str, Route] = {}


class Router:
    """Finds the route of a request. A literal segment wins over a parameter, a parameter over the rest of a path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: tuple[Route, ...] = tuple(routes)
        self._root = _Node()
        for route in self.routes:
            self._add(route)
        self._lead = lru_cache(_LEADS)(self._first)

    def find(self, method: str, raw_path: str) -> tuple[Route, tuple[str, ...]] | None:
        """Return route and unescaped parameters, or None when no route has this path and method.

        Raises the 400 for a path with a bad escape.
        """
        # Nearly every request takes the first branch at each segment, and has all but the last in common with others.
        head, _, last = raw_path.rpartition("/")
        known = self._lead(head)
        if known is not None and last and last[0] != "." and "%" not in last and "+" not in last:
            node, parameters = known
            child = node.literals.get(last)
            if child is None:
                child = node.parameter
                parameters = (*parameters, last)
            if child is not None and (route := child.routes.get(method)) is not None:
                return route, parameters
        if "%" in raw_path and (bad := _BAD_ESCAPE.search(raw_path)):
            raise plain_error(400, f'invalid URL escape "{bad[0]}"')
        found = _match(self._root, _clean(raw_path).split("/"), 1, method, ())
        if found is not None and ("%" in raw_path or "+" in raw_path):
            return found[0], tuple([_unescape(text) for text in found[1]])
        return found

    def _first(self, head: str) -> tuple[_Node, tuple[str, ...]] | None:
        """Follow the first branch at each segment; None when that leads nowhere, or `head` is not plain."""
        if "%" in head or "+" in head or "//" in head + "/" or "/." in head:
            return None
        node = self._root
        parameters: list[str] = []
        for segment in head.split("/")[1:]:
            child = node.literals.get(segment)
            if child is None:
                child = node.parameter
                if child is None:
                    return None
                parameters.append(segment)
            node = child
        return node, tuple(parameters)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.template.split("/")[1:]:
            if segment.endswith("...}"):
                node.rest |= dict.fromkeys(route.methods, route)
                return
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        node.routes |= dict.fromkeys(route.methods, route)


def _match(
    node: _Node, segments: Sequence[str], index: int, method: str, parameters: tuple[str, ...]
) -> tuple[Route, tuple[str, ...]] | None:
    if index == len(segments):
        route = node.routes.get(method)
        return None if route is None else (route, parameters)
    segment = segments[index]
    child = node.literals.get(segment)
    if child is not None:
        found = _match(child, segments, index + 1, method, parameters)
        if found is not None:
            return found
    if node.parameter is not None:
        found = _match(node.parameter, segments, index + 1, method, (*parameters, segment))
        if found is not None:
            return found
    route = node.rest.get(method)
    return None if route is None else (route, (*parameters, "/".join(segments[index:])))


def _clean(path: str) -> str:
    """Return the path without repeated slashes, `.` and `..` segments, and without a slash at its end."""
    # `/.` is also the begin of a name such as `.env`, which normalising leaves alone.
    if "//" in path or "/." in path:
        path = posixpath.normpath("/" + path.lstrip("/"))
    return path[:-1] if len(path) > 1 and path[-1] == "/" else path


def _unescape(text: str) -> str:
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise plain_error(400, "the path is not UTF-8") from None


def under_root(raw_path: str, root: str) -> str:
    """Return the path below the place where the application is mounted; `root` is not escaped."""
    names = root.strip("/").split("/")
    segments = raw_path.split("/")
    mounted = segments[1 : len(names) + 1]
    if [unquote_to_bytes(name).decode(errors="replace") for name in mounted] != names:
        return raw_path  # a proxy took the prefix off already
    return "/" + "/".join(segments[len(names) + 1 :])
