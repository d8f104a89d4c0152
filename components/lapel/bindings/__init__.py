"""Bindings: operations of outside systems, and their events."""

from .driver import SAFE_OPERATIONS, BindingDriver
from .errors import (
    NotFoundReplyError,
    PermissionDeniedReplyError,
    ReplyError,
    ThrottledReplyError,
    UnavailableReplyError,
)
from .input import EventHandler, InputBinding, Reading
from .output import OutputBinding
from .settings import BindingSettings
from .types import BindingEvent, BindingResponse, InvokeRequest, ReadRequest

__all__ = [
    "SAFE_OPERATIONS",
    "BindingDriver",
    "BindingEvent",
    "BindingResponse",
    "BindingSettings",
    "EventHandler",
    "InputBinding",
    "InvokeRequest",
    "NotFoundReplyError",
    "OutputBinding",
    "PermissionDeniedReplyError",
    "ReadRequest",
    "Reading",
    "ReplyError",
    "ThrottledReplyError",
    "UnavailableReplyError",
]
