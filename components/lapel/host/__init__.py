"""Dapr's HTTP API over a set of components, as a program (`lapel run`) or as an ASGI application to mount."""

from .access import AccessRules, ApiRule, SecretScope
from .asgi import HostApp, create_app
from .host import Host, Part, RequestHook
from .options import HostOptions

__all__ = [
    "AccessRules",
    "ApiRule",
    "Host",
    "HostApp",
    "HostOptions",
    "Part",
    "RequestHook",
    "SecretScope",
    "create_app",
]
