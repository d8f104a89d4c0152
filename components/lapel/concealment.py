"""Keep secrets out of the errors that reach an application, whatever an SDK puts into its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import NoReturn

from .errors import LapelError
from .secret import Secret

__all__ = ["conceal", "raise_for", "shows_secret"]

_STARS = "***"


def raise_for(exc: Exception, error: LapelError, settings: object) -> NoReturn:
    """Raise `error` while `exc` is handled, chained to it; `error` may be `exc` itself, with the chain it has.

    The chain is cut when it would show a secret of `settings`.
    """
    own = error is exc
    hide = shows_secret(exc.__cause__, settings) or shows_secret(exc.__context__, settings)
    hide = hide or (not own and shows_secret(exc, settings))
    try:
        if own:
            raise error
        raise error from exc
    finally:
        if hide:
            error.__cause__ = error.__context__ = None


def shows_secret(exc: BaseException | None, settings: object) -> bool:
    """Tell whether an exception, or one that its traceback would show with it, has a secret of `settings` in its text.

    A secret is a value of type `Secret` and a text that came from a secret store. Only texts as they are count: one
    that was encoded or cut is not found, so translate errors of a client that may show secrets, and chain them to
    nothing.
    """
    if exc is None:
        return False
    found = _secret_texts(settings)
    return bool(found) and _any_shows(exc, found, set())


def conceal(error: LapelError, settings: object) -> LapelError:
    """Return `error` without the secrets of `settings` in its message: a path or an address may come from a store.

    The chain is cut when it would show one. A secret of less than four characters is replaced only where it stands
    alone.
    """
    found = _secret_texts(settings)
    if not found:
        return error
    if _any_shows(error.__cause__, found, set()) or _any_shows(error.__context__, found, set()):
        error.__cause__ = error.__context__ = None
    parts = [re.escape(text) if len(text) > 3 else rf"(?<!\w){re.escape(text)}(?!\w)" for text in found]
    secret = re.compile("|".join(parts))
    error.message = secret.sub(_STARS, error.message)
    error.args = tuple(secret.sub(_STARS, each) if isinstance(each, str) else each for each in error.args)
    return error


def _secret_texts(settings: object) -> list[str]:
    """Return every text that must not be shown, the longest first."""
    hidden: frozenset[str] = getattr(settings, "_hidden", frozenset())
    found: list[str] = []
    for name, value in getattr(settings, "__dict__", {}).items():
        _collect(value, name in hidden, found)
    return sorted(found, key=len, reverse=True) if len(found) > 1 else found


def _collect(value: object, hidden: bool, found: list[str]) -> None:
    if isinstance(value, Secret):
        found += [value.reveal()] if value else []
    elif isinstance(value, str):
        found += [value] if hidden and value else []
    elif isinstance(value, PurePath):
        # Errors of the system may name a folder on the way; the first one says nothing.
        found += [str(each) for each in (value, *value.parents) if len(each.parts) > 2] if hidden else []
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            _collect(item, hidden, found)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, hidden, found)


def _any_shows(exc: BaseException | None, secret_texts: list[str], seen: set[int]) -> bool:
    if exc is None or id(exc) in seen:
        return False
    seen.add(id(exc))
    try:
        shown = "\n".join([str(exc), repr(exc), *map(str, exc.args), *getattr(exc, "__notes__", ())])
    except Exception:
        # What cannot be looked at may show anything.
        return True
    if any(text in shown for text in secret_texts):
        return True
    inner = [exc.__cause__, exc.__context__]
    if isinstance(exc, BaseExceptionGroup):
        inner += exc.exceptions
    return any(_any_shows(each, secret_texts, seen) for each in inner)
