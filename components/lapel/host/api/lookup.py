"""Find a component for a request, or the error that its API has for a missing one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ...descriptor import Kind
from ...errors import NotFoundError, UnavailableError
from ..errors import HostError

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["find"]

C = TypeVar("C")


def find(
    host: Host,
    kind: Kind,
    get: Callable[[str], C],
    name: str,
    *,
    none: Callable[[], HostError],
    missing: Callable[[], HostError],
) -> C:
    """Return the component that `get` finds by name.

    Raises `none()` when the host has no component of this kind at all, else `missing()`. One that was left out
    because it did not open is missing, as in Dapr.
    """
    try:
        return get(name)
    except (NotFoundError, UnavailableError) as exc:
        raise (missing() if host.has(kind) else none()) from exc
