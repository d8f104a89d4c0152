"""The synchronous facade has the names and parameters of the asynchronous classes."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

import lapel
from lapel import bindings, blocking, configuration, crypto, lock, opening, pubsub, secretstores, state

PAIRS: list[tuple[type[Any], type[Any]]] = [
    (lapel.Component, blocking.Component),
    (lapel.Components, blocking.Components),
    (state.StateStore, blocking.StateStore),
    (pubsub.PubSub, blocking.PubSub),
    (pubsub.Subscription, blocking.Subscription),
    (bindings.OutputBinding, blocking.OutputBinding),
    (bindings.InputBinding, blocking.InputBinding),
    (bindings.Reading, blocking.Reading),
    (bindings.BindingResponse, blocking.BindingResponse),
    (secretstores.SecretStore, blocking.SecretStore),
    (configuration.ConfigurationStore, blocking.ConfigurationStore),
    (lock.LockStore, blocking.LockStore),
    (crypto.CryptoProvider, blocking.CryptoProvider),
    (crypto.SubtleCrypto, blocking.SubtleCrypto),
]


RENAMED = {"aclose": "close"}


ABSENT = {"driver", "open", "open_or_keep_trying"}
"""The driver is asynchronous; opening is done by `open_*`."""


def public(cls: type[Any]) -> dict[str, Any]:
    names = {"__contains__", "__iter__", "__len__"}
    return {
        RENAMED.get(name, name): inspect.getattr_static(cls, name)
        for name in dir(cls)
        if name not in ABSENT and (not name.startswith("_") or (name in names and name in dir(lapel.Components)))
    }


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS, ids=lambda cls: cls.__qualname__)
def test_names_and_signatures_are_those_of_the_asynchronous_class(
    asynchronous: type[Any], synchronous: type[Any]
) -> None:
    expected, found = public(asynchronous), public(synchronous)
    assert set(expected) <= set(found)
    assert set(found) - set(expected) <= {"app_id", "namespace", "group", "name", "options", "subtle", "topic"}
    for name, member in expected.items():
        if not callable(member):
            continue
        assert parameters(found[name]) == parameters(member), name
        assert not inspect.iscoroutinefunction(found[name])
        assert found[name].__doc__ or name.startswith("__")
        # A facade made with `ParamSpec` would lose them.
        assert not typing.get_overloads(member)


def test_every_way_to_open_exists_with_the_same_parameters() -> None:
    for name in [*opening.__all__, "open_components"]:
        if name != "Opening":
            assert parameters(getattr(blocking, name)) == parameters(getattr(lapel, name))
