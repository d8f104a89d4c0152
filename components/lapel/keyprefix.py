"""The key layouts by which applications share one backend, as Dapr names them."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ConfigurationError
from .options import ComponentOptions

__all__ = ["check_strategy", "key_prefix"]

BARS = "||"


def check_strategy(strategy: str) -> Iterable[tuple[str, str]]:
    """Yield what is wrong with a component's `keyPrefix`, for `Settings.check`."""
    if BARS in strategy:
        yield "keyPrefix", "must not hold '||', which separates the prefix from the key"


def key_prefix(strategy: str, component: str, options: ComponentOptions, *, before: str = "") -> str:
    """Return what goes before every key, bars included; empty without an app id.

    `strategy` is the component's `keyPrefix`: `appid`, `name`, `namespace`, `none` or other text, in any case.
    `before` comes first of all (`lock` for locks). Source: Dapr's "State key prefix" page.
    """
    if not options.app_id:
        return ""
    strategy = strategy.strip().lower()
    if BARS in strategy or BARS in options.app_id:
        raise ConfigurationError("'||' is not allowed in keyPrefix or app id", component=component)
    parts = [before] if before else []
    if strategy in ("", "appid"):
        parts.append(options.app_id)
    elif strategy == "name":
        parts.append(component)
    elif strategy == "namespace":
        parts.append(f"{options.namespace}.{options.app_id}" if options.namespace else options.app_id)
    elif strategy != "none":
        parts.append(strategy)
    return "".join(part + BARS for part in parts)
