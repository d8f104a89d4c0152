"""The command line: arguments, options and help. The work is done in one module for each command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..descriptor import Kind
from ..errors import InvalidArgumentError, LapelError
from ..registry import Registry, default_registry
from .run import serve

__all__ = [
    "Cipher",
    "app",
    "check",
    "conformance",
    "crypto",
    "decrypt",
    "describe",
    "drivers",
    "encrypt",
    "run",
    "serve",
    "validate",
]

EXIT_CODES = "Exit codes: 0 all is well, 1 problems were found, 2 the command line is wrong."

app = typer.Typer(
    name="lapel",
    help="Pluggable component drivers: what is installed, what its settings are, and whether component files work.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
crypto = typer.Typer(
    help="Encrypt and decrypt files and pipes of any length with the keys of a crypto component.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(crypto, name="crypto")
app.command("run", epilog=EXIT_CODES)(serve)


class Cipher(StrEnum):
    """The ciphers of documents."""

    AES_GCM = "AES-GCM"
    CHACHA20_POLY1305 = "CHACHA20-POLY1305"


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Paths = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Component files, or folders of them.")]
AppId = Annotated[str | None, typer.Option(help="Leave out components whose scopes do not name this app.")]
Namespace = Annotated[str | None, typer.Option(help="Leave out components of other namespaces.")]
Input = Annotated[str, typer.Argument(metavar="FILE", help="The file to read, or - for standard input.")]
Output = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE", help="The file to write, or - for standard output.")
]
CryptoFile = Annotated[Path, typer.Option(metavar="FILE", help="A file with one crypto component.")]
Lenient = Annotated[bool, typer.Option("--lenient", help="Unknown fields are warnings, not errors.")]


def run(arguments: Sequence[str] | None = None, registry: Registry | None = None) -> int:
    """Run the command line and return the exit code. Errors of lapel are printed without a traceback."""
    try:
        app(args=arguments, prog_name="lapel", obj=registry or default_registry())
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except (LapelError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lapel {version('lapel')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that need no command."""


@app.command(epilog=EXIT_CODES)
def drivers(
    context: typer.Context,
    kind: Annotated[Kind | None, typer.Option(help="Only drivers of this kind.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Import every driver, and with it its SDK.")] = False,
    json: Json = False,
) -> None:
    """List the installed drivers.

    Shows capabilities, origin, and what is missing to load them. A driver that needs an extra which is not
    installed is listed with the command that installs it. Exits with 1 when a driver is broken.
    """
    from .drivers import list_drivers

    raise typer.Exit(list_drivers(_registry(context), kind=kind, check=check, as_json=json))


@app.command(epilog=EXIT_CODES)
def describe(
    context: typer.Context,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="For example state.sqlite, or state.redis/v2.")],
    json: Json = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the metadata.")] = False,
) -> None:
    """Describe one driver.

    Shows fields, capabilities, limits, operations, and an example of a component file. Needs no SDK.
    """
    from .describe import describe_driver

    if json and schema:
        raise typer.BadParameter("--json and --schema exclude each other")
    try:
        code = describe_driver(_registry(context), type, as_json=json, schema=schema)
    except InvalidArgumentError as exc:
        raise typer.BadParameter(exc.message) from exc
    raise typer.Exit(code)


@app.command(epilog=EXIT_CODES)
def validate(
    context: typer.Context,
    paths: Paths,
    app_id: AppId = None,
    namespace: Namespace = None,
    lenient: Lenient = False,
    json: Json = False,
) -> None:
    """Check component files offline.

    Shows every problem, with file and line. Opens nothing and needs neither SDKs nor secrets.
    """
    from .validate import validate_files

    code = validate_files(_registry(context), paths, app_id=app_id, namespace=namespace, lenient=lenient, as_json=json)
    raise typer.Exit(code)


@app.command(epilog=EXIT_CODES)
def check(
    context: typer.Context,
    paths: Paths,
    app_id: AppId = None,
    namespace: Namespace = None,
    lenient: Lenient = False,
    json: Json = False,
) -> None:
    """Open every component and see if it works.

    Asks each for a sign of life, reports, and closes; writes no data to the backends. A component that does not
    open, or opens and is not healthy, is a problem, also with ignoreErrors.
    """
    from .check import check_components

    code = check_components(
        _registry(context), paths, app_id=app_id, namespace=namespace, lenient=lenient, as_json=json
    )
    raise typer.Exit(code)


@app.command(epilog=EXIT_CODES)
def conformance(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A component file, or a folder of them.")],
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the report as JSON; - prints it.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page.")] = None,
    select: Annotated[str | None, typer.Option("-k", metavar="EXPRESSION", help="Run only these tests.")] = None,
    progress: Annotated[bool, typer.Option("--progress", help="Show pytest's own output.")] = False,
) -> None:
    """Run the conformance suite on a component.

    It proves that a driver does what it declares. The suite writes to the backend of the component and deletes what
    it wrote. Do not point it at data that matters.
    """
    from .conformance import run_suite

    raise typer.Exit(run_suite(path, json=json, html=html, select=select, progress=progress))


@crypto.command(epilog=EXIT_CODES)
def encrypt(
    context: typer.Context,
    file: Input,
    component: CryptoFile,
    key: Annotated[str, typer.Option(help="The name of the key.")],
    output: Output = "-",
    algorithm: Annotated[str, typer.Option(help="How the key protects the document's own key.")] = "A256KW",
    cipher: Annotated[Cipher, typer.Option(case_sensitive=False, help="The document's cipher.")] = Cipher.AES_GCM,
) -> None:
    """Encrypt a file or pipe with Dapr's scheme version 1.

    A file is written whole or not at all; a new one can only be read by its owner.
    """
    from .crypto import transform_file

    if output == "-" and sys.stdout.isatty():
        raise typer.BadParameter("encrypted data is not for a terminal; name a file with -o, or use a pipe")
    code = transform_file(
        _registry(context),
        lambda provider, chunks: provider.encrypt_stream(
            chunks, key_name=key, algorithm=algorithm, cipher=cipher.value
        ),
        source=file,
        target=output,
        component=component,
        whole=False,
        title="encrypting",
    )
    raise typer.Exit(code)


@crypto.command(epilog=EXIT_CODES)
def decrypt(
    context: typer.Context,
    file: Input,
    component: CryptoFile,
    key: Annotated[str | None, typer.Option(help="The name of the key. Default: the one in the document.")] = None,
    output: Output = "-",
) -> None:
    """Decrypt a file or pipe.

    Nothing is written unless the whole document is right. For a pipe, more than 8 MiB wait in a temporary file without
    a name until then. A new file can only be read by its owner.
    """
    from .crypto import transform_file

    code = transform_file(
        _registry(context),
        lambda provider, chunks: provider.decrypt_stream(chunks, key_name=key),
        source=file,
        target=output,
        component=component,
        whole=True,
        title="decrypting",
    )
    raise typer.Exit(code)


def _registry(context: typer.Context) -> Registry:
    registry: Any = context.obj
    assert isinstance(registry, Registry)
    return registry
