"""Errors that carry what the outside system answered."""

from __future__ import annotations

from ..errors import NotFoundError, OperationFailedError, PermissionDeniedError, ThrottledError, UnavailableError
from .types import BindingResponse

__all__ = [
    "NotFoundReplyError",
    "PermissionDeniedReplyError",
    "ReplyError",
    "ThrottledReplyError",
    "UnavailableReplyError",
]


class ReplyError(OperationFailedError):
    """The outside system answered with a failure; `response` is that answer, its data read to the end.

    The data is not part of the text: it may hold what must not be logged.
    """

    def __init__(self, message: str, response: BindingResponse) -> None:
        super().__init__(message)
        self.response = response


class NotFoundReplyError(ReplyError, NotFoundError):
    """It answered that the target does not exist."""


class PermissionDeniedReplyError(ReplyError, PermissionDeniedError):
    """It answered that the credentials do not allow this."""


class UnavailableReplyError(ReplyError, UnavailableError):
    """It answered that it does not take requests now."""


class ThrottledReplyError(ReplyError, ThrottledError):
    """It answered that it gets too many requests."""
