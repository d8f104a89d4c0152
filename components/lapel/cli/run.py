"""`lapel run`: the host as a program."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import AssemblyError, InvalidArgumentError, LapelError, MissingExtraError

__all__ = ["LogLevel", "run_host", "serve"]

COMMAND = 'pip install "lapel[host]"'


class LogLevel(StrEnum):
    """How much a host logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    app_id: Annotated[str, typer.Option(help="The application: prefixes keys, selects components by scopes.")],
    paths: Annotated[
        list[Path] | None,
        typer.Option("--resources-path", "-d", metavar="PATH", help="Component files, or a folder. Repeatable."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="A file with one document of kind Configuration."),
    ] = None,
    http_port: Annotated[
        int, typer.Option("--http-port", "--dapr-http-port", "-H", help="Where to listen; 0 for a free port.")
    ] = 3500,
    address: Annotated[
        str, typer.Option("--listen-address", "--dapr-listen-addresses", help="The address to listen on.")
    ] = "127.0.0.1",
    namespace: Annotated[
        str | None, typer.Option(envvar="NAMESPACE", help="Leave out components of other namespaces.")
    ] = None,
    app_port: Annotated[
        int | None, typer.Option("--app-port", "-p", help="Where the application listens. None: nothing is delivered.")
    ] = None,
    app_protocol: Annotated[str, typer.Option("--app-protocol", "-P", help="http or https.")] = "http",
    app_channel_address: Annotated[str, typer.Option(help="The address of the application.")] = "127.0.0.1",
    app_max_concurrency: Annotated[
        int, typer.Option(help="How many requests the application gets at once; -1 for no limit.")
    ] = -1,
    app_health_check: Annotated[
        bool,
        typer.Option("--enable-app-health-check", help="Probe the application; deliver nothing while it is unwell."),
    ] = False,
    app_health_check_path: Annotated[str, typer.Option(help="The path of the probe.")] = "/healthz",
    app_health_probe_interval: Annotated[str, typer.Option(help="Between probes; a bare number is seconds.")] = "5s",
    app_health_probe_timeout: Annotated[
        str, typer.Option(help="For one probe; a bare number is milliseconds.")
    ] = "500ms",
    app_health_threshold: Annotated[int, typer.Option(help="Failures in a row until the application is unwell.")] = 3,
    max_body_size: Annotated[
        str, typer.Option("--max-body-size", help="Largest body, as 4Mi; -1 for no limit.")
    ] = "4Mi",
    read_buffer_size: Annotated[
        str, typer.Option("--read-buffer-size", help="Largest request line and headers, as 4Ki.")
    ] = "4Ki",
    shutdown_seconds: Annotated[
        float,
        typer.Option(
            "--graceful-shutdown-seconds",
            "--dapr-graceful-shutdown-seconds",
            help="How long requests under way may take at the end.",
        ),
    ] = 5.0,
    metrics_port: Annotated[int, typer.Option(help="Where Prometheus finds /metrics; 0 for nowhere.")] = 0,
    status_page: Annotated[
        bool, typer.Option(help="Show a page at / with components, subscriptions and errors.")
    ] = True,
    watch: Annotated[bool, typer.Option("--watch", help="Reload component files when they change.")] = False,
    log_level: Annotated[LogLevel, typer.Option(case_sensitive=False, help="What is logged.")] = LogLevel.INFO,
    log_as_json: Annotated[bool, typer.Option("--log-as-json", help="Write logs as JSON, one object a line.")] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help="Unknown fields are warnings, not errors.")] = False,
) -> None:
    """Serve Dapr's HTTP API over component files.

    The environment variable DAPR_API_TOKEN, when set, is what callers must send, and APP_API_TOKEN what the application
    gets. SIGTERM, SIGINT and the shutdown API end it gracefully; a second signal at once.
    """
    from ..values import parse_size

    try:
        code = run_host(
            paths or [],
            log_level=log_level.value,
            log_as_json=log_as_json,
            app_id=app_id,
            namespace=namespace,
            configuration=config,
            address=address,
            http_port=http_port,
            app_port=app_port,
            app_protocol=app_protocol,
            app_channel_address=app_channel_address,
            app_max_concurrency=app_max_concurrency,
            app_health_check=app_health_check,
            app_health_check_path=app_health_check_path,
            app_health_probe_interval=_seconds(app_health_probe_interval, "s"),
            app_health_probe_timeout=_seconds(app_health_probe_timeout, "ms"),
            app_health_threshold=app_health_threshold,
            max_body_size=int(parse_size(max_body_size)),
            read_buffer_size=int(parse_size(read_buffer_size)),
            graceful_shutdown_seconds=shutdown_seconds,
            metrics_port=metrics_port or None,
            status_page=status_page,
            watch=watch,
            unknown="warn" if lenient else "error",
        )
    except InvalidArgumentError as exc:
        raise typer.BadParameter(exc.message) from exc
    raise typer.Exit(code)


def run_host(paths: Sequence[Path], *, log_level: str, log_as_json: bool = False, **fields: Any) -> int:
    """Run a host until it is told to end, and return the exit code. `fields` are those of `HostOptions`.

    Raises `InvalidArgumentError` for a wrong option and `MissingExtraError` when the packages of the host are missing.
    """
    try:
        from ..host import HostOptions
        from ..host.logs import configure_logging
        from ..host.program import new_event_loop, run
    except ImportError as exc:
        raise MissingExtraError(f"the host needs packages that are not there: {COMMAND}", command=COMMAND) from exc
    options = HostOptions(**fields)
    configure_logging(log_level, as_json=log_as_json, app_id=options.app_id)

    def listening(address: str, port: int) -> None:
        # What there is now stays for good. Without this each full collection looks at all of it again, and every
        # request waits for that: tens of milliseconds, now and then.
        gc.collect()
        gc.freeze()
        logging.getLogger("lapel.host").info("%s is ready on http://%s:%d", options.app_id, address, port)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(run([str(path) for path in paths], options, listening=listening))
    except InvalidArgumentError:
        raise
    except (LapelError, AssemblyError) as exc:
        text = exc.message if isinstance(exc, AssemblyError) else str(exc)
        print(f"error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _seconds(text: str, unit: Literal["s", "ms"]) -> float:
    from ..values import parse_duration

    duration: timedelta = parse_duration(text, unit)
    return duration.total_seconds()
