"""Every error that lapel raises.

```
LapelError
├── ConfigurationError (ValueError)      the files or arguments that describe components are wrong
│   ├── SettingsError                    fields of one component: all problems at once
│   ├── ManifestError                    component files: all problems of all files at once
│   ├── DriverNotFoundError              no driver of that type or version is installed
│   ├── DriverConflictError              two distributions claim one name
│   └── DriverLoadError                  the driver is installed but does not load
│       └── MissingExtraError            because an optional dependency is not installed
├── InvalidArgumentError (ValueError)    one argument of a call is wrong; nothing was sent
├── UnsupportedError                     this driver does not offer that capability
├── NotFoundError (LookupError)          the secret, key, object or lock does not exist
├── EtagError
│   ├── EtagMismatchError                the stored item changed, exists already or is gone
│   └── EtagInvalidError                 the text cannot be an etag of this backend
├── PermissionDeniedError                credentials refused, or not allowed to do this
│   └── TopicForbiddenError              the component's topic scopes rule this application out
├── UnavailableError        retryable    the backend did not take the request: nothing was done
│   ├── ThrottledError      retryable    it asked us to slow down
│   └── CircuitOpenError                 a circuit breaker kept the call back
├── DeadlineExceededError (TimeoutError) a safe operation ran out of time
├── OutcomeUnknownError                  a write was sent and its fate is not known
│   └── OutcomeUnknownTimeoutError (TimeoutError)
├── StorageError                         the backend cannot store: disk full, read-only, corrupt
├── LifecycleError (RuntimeError)
│   ├── NotOpenError                     used before open
│   ├── ClosedError                      used after close
│   └── WrongLoopError                   used from another event loop, thread or forked process
├── LockLostError                        the lock that protects this block is no longer ours
├── CryptoError
│   ├── DecryptionError                  one error for wrong key, nonce, tag, or changed ciphertext
│   ├── KeyTypeError                     the key does not fit the algorithm or the operation
│   ├── UnsupportedAlgorithmError
│   ├── InvalidNonceError, InvalidTagError, InvalidLengthError
└── OperationFailedError                 the backend refused for another reason
AssemblyError (ExceptionGroup)           several components failed to open
BulkError (ExceptionGroup)               several items of a bulk call failed
```

`retryable` is read by one place only, `lapel.policy`. An error's text names the component, the
field or key concerned, what was expected and what to do next, and never holds a value that may be secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

__all__ = [
    "AssemblyError",
    "BulkError",
    "CircuitOpenError",
    "ClosedError",
    "ConfigurationError",
    "CryptoError",
    "DeadlineExceededError",
    "DecryptionError",
    "DriverConflictError",
    "DriverLoadError",
    "DriverNotFoundError",
    "EtagError",
    "EtagInvalidError",
    "EtagMismatchError",
    "InvalidArgumentError",
    "InvalidLengthError",
    "InvalidNonceError",
    "InvalidTagError",
    "KeyTypeError",
    "LapelError",
    "LifecycleError",
    "LockLostError",
    "ManifestError",
    "MissingExtraError",
    "NotFoundError",
    "NotOpenError",
    "OperationFailedError",
    "OutcomeUnknownError",
    "OutcomeUnknownTimeoutError",
    "PermissionDeniedError",
    "Problem",
    "SettingsError",
    "StorageError",
    "ThrottledError",
    "TopicForbiddenError",
    "UnavailableError",
    "UnsupportedAlgorithmError",
    "UnsupportedError",
    "WrongLoopError",
]


class LapelError(Exception):
    """Base of all single errors.

    `component` is the name from the component file, `driver` its type (`state.sqlite`), `operation` the
    method that failed. Each may be None until a layer that knows it fills it in with `locate`.
    """

    retryable: ClassVar[bool] = False
    """The failed call had no effect, so the retry policy may send it again."""

    def __init__(
        self,
        message: str,
        *,
        component: str | None = None,
        driver: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.component = component
        self.driver = driver
        self.operation = operation

    def locate(self, *, component: str, driver: str, operation: str | None = None) -> None:
        """Fill in where the error happened; what is already known stays."""
        self.component = self.component or component
        self.driver = self.driver or driver
        self.operation = self.operation or operation

    def __str__(self) -> str:
        place = " ".join(
            part
            for part in (
                f"component {self.component!r}" if self.component else "",
                f"({self.driver})" if self.driver else "",
                self.operation or "",
            )
            if part
        )
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of an offline check.

    `file` and `line` (from 1) are None when the settings did not come from a file, `field` is the name of
    the field as it was written. `warning` marks a finding that does not make the configuration unusable.
    """

    message: str
    field: str | None = None
    component: str | None = None
    file: str | None = None
    line: int | None = None
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else (self.file or "")
        subject = " ".join(
            part
            for part in (
                f"component {self.component!r}" if self.component else "",
                f"field {self.field!r}" if self.field else "",
            )
            if part
        )
        return ": ".join(part for part in (place, subject, self.message) if part)


