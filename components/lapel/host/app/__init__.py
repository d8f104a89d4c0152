"""The application's side of a host: what it subscribes to, and what is delivered to it."""

from __future__ import annotations

from .channel import AppChannel, AppReply
from .configuration import ConfigurationDelivery
from .side import AppSide

__all__ = ["AppChannel", "AppReply", "AppSide", "ConfigurationDelivery"]
