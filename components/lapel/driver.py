"""What every driver has, whatever its kind."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from .descriptor import Capability, Descriptor, Kind, Limits, capability_names
from .errors import UnsupportedError

if TYPE_CHECKING:
    from .policy import RetryPolicy
    from .settings import Settings

__all__ = ["Driver", "DriverContext", "SettingsT", "SharedClients", "list_drivers", "unsupported"]

SettingsT = TypeVar("SettingsT", bound="Settings")
_T = TypeVar("_T")


class SharedClients:
    """Clients used by several components of one assembly, closed by the last of them.

    Belongs to one event loop. Calls may overlap.
    """

    def __init__(self) -> None:
        self._entries: dict[Hashable, _SharedClient] = {}

    async def acquire(
        self, key: Hashable, create: Callable[[], Awaitable[_T]], close: Callable[[_T], Awaitable[None]]
    ) -> _T:
        """Return the client of `key`, made by `create` if nobody holds it yet.

        Two components share when they pass equal keys, so the key must hold every setting that shapes the
        client. What `create` raises reaches the caller and leaves nothing behind.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _SharedClient(cast("Callable[[Any], Awaitable[None]]", close))
        entry.users += 1
        try:
            async with entry.lock:
                if not entry.made:
                    entry.client = await create()
                    entry.made = True
        except BaseException:
            await self._give_back(key, entry)
            raise
        return cast("_T", entry.client)

    async def release(self, key: Hashable) -> None:
        """Give a client back. The last user's call closes it and waits for that."""
        entry = self._entries.get(key)
        if entry is not None:
            await self._give_back(key, entry)

    async def _give_back(self, key: Hashable, entry: _SharedClient) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]
            if entry.made:
                await entry.close(entry.client)


class _SharedClient:
    __slots__ = ("client", "close", "lock", "made", "users")

    def __init__(self, close: Callable[[Any], Awaitable[None]]) -> None:
        self.close = close
        self.client: Any = None
        self.made = False
        self.users = 0
        self.lock = asyncio.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """What a driver is told about its surroundings when it is built.

    `component` is the name from the component file, `app_id` None outside an application. `shared` is where
    components of one backend share a client.
    """

    component: str
    app_id: str | None = None
    shared: SharedClients = field(default_factory=SharedClients)

    @property
    def logger(self) -> logging.Logger:
        """The logger of this component: `lapel.component.<name>`."""
        return logging.getLogger(f"lapel.component.{self.component}")


class Driver(ABC, Generic[SettingsT]):
    """Base of the seven driver classes.

    A driver is built without I/O, opened once, used, closed once, all on one event loop. Every method may be
    called concurrently after `open`. A driver does not retry, does not add prefixes or envelopes, never mutates
    a request, and raises only errors of `lapel.errors` (`asyncio.CancelledError` passes through). It need not
    watch the clock: the component cancels a call whose deadline has passed, and a driver must stay usable
    after a cancellation at any await.
    """

    descriptor: ClassVar[Descriptor]
    """The catalogue entry; must be the very object that the entry point names."""

    def __init__(self, settings: SettingsT, context: DriverContext) -> None:
        self.settings = settings
        self.context = context
        self.withdrawn: dict[Capability, str] = {}
        """Flags of the descriptor that `open` took back, each with the reason."""
        self._capabilities = self.descriptor.capabilities

    @property
    def capabilities(self) -> Capability:
        """What this instance offers: the descriptor's flags without the withdrawn ones."""
        return self._capabilities

    @property
    def limits(self) -> Limits:
        """The numbers of this instance. Override when they depend on settings or server."""
        return self.descriptor.limits

    @property
    def call_timeout(self) -> float | None:
        """The deadline of a unary call in seconds, from the component's documented field; None for 5 s."""
        return None

    @property
    def retry_policy(self) -> RetryPolicy | None:
        """The retry policy that the component's own fields ask for; None for the default."""
        return None

    def withdraw(self, capability: Capability, reason: str) -> None:
        """Take back a declared flag, in `open` only. `reason` is shown to operators."""
        for flag in capability:
            if flag in self._capabilities:
                self.withdrawn[flag] = reason
        self._capabilities &= ~capability

    @abstractmethod
    async def open(self) -> None:
        """Connect. Called once; must leave nothing behind when it raises or is cancelled.

        Raises `UnavailableError`, `PermissionDeniedError`, `StorageError` or `ConfigurationError`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything. Called at most once, also after a failed `open`; must return in bounded time."""

    async def ping(self) -> None:
        """Ask the backend for a sign of life; return when it gave one.

        The default refuses with `UnsupportedError`: health is then judged by the lifecycle alone.
        """
        raise UnsupportedError("the driver has no ping", driver=self.descriptor.type, operation="ping")

    def unwrap(self, kind: type[_T]) -> _T:
        """Return the SDK object of class `kind` that this driver works with.

        Raises `LookupError` when it has none; the driver's docstring lists what it offers.
        """
        raise LookupError(f"{self.descriptor.type} offers no {kind.__module__}.{kind.__qualname__}")

    def __repr__(self) -> str:
        flags = ", ".join(capability_names(self._capabilities))
        return f"<{type(self).__name__} {self.context.component!r} [{flags}]>"


_listed: set[Kind] = set()


async def list_drivers(kind: Kind) -> None:
    """Load the descriptors of a kind, once and off the loop, so that `unsupported` need not."""
    if kind not in _listed:
        await asyncio.to_thread(_with_capability, kind, Capability(0))
        _listed.add(kind)


def unsupported(driver: Driver[Any], missing: Capability, operation: str) -> UnsupportedError:
    """Return the error for a capability that `driver` lacks, naming installed drivers that have it."""
    names = ", ".join(capability_names(missing))
    withdrawn = "; ".join(driver.withdrawn[flag] for flag in missing if flag in driver.withdrawn)
    kind = driver.descriptor.kind
    others = [f"{kind.value}.{name}" for name in _with_capability(kind, missing)]
    advice = f"installed drivers that do: {', '.join(others)}" if others else "no installed driver does"
    reason = f" (withdrawn at open: {withdrawn})" if withdrawn else ""
    return UnsupportedError(
        f"does not offer {names}{reason}; {advice}",
        component=driver.context.component,
        driver=driver.descriptor.type,
        operation=operation,
    )


def _with_capability(kind: Kind, flags: Capability) -> list[str]:
    from .registry import default_registry

    return default_registry().with_capability(kind, flags)
