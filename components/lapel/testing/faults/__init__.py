"""The fault suites: what a driver does when connections break, replies are lost, and its backend stops or restarts.

Each stands a `FaultProxy` between the component and its backend. A subclass names the component file and overrides the
fixture `backend`; everything else is the suite's.
"""

from __future__ import annotations

from .backend import FaultBackend
from .base import Request
from .bindings import BindingFaultSuite
from .configuration import ConfigurationFaultSuite
from .lock import LockFaultSuite
from .pubsub import PubSubFaultSuite
from .state import StateFaultSuite

__all__ = [
    "BindingFaultSuite",
    "ConfigurationFaultSuite",
    "FaultBackend",
    "LockFaultSuite",
    "PubSubFaultSuite",
    "Request",
    "StateFaultSuite",
]
