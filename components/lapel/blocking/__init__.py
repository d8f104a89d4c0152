"""The same components for synchronous programs: Flask, Celery, scripts.

```python
from lapel import blocking

with blocking.open_components("resources/", app_id="shop") as components:
    store = components.state("statestore")
    store.set("order-1", {"status": "paid"})
```

The names and arguments are those of the asynchronous classes, without `await`; `aclose` is `close`. Every set of
components, and every component opened on its own, has one background thread with one event loop; any number of threads
may call at once. Handlers are plain functions that may block: each runs in a thread of its own.

A call inside a running event loop raises `WrongLoopError`, because it would stop that loop: use the asynchronous
classes there, also in a notebook, whose cells run in a loop and take `await`. So does a call in a process forked after
opening: open after the fork.

A program that ends without closing ends as if it were killed: nothing is waited for, and what was not confirmed may not
have happened.
"""

from .components import (
    Components,
    open_components,
    open_configuration,
    open_crypto,
    open_input_binding,
    open_lock,
    open_output_binding,
    open_pubsub,
    open_secret_store,
    open_state,
)
from .crypto import CryptoProvider, SubtleCrypto
from .facade import Component
from .messaging import (
    BindingResponse,
    BulkHandler,
    EventHandler,
    Handler,
    InputBinding,
    OutputBinding,
    PubSub,
    Reading,
    Subscription,
)
from .stores import ConfigurationStore, LockStore, SecretStore, StateStore
from .streams import Stream

__all__ = [
    "BindingResponse",
    "BulkHandler",
    "Component",
    "Components",
    "ConfigurationStore",
    "CryptoProvider",
    "EventHandler",
    "Handler",
    "InputBinding",
    "LockStore",
    "OutputBinding",
    "PubSub",
    "Reading",
    "SecretStore",
    "StateStore",
    "Stream",
    "Subscription",
    "SubtleCrypto",
    "open_components",
    "open_configuration",
    "open_crypto",
    "open_input_binding",
    "open_lock",
    "open_output_binding",
    "open_pubsub",
    "open_secret_store",
    "open_state",
]
