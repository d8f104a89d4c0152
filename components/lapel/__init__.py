"""One interface, many drivers: state, publish/subscribe, bindings, secrets, configuration, locks and cryptography.

```python
import lapel

async with lapel.open_components("resources/", app_id="shop") as components:
    store = components.state("statestore")
    etag = await store.set("order-1", {"status": "paid"})
```

Names are imported when they are first used, so that `import lapel` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import blocking as blocking
    from .assembly import Components, open_components
    from .bindings import BindingEvent, BindingResponse, InputBinding, OutputBinding
    from .component import Component, ComponentOptions, Health, HealthState
    from .configuration import ConfigurationEvent, ConfigurationItem, ConfigurationStore
    from .crypto import CryptoProvider
    from .delivery import Backoff, Ordering, Outcome
    from .descriptor import DRIVER_API, Capability, Descriptor, Kind, Limits
    from .driver import Driver, DriverContext
    from .errors import (
        AssemblyError,
        BulkError,
        ClosedError,
        ConfigurationError,
        EtagInvalidError,
        EtagMismatchError,
        InvalidArgumentError,
        LapelError,
        NotFoundError,
        OutcomeUnknownError,
        UnavailableError,
        UnsupportedError,
    )
    from .lock import HeldLock, LockGrant, LockStore, UnlockStatus
    from .manifest import Manifest
    from .opening import (
        open_configuration,
        open_crypto,
        open_input_binding,
        open_lock,
        open_output_binding,
        open_pubsub,
        open_secret_store,
        open_state,
    )
    from .policy import RetryPolicy
    from .pubsub import CloudEvent, Message, PublishEntry, PubSub, Subscription
    from .secretstores import SecretStore, SecretValues
    from .settings import Secret, Settings, setting
    from .state import (
        Concurrency,
        Consistency,
        DeleteOperation,
        SetOperation,
        StateItem,
        StateStore,
    )

    __version__: str

_MODULES = {
    "assembly": ("Components", "open_components"),
    "bindings": ("BindingEvent", "BindingResponse", "InputBinding", "OutputBinding"),
    "component": ("Component", "ComponentOptions", "Health", "HealthState"),
    "configuration": ("ConfigurationEvent", "ConfigurationItem", "ConfigurationStore"),
    "crypto": ("CryptoProvider",),
    "delivery": ("Backoff", "Ordering", "Outcome"),
    "descriptor": ("Capability", "DRIVER_API", "Descriptor", "Kind", "Limits"),
    "driver": ("Driver", "DriverContext"),
    "errors": (
        "AssemblyError",
        "BulkError",
        "ClosedError",
        "ConfigurationError",
        "EtagInvalidError",
        "EtagMismatchError",
        "InvalidArgumentError",
        "LapelError",
        "NotFoundError",
        "OutcomeUnknownError",
        "UnavailableError",
        "UnsupportedError",
    ),
    "lock": ("HeldLock", "LockGrant", "LockStore", "UnlockStatus"),
    "manifest": ("Manifest",),
    "opening": (
        "open_configuration",
        "open_crypto",
        "open_input_binding",
        "open_lock",
        "open_output_binding",
        "open_pubsub",
        "open_secret_store",
        "open_state",
    ),
    "policy": ("RetryPolicy",),
    "pubsub": ("CloudEvent", "Message", "PubSub", "PublishEntry", "Subscription"),
    "secretstores": ("SecretStore", "SecretValues"),
    "settings": ("Secret", "Settings", "setting"),
    "state": ("Concurrency", "Consistency", "DeleteOperation", "SetOperation", "StateItem", "StateStore"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DRIVER_API",
    "AssemblyError",
    "Backoff",
    "BindingEvent",
    "BindingResponse",
    "BulkError",
    "Capability",
    "ClosedError",
    "CloudEvent",
    "Component",
    "ComponentOptions",
    "Components",
    "Concurrency",
    "ConfigurationError",
    "ConfigurationEvent",
    "ConfigurationItem",
    "ConfigurationStore",
    "Consistency",
    "CryptoProvider",
    "DeleteOperation",
    "Descriptor",
    "Driver",
    "DriverContext",
    "EtagInvalidError",
    "EtagMismatchError",
    "Health",
    "HealthState",
    "HeldLock",
    "InputBinding",
    "InvalidArgumentError",
    "Kind",
    "LapelError",
    "Limits",
    "LockGrant",
    "LockStore",
    "Manifest",
    "Message",
    "NotFoundError",
    "Ordering",
    "Outcome",
    "OutcomeUnknownError",
    "OutputBinding",
    "PubSub",
    "PublishEntry",
    "RetryPolicy",
    "Secret",
    "SecretStore",
    "SecretValues",
    "SetOperation",
    "Settings",
    "StateItem",
    "StateStore",
    "Subscription",
    "UnavailableError",
    "UnlockStatus",
    "UnsupportedError",
    "__version__",
    "open_components",
    "open_configuration",
    "open_crypto",
    "open_input_binding",
    "open_lock",
    "open_output_binding",
    "open_pubsub",
    "open_secret_store",
    "open_state",
    "setting",
]


if not TYPE_CHECKING:  # to a type checker a module with `__getattr__` has every name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("lapel")
        elif name == "blocking":
            value = import_module(".blocking", __name__)
        elif name in _HOME:
            value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "blocking"})
