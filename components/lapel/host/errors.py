"""The bodies of errors: legacy code, message and, for some, rich details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = [
    "ClientGoneError",
    "HostError",
    "bad_request",
    "error_body",
    "error_info",
    "help_link",
    "malformed",
    "plain_error",
    "reason",
    "resource_info",
]

Detail = Mapping[str, Any]
_TYPE = "type.googleapis.com/google.rpc."


class ClientGoneError(Exception):
    """The client went away before its request was complete. Nothing was done, nobody waits for an answer."""


class HostError(Exception):
    """An answer that is an error.

    `code` is the `errorCode` of the body, `details` its rich details. A `code` of None sends `message` as plain text.
    `headers` go along, for example response metadata.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        details: Sequence[Detail] = (),
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers


def plain_error(status: int, message: str) -> HostError:
    """Return an error whose body is text."""
    return HostError(status, None, message)


def malformed(message: str, details: Sequence[Detail] = ()) -> HostError:
    """Return the answer to a body or argument that is not what the API expects."""
    return HostError(400, "ERR_MALFORMED_REQUEST", message, details)


def error_body(error: HostError) -> bytes:
    """Return the JSON of an error."""
    body: dict[str, Any] = {"errorCode": error.code, "message": error.message}
    if error.details:
        body["details"] = error.details
    return msgspec.json.encode(body)


def reason(error: BaseException) -> str:
    """Return an error's text without the component's name, which the messages of the API have already."""
    message = getattr(error, "message", None)
    return message if isinstance(message, str) else str(error)


def error_info(reason: str, metadata: Mapping[str, str] | None = None) -> Detail:
    """Return the detail that says why in one word."""
    return {"@type": _TYPE + "ErrorInfo", "reason": reason, "domain": "dapr.io", "metadata": dict(metadata or {})}


def resource_info(type: str, name: str, *, owner: str = "", description: str = "") -> Detail:
    """Return the detail that names the component."""
    return {
        "@type": _TYPE + "ResourceInfo",
        "resource_type": type,
        "resource_name": name,
        "owner": owner,
        "description": description,
    }


def bad_request(field: str, description: str) -> Detail:
    """Return the detail that names the wrong field."""
    return {"@type": _TYPE + "BadRequest", "field_violations": [{"field": field, "description": description}]}


def help_link(url: str, description: str) -> Detail:
    """Return the detail that says where to read on."""
    return {"@type": _TYPE + "Help", "links": [{"description": description, "url": url}]}
