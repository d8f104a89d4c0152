"""The ways to come to a token."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from lapel.errors import LapelError, OperationFailedError, PermissionDeniedError

from .errors import Reply, failed
from .options import AppRole, GivenToken, Kubernetes, LoginOptions, TokenFile

__all__ = ["Grant", "Login", "given_by", "make_login"]

Send = Callable[[str, str, Any], Reply]
"""Sends one request in the calling thread: method, path, JSON body."""

_LONGEST_TOKEN = 64 * 1024


class Grant(msgspec.Struct, frozen=True):
    """What is known of a token in use. `seconds` is what is left of its life, None for ever or not known."""

    seconds: float | None
    renewable: bool


class Login(Protocol):
    """One way. The methods block; they are called in a thread, `obtain` never twice at a time."""

    repeats: bool
    """Whether another `obtain` may give another token. False for one from the settings."""
    ours: bool
    """Whether the token was made for this client, which then takes it back when it closes."""

    def obtain(self, send: Send, place: str) -> str:
        """Return a token. `send` uses none. Raises errors of lapel that hold nothing secret."""

    def changed(self) -> str | None:
        """Return the token if it was replaced from outside since it was last returned."""


class _Auth(msgspec.Struct):
    client_token: str | None = None
    lease_duration: float = 0
    renewable: bool = False


class _LoginBody(msgspec.Struct):
    auth: _Auth


class _TokenData(msgspec.Struct):
    ttl: float = 0
    renewable: bool = False


class _LookupBody(msgspec.Struct):
    data: _TokenData


def make_login(options: LoginOptions) -> Login:
    """Return the way that the settings name."""
    if isinstance(options, GivenToken):
        return _Given(options)
    if isinstance(options, TokenFile):
        return _File(options)
    return _Method(options)


def given_by(reply: Reply) -> Grant:
    """Return what a log-in, a renewal or a look-up says of the token. Raises `OperationFailedError`."""
    try:
        found = msgspec.json.decode(reply.content, type=_LookupBody).data
        return Grant(found.ttl or None, found.renewable)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    auth = _auth(reply)
    return Grant(auth.lease_duration or None, auth.renewable)


class _Given:
    """The token of the settings."""

    repeats = False
    ours = False

    def __init__(self, options: GivenToken) -> None:
        self._token = options.token

    def obtain(self, send: Send, place: str) -> str:
        return self._token.reveal()

    def changed(self) -> str | None:
        return None


class _File:
    """The token in a file."""

    repeats = True
    ours = False

    def __init__(self, options: TokenFile) -> None:
        self._path = options.path
        self._stamp: tuple[int, ...] = ()

    def obtain(self, send: Send, place: str) -> str:
        self._stamp = _stamp(self._path)
        return _read(self._path, "vaultTokenMountPath")

    def changed(self) -> str | None:
        stamp = _stamp(self._path)
        if not stamp or stamp == self._stamp:
            return None
        try:
            token = _read(self._path, "vaultTokenMountPath")
        except LapelError:
            # It is being written: what is in use stays, and the next request looks again.
            return None
        self._stamp = stamp
        return token


class _Method:
    """AppRole and Kubernetes: a request that is answered with a token of our own."""

    repeats = True
    ours = True

    def __init__(self, options: AppRole | Kubernetes) -> None:
        self._options = options

    def obtain(self, send: Send, place: str) -> str:
        options = self._options
        path = f"auth/{options.mount}/login"
        reply = send("POST", path, _credentials(options))
        if reply.status in (400, 401, 403):
            raise PermissionDeniedError(f"{place}: it refused the log-in at {path}; check {_fields(options)}")
        if not reply.ok:
            raise failed(reply, place, f"the auth method at {path}")
        token = _auth(reply).client_token
        if not token:
            raise OperationFailedError(f"{place}: the log-in at {path} gave no token")
        return token

    def changed(self) -> str | None:
        return None


def _credentials(options: AppRole | Kubernetes) -> dict[str, str]:
    if isinstance(options, Kubernetes):
        return {"role": options.role, "jwt": _read(options.path, "vaultKubernetesTokenPath")}
    given = {"role_id": options.role_id.reveal()}
    return given if options.secret_id is None else given | {"secret_id": options.secret_id.reveal()}


def _fields(options: AppRole | Kubernetes) -> str:
    if isinstance(options, Kubernetes):
        return "vaultKubernetesRole, the service account, and vaultKubernetesPath"
    return "vaultAppRoleID, vaultAppRoleSecretID and vaultAppRolePath"


def _auth(reply: Reply) -> _Auth:
    try:
        return msgspec.json.decode(reply.content, type=_LoginBody).auth
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    raise OperationFailedError(
        "the answer about a token is not one of Vault; check vaultAddr, and the proxies between here and there"
    )


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: Path, field: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_TOKEN)
        token = content.decode("ascii").strip()
    except OSError as exc:
        problem = os.strerror(exc.errno or 0)
    except UnicodeDecodeError:
        problem = "it holds no token"
    else:
        if token.isprintable() and token:
            return token
        problem = "it holds no token"
    raise PermissionDeniedError(f"cannot use the file named by the field {field!r}: {problem}")
