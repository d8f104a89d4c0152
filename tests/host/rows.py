"""What a row of an error table is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lapel.errors import UnavailableError

TYPE = "type.googleapis.com/google.rpc."
RESOURCE = ("ResourceInfo", "ErrorInfo")
AWAY = "the backend is away"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: what is asked, and what must come back.

    `fails` names a component and methods of its driver that raise `error` meanwhile. `reason` is that of the detail
    ErrorInfo, `kinds` are the kinds of all details in order.
    """

    id: str
    ask: tuple[str, str]
    status: int
    code: str
    message: str | None = None
    reason: str | None = None
    kinds: tuple[str, ...] | None = None
    json: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    fails: tuple[str, str] | None = None
    error: Exception = field(default_factory=lambda: UnavailableError("the backend is away"))
