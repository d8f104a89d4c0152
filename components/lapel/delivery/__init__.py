"""The core that turns what a broker delivers into handler calls, for pub/sub and input bindings alike.

A `Consumer` is the driver's part. A `Dispatcher` runs handlers for what it delivers, a `Supervisor` keeps it armed.
"""

from .batches import BatchDispatcher
from .consumer import Consumer, Revoked
from .dispatcher import Dispatcher
from .schedule import Held
from .supervisor import Supervisor
from .types import Backoff, Delivery, DispatchPolicy, Dropped, Ordering, Outcome, Reply, Settled, Settlement
from .workers import inside_handler

__all__ = [
    "Backoff",
    "BatchDispatcher",
    "Consumer",
    "Delivery",
    "DispatchPolicy",
    "Dispatcher",
    "Dropped",
    "Held",
    "Ordering",
    "Outcome",
    "Reply",
    "Revoked",
    "Settled",
    "Settlement",
    "Supervisor",
    "inside_handler",
]
