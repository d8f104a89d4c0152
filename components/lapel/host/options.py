"""Everything a host can be told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import InvalidArgumentError

__all__ = ["HostOptions"]


def _from_environment(name: str) -> str | None:
    return os.environ.get(name) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """How a host is run; the defaults are Dapr's. Wrong values raise `InvalidArgumentError`."""

    # who it is

    app_id: str | None = None
    """Prefixes keys, names the consumer group and selects components by scopes. None: no prefix, every component."""
    namespace: str | None = field(default_factory=lambda: _from_environment("NAMESPACE"))
    """Default: the environment variable `NAMESPACE`."""

    # where it listens (only `lapel run` and `serve` listen)

    address: str = "127.0.0.1"
    http_port: int = 3500
    """0 takes a free one."""

    # the application

    app_port: int | None = None
    """Where the application listens. None: there is none, and nothing is delivered."""
    app_protocol: Literal["http", "https"] = "http"
    app_channel_address: str = "127.0.0.1"
    app_max_concurrency: int = -1
    """How many requests the application gets at once; -1 or 0 for no limit."""
    app_timeout: float = 600.0
    """How many seconds the application may take to answer a delivery. Resiliency documents say less."""
    app_api_token: str | None = field(default_factory=lambda: _from_environment("APP_API_TOKEN"), repr=False)
    """What the application gets as the header `dapr-api-token`. Default: `APP_API_TOKEN`."""
    app_health_check: bool = False
    """Probe the application, and deliver nothing while it is unwell."""
    app_health_check_path: str = "/healthz"
    app_health_probe_interval: float = 5.0
    app_health_probe_timeout: float = 0.5
    app_health_threshold: int = 3
    """After how many failed probes in a row the application is unwell."""

    # limits

    max_body_size: int = 4 * 1024 * 1024
    """Bytes of a request's body, -1 for no limit. A larger one is answered 413. Streams are not limited."""
    read_buffer_size: int = 4 * 1024
    """Bytes of request line and headers; as in Dapr 4096 more are tolerated. Only for the host's own server."""
    graceful_shutdown_seconds: float = 5.0
    """How long requests under way may take once shutdown began."""

    # who may call

    api_token: str | None = field(default_factory=lambda: _from_environment("DAPR_API_TOKEN"), repr=False)
    """What the header `dapr-api-token` must be. None lets everybody in. Default: `DAPR_API_TOKEN`."""

    # what operators see (only `lapel run` has the first three)

    configuration: Path | None = None
    """A file with one document of kind `Configuration`."""
    metrics_port: int | None = None
    """Where Prometheus finds `/metrics`. None: nowhere."""
    watch: bool = False
    """Reload component files when they change."""
    status_page: bool = True
    """Show a page at `/` with components, subscriptions and recent errors."""

    # component files

    unknown: Literal["error", "warn"] = "error"
    """What an unknown field of a component file is."""

    def __post_init__(self) -> None:
        if self.app_id is not None and (not self.app_id or "||" in self.app_id):
            raise InvalidArgumentError(f"app_id is {self.app_id!r}; expected text without '||', or None")
        if not 0 <= self.http_port < 2**16:
            raise InvalidArgumentError(f"http_port is {self.http_port}; expected 0 to 65535")
        if self.max_body_size < -1:
            raise InvalidArgumentError(f"max_body_size is {self.max_body_size}; expected bytes, or -1 for no limit")
        if self.read_buffer_size < 1:
            raise InvalidArgumentError(f"read_buffer_size is {self.read_buffer_size}; expected bytes, from 1")
        if self.graceful_shutdown_seconds < 0:
            raise InvalidArgumentError("graceful_shutdown_seconds is negative")
        for name in ("api_token", "app_api_token"):
            token = getattr(self, name)
            if token is not None and not (token.isascii() and token.isprintable()):
                raise InvalidArgumentError(f"{name} is not printable ASCII, so no header can carry it")
        if self.app_port is not None and not 0 < self.app_port < 2**16:
            raise InvalidArgumentError(f"app_port is {self.app_port}; expected 1 to 65535")
        if self.app_protocol not in ("http", "https"):
            raise InvalidArgumentError(f"app_protocol is {self.app_protocol!r}; expected http or https")
        for name in ("app_timeout", "app_health_probe_interval", "app_health_probe_timeout", "app_health_threshold"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError(f"{name} is {getattr(self, name)}; expected more than 0")