class ConfigurationError(LapelError, ValueError):
    """What describes the components is wrong. Nothing was opened.

    `problems` holds every finding, in the order of the files.
    """

    def __init__(
        self,
        message: str,
        *,
        problems: Sequence[Problem] = (),
        component: str | None = None,
        driver: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message, component=component, driver=driver, operation=operation)
        self.problems = tuple(problems)


class SettingsError(ConfigurationError):
    """Fields of one component are wrong; `problems` names every one of them."""


class ManifestError(ConfigurationError):
    """Component files are wrong; `problems` names file, line and field of every finding."""


class DriverNotFoundError(ConfigurationError):
    """No installed distribution has a driver of this type or version; the text lists what there is."""


class DriverConflictError(ConfigurationError):
    """Two distributions register the same driver name; the text names both."""


class DriverLoadError(ConfigurationError):
    """The driver is registered but its module does not import; the text names its distribution."""


class MissingExtraError(DriverLoadError):
    """An optional dependency is missing; `command` is the line to type.

    Raised instead of `DriverLoadError` when the descriptor names the extra that brings the module.
    """

    def __init__(self, message: str, *, command: str, driver: str | None = None) -> None:
        super().__init__(message, driver=driver)
        self.command = command


class InvalidArgumentError(LapelError, ValueError):
    """One argument is wrong. Raised before anything is sent."""


class UnsupportedError(LapelError):
    """The driver does not offer this capability. Nothing was sent; the text names drivers that do."""


class NotFoundError(LapelError, LookupError):
    """The thing asked for does not exist."""


class EtagError(LapelError):
    """A conditional write did not happen because of its etag."""


class EtagMismatchError(EtagError):
    """The stored item has another etag, exists although it should not, or is gone. Nothing was written."""


class EtagInvalidError(EtagError):
    """The text given cannot be an etag of this backend. Nothing was written."""


class PermissionDeniedError(LapelError):
    """The backend refused the credentials or the operation. Trying again does not help."""


class TopicForbiddenError(PermissionDeniedError):
    """The topic scopes of the component do not let this application use the topic. Nothing was sent."""


class UnavailableError(LapelError):
    """The backend could not be reached or did not take the request. Nothing was done."""

    retryable = True


class ThrottledError(UnavailableError):
    """The backend asked to slow down. Nothing was done."""


class CircuitOpenError(UnavailableError):
    """A circuit breaker kept the call back, because too many before it failed. Nothing was sent."""

    retryable = False


class DeadlineExceededError(LapelError, TimeoutError):
    """An operation without side effects, or one that was never sent, ran out of time."""


class OutcomeUnknownError(LapelError):
    """A write was sent, and whether it took effect is not known. lapel never sends it again.

    Read the item back, or repeat the write only if repeating is harmless.
    """

    repeatable: bool = True
    """Whether repeating the write, where its precondition makes that harmless, may tell more. False where it was done
    and only its safety is in doubt."""


class OutcomeUnknownTimeoutError(OutcomeUnknownError, TimeoutError):
    """`OutcomeUnknownError` because time ran out."""


class StorageError(LapelError):
    """The backend is reachable but cannot store: disk full, read-only, corrupt. Nothing was written."""


class LifecycleError(LapelError, RuntimeError):
    """The component is not in a state in which it can be used like this."""


class NotOpenError(LifecycleError):
    """Used before `open`."""


class ClosedError(LifecycleError):
    """Used after `aclose`. Final: open a new component."""


class WrongLoopError(LifecycleError):
    """Used from another event loop or process than the one that opened it.

    Open one set of components per loop, or use `lapel.blocking`, and open after `fork`, not before.
    """


class LockLostError(LapelError):
    """The lock expired or was taken away; the protected block was cancelled."""


class CryptoError(LapelError):
    """A cryptographic operation was not possible."""


class DecryptionError(CryptoError):
    """The input cannot be decrypted. One error for every cause, so that it tells an attacker nothing."""


class KeyTypeError(CryptoError):
    """The key's kind, size or permitted use does not fit the algorithm or the operation."""


class UnsupportedAlgorithmError(CryptoError, UnsupportedError):
    """The algorithm is not one that this provider advertises."""


class InvalidNonceError(CryptoError, InvalidArgumentError):
    """The nonce has the wrong length for the algorithm."""


class InvalidTagError(CryptoError, InvalidArgumentError):
    """The authentication tag has the wrong length for the algorithm."""


class InvalidLengthError(CryptoError, InvalidArgumentError):
    """The input's length does not fit the algorithm."""


class OperationFailedError(LapelError):
    """The backend answered with an error that no other class describes."""


class AssemblyError(ExceptionGroup[LapelError]):
    """Components failed to open; `exceptions` has one entry for each. Those that had opened were closed."""

    @override
    def derive(self, excs: Sequence[Exception], /) -> AssemblyError:  # type: ignore[override]  # narrower on purpose
        return AssemblyError(self.message, [exc for exc in excs if isinstance(exc, LapelError)])


class BulkError(ExceptionGroup[LapelError]):
    """Items of a bulk call failed; `exceptions` has one entry for each failed item, in request order."""

    @override
    def derive(self, excs: Sequence[Exception], /) -> BulkError:  # type: ignore[override]  # narrower on purpose
        return BulkError(self.message, [exc for exc in excs if isinstance(exc, LapelError)])
