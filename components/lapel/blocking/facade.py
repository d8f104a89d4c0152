"""What every synchronous class is made of."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from ..component import Component as AsyncComponent
from ..component import ComponentOptions, Health, HealthState
from ..descriptor import Capability, Descriptor, Limits
from ..errors import ClosedError
from .runner import Runner

__all__ = ["Component", "Facade", "blocking", "whole"]

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
C = TypeVar("C", bound=AsyncComponent[Any])


class Facade(Generic[A_co]):
    """A synchronous view of an asynchronous object, equal to other views of it.

    May be used by many threads at once, but not inside a running event loop: `WrongLoopError`.
    """

    def __init__(self, inner: A_co, runner: Runner) -> None:
        self._inner = inner
        self._runner = runner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Facade) and self._inner is other._inner

    def __hash__(self) -> int:
        return hash(id(self._inner))

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>"


class Component(Facade[C]):
    """What all synchronous components have. A `with` block closes it at its end."""

    def __init__(self, inner: C, runner: Runner, *, alone: bool = False) -> None:
        super().__init__(inner, runner)
        # Whether the background loop was made for this component only.
        self._alone = alone

    @property
    def name(self) -> str:
        """The name from the component file, or the one given when it was opened."""
        return self._inner.name

    @property
    def type(self) -> str:
        """The type as component files write it."""
        return self._inner.type

    @property
    def descriptor(self) -> Descriptor:
        """The catalogue entry of its driver."""
        return self._inner.descriptor

    @property
    def options(self) -> ComponentOptions:
        """What shapes the component beside its settings."""
        return self._inner.options

    @property
    def capabilities(self) -> Capability:
        """What this component offers."""
        return self._inner.capabilities

    @property
    def withdrawn(self) -> Mapping[Capability, str]:
        """Declared flags that opening took back, each with the reason."""
        return self._inner.withdrawn

    @property
    def limits(self) -> Limits:
        """The numbers that the backend imposes."""
        return self._inner.limits

    def unwrap(self, kind: builtins.type[T]) -> T:
        """Return the SDK object of class `kind`, or raise `LookupError`. It belongs to the background loop."""
        return self._inner.unwrap(kind)

    def health(self) -> Health:
        """Return its state, after a ping where the driver has one.

        Closed is a state too; the only error is `WrongLoopError`.
        """
        try:
            return self._runner.run(self._inner.health())
        except ClosedError:
            return Health(state=HealthState.CLOSED)

    def close(self) -> None:
        """Stop taking calls, let those under way finish, and let go of the backend.

        Idempotent and bounded. What `aclose` of the asynchronous class says about handlers holds here too; one that
        does not return in time is left behind in its thread. Called by a handler of a component that was opened on its
        own, it returns at once and the closing goes on in the background. Does nothing in a forked child.
        """
        if self._alone:
            self._runner.close(self._inner.aclose)
        else:
            self._runner.run_closing(self._inner.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[A], P], T]:
    """Return the method of a facade that runs `method`, with the same signature, and waits for its result."""

    @wraps(method, assigned=("__name__", "__qualname__", "__doc__", "__annotations__"))
    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._runner.run(method(self._inner, *args, **kwargs))

    return call


def whole(values: Iterable[T]) -> Iterable[T]:
    """Read an iterator to its end here: the background loop must not wait for what produces it."""
    return values if isinstance(values, Collection) else list(values)
