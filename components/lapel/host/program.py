"""A host with everything that a program has: a configuration file, metrics, traces, watched files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from .asgi import HostApp
from .configuration import HostConfiguration, TracingOptions, read_configuration
from .host import Host
from .options import HostOptions
from .server import new_event_loop, serve

__all__ = ["new_event_loop", "run"]

_log = logging.getLogger("lapel.host")


async def run(
    paths: Sequence[str], options: HostOptions, *, listening: Callable[[str, int], None] | None = None
) -> None:
    """Serve until a signal or the shutdown API ends it. Sets the tracer provider of the process.

    `listening` is called with address and port once requests are taken. Raises what reading the configuration and
    opening the components raise, and `UnavailableError` when a port is taken.
    """
    configuration = HostConfiguration()
    if options.configuration is not None:
        configuration = await asyncio.to_thread(read_configuration, options.configuration)
    for problem in configuration.warnings:
        _log.warning("%s", problem)
    host = Host(paths, options, configuration=configuration)
    async with AsyncExitStack() as stack:
        if configuration.tracing.enabled:
            await _trace(host, configuration.tracing, stack)
        if options.metrics_port is not None and configuration.metrics:
            _measure(host, options.metrics_port, stack)
        if options.watch:
            from .watch import Watching

            host.parts.append(Watching(host, [Path(path) for path in paths]))
        await serve(HostApp(host), listening=listening)


async def _trace(host: Host, tracing: TracingOptions, stack: AsyncExitStack) -> None:
    from opentelemetry import trace

    from .tracing import Tracing, tracer_provider

    provider = await asyncio.to_thread(tracer_provider, tracing, host.options.app_id or "lapel")
    stack.push_async_callback(asyncio.to_thread, provider.shutdown)
    trace.set_tracer_provider(provider)
    host.hooks.append(Tracing())


def _measure(host: Host, port: int, stack: AsyncExitStack) -> None:
    from .metrics import Metrics, serve_metrics

    metrics = Metrics(host)
    server = serve_metrics(metrics, host.options.address, port)
    stack.callback(server.server_close)
    stack.push_async_callback(asyncio.to_thread, server.shutdown)
    host.hooks.append(metrics)
