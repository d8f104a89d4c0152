"""The conformance suite: proof that a driver does what it declares.

A driver author subclasses the suite of the kind, or runs `lapel conformance my-component.yaml` or
`pytest --lapel-component my-component.yaml`. Needs the extra `testing`. Names are loaded when they are first used, so
that the pytest plugin costs a program that does not use it next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bindings import BindingSuite
    from .configuration import ConfigurationSuite
    from .crypto import CryptoSuite
    from .faults import (
        BindingFaultSuite,
        ConfigurationFaultSuite,
        FaultBackend,
        LockFaultSuite,
        PubSubFaultSuite,
        StateFaultSuite,
    )
    from .harness import SuiteBase
    from .lifecycle import ComponentSuite
    from .lock import LockSuite
    from .marks import contract, lacks, needs, row
    from .mutants import Mutant, assert_killed, judge, judge_classes
    from .proxy import FaultProxy
    from .pubsub import PubSubSuite
    from .report import Report
    from .run import run_conformance
    from .secretstores import SecretStoreSuite
    from .state import StateSuite
    from .subject import Pins, Subject

__all__ = [
    "BindingFaultSuite",
    "BindingSuite",
    "ComponentSuite",
    "ConfigurationFaultSuite",
    "ConfigurationSuite",
    "CryptoSuite",
    "FaultBackend",
    "FaultProxy",
    "LockFaultSuite",
    "LockSuite",
    "Mutant",
    "Pins",
    "PubSubFaultSuite",
    "PubSubSuite",
    "Report",
    "SecretStoreSuite",
    "StateFaultSuite",
    "StateSuite",
    "Subject",
    "SuiteBase",
    "assert_killed",
    "contract",
    "judge",
    "judge_classes",
    "lacks",
    "needs",
    "row",
    "run_conformance",
]

_HOMES = {
    "BindingFaultSuite": "faults",
    "BindingSuite": "bindings",
    "ComponentSuite": "lifecycle",
    "ConfigurationFaultSuite": "faults",
    "ConfigurationSuite": "configuration",
    "CryptoSuite": "crypto",
    "FaultBackend": "faults",
    "FaultProxy": "proxy",
    "LockFaultSuite": "faults",
    "LockSuite": "lock",
    "Mutant": "mutants",
    "Pins": "subject",
    "PubSubFaultSuite": "faults",
    "PubSubSuite": "pubsub",
    "Report": "report",
    "SecretStoreSuite": "secretstores",
    "StateFaultSuite": "faults",
    "StateSuite": "state",
    "Subject": "subject",
    "SuiteBase": "harness",
    "assert_killed": "mutants",
    "contract": "marks",
    "judge": "mutants",
    "judge_classes": "mutants",
    "lacks": "marks",
    "needs": "marks",
    "row": "marks",
    "run_conformance": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
