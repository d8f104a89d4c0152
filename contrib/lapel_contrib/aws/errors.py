"""What the errors of the AWS SDK mean to a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from botocore import exceptions as sdk

from lapel.errors import (
    ConfigurationError,
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)

__all__ = ["EXPIRED", "SDK_ERRORS", "NotAllowedError", "code_of", "is_not_allowed", "refusal", "translate"]

SDK_ERRORS = (sdk.BotoCoreError, sdk.ClientError, aiohttp.ClientError, OSError, asyncio.TimeoutError)
"""What calls of the SDK raise; hand it to `translate`."""

EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})

_LONGEST = 300
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "KmsThrottled",
        "OverLimit",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_NOT_ALLOWED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
        "NotAuthorized",
        "UnauthorizedOperation",
    }
)
_DENIED = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_MISSING = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
        "NoSuchKey",
        "NotFound",
        "NotFoundException",
        "ParameterNotFound",
        "ParameterVersionNotFound",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
    }
)
_INVALID = frozenset(
    {
        "BatchRequestTooLong",
        "EntityTooLarge",
        "InvalidMessageContents",
        "InvalidParameter",
        "InvalidParameterException",
        "InvalidParameterValue",
        "InvalidParameterValueException",
        "InvalidStorageClass",
        "InvalidTag",
        "KeyTooLongError",
        "MessageTooLong",
        "ValidationError",
        "ValidationException",
    }
)
_NOTHING_SENT = (sdk.ConnectTimeoutError, sdk.ProxyConnectionError, sdk.SSLError)
_NO_CREDENTIALS = (sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.ProfileNotFound)
_TOKEN_TROUBLE = (sdk.CredentialRetrievalError, sdk.MetadataRetrievalError, sdk.TokenRetrievalError)


class NotAllowedError(PermissionDeniedError):
    """The service knows the caller, who may not do this. What is asked for by the way only can do without then."""


def translate(exc: BaseException, place: str, *, writes: bool) -> LapelError:
    """Return the error of lapel for one of `SDK_ERRORS`; raise it `from None`, for the SDK's may quote arguments.

    `place` names the service and the resource. `writes`: the call has an effect, so that a lost reply is an unknown
    outcome.
    """
    if isinstance(exc, sdk.ClientError):
        return _refused(exc, place, writes)
    if isinstance(exc, sdk.BotoCoreError):
        return _failed(exc, place, writes)
    return _lost(place, writes, timed_out=isinstance(exc, TimeoutError))


def code_of(exc: BaseException) -> str:
    """Return the error code of a reply; empty for other errors."""
    return str(exc.response.get("Error", {}).get("Code", "")) if isinstance(exc, sdk.ClientError) else ""


def is_not_allowed(exc: BaseException) -> bool:
    """Tell whether an error of the SDK says that the caller is known, and may not do this."""
    return _bare(code_of(exc)) in _NOT_ALLOWED


def refusal(code: str, message: str, place: str, *, service_fault: bool, writes: bool) -> LapelError:
    """Return the error for one refused entry of a batch. `service_fault`: the service says that it is its own."""
    return _meaning(code, message, place, 500 if service_fault else 400, writes)


def _refused(exc: Any, place: str, writes: bool) -> LapelError:
    error = exc.response.get("Error", {})
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
    return _meaning(str(error.get("Code", "")), str(error.get("Message", "")), place, status, writes)


def _meaning(code: str, message: str, place: str, status: int, writes: bool) -> LapelError:
    code = _bare(code)
    short = code.removesuffix("Fault")
    said = f" ({': '.join(part for part in (code, message[:_LONGEST]) if part) or status})"
    cls: Callable[[str], LapelError]
    if short in _THROTTLED or status == 429:
        cls, meaning = ThrottledError, "asks to slow down; nothing was done"
    elif short in EXPIRED:
        cls, meaning = PermissionDeniedError, "the credentials have expired; give new ones, or a role to assume"
    elif short in _NOT_ALLOWED:
        cls, meaning = NotAllowedError, "not allowed to this caller; check the policies of IAM"
    elif short in _DENIED or status in (401, 403):
        cls, meaning = PermissionDeniedError, "refused; check the credentials, and the policies of IAM"
    elif short in _MISSING or status == 404:
        cls, meaning = NotFoundError, "there is no such thing; check name, region and account"
    elif status == 503 or short in ("ServiceUnavailable", "ServiceUnavailableException"):
        cls, meaning = UnavailableError, "the service is not available now; nothing was done"
    elif status >= 500 or short in ("InternalError", "InternalFailure", "InternalServerError"):
        if writes:
            cls, meaning = OutcomeUnknownError, "the service failed, and may or may not have done it"
        else:
            cls, meaning = UnavailableError, "the service failed"
    elif short in _INVALID:
        cls, meaning = InvalidArgumentError, "does not take this"
    else:
        cls, meaning = OperationFailedError, "refused"
    return cls(f"{place}: {meaning}{said}")


def _bare(code: str) -> str:
    # `AWS.SimpleQueueService.NonExistentQueue;see docs` and `ns#Code` are written by some services.
    return code.partition(";")[0].rpartition("#")[2]


def _failed(exc: Any, place: str, writes: bool) -> LapelError:
    if isinstance(exc, sdk.EndpointConnectionError):
        # The SDK also calls a connection that broke in the middle by this name.
        cause = exc.kwargs.get("error")
        if isinstance(cause, aiohttp.ClientConnectionError) and not isinstance(cause, aiohttp.ClientConnectorError):
            return _lost(place, writes, timed_out=False)
        return UnavailableError(f"{place}: cannot be reached; nothing was done. Check endpoint, region and network")
    if isinstance(exc, _NOTHING_SENT):
        return UnavailableError(f"{place}: no connection ({type(exc).__name__}); nothing was done")
    if isinstance(exc, _NO_CREDENTIALS):
        return PermissionDeniedError(
            f"{place}: no credentials were found ({type(exc).__name__}); give accessKey and secretKey, or set up the "
            "environment, a profile or a role"
        )
    if isinstance(exc, _TOKEN_TROUBLE):
        return UnavailableError(f"{place}: credentials could not be had ({type(exc).__name__}); nothing was done")
    if isinstance(exc, sdk.NoRegionError):
        return ConfigurationError(f"{place}: no region; set region, or AWS_REGION in the environment")
    if isinstance(exc, sdk.ParamValidationError):
        return InvalidArgumentError(f"{place}: an argument does not have the form that the service wants")
    if isinstance(exc, sdk.ReadTimeoutError):
        return _lost(place, writes, timed_out=True)
    if isinstance(exc, sdk.HTTPClientError | sdk.IncompleteReadError):
        return _lost(place, writes, timed_out=False)
    return OperationFailedError(f"{place}: the SDK failed ({type(exc).__name__})")


def _lost(place: str, writes: bool, *, timed_out: bool) -> LapelError:
    reason = "no answer in time" if timed_out else "the connection was lost before the answer came"
    if not writes:
        return UnavailableError(f"{place}: {reason}; nothing was changed")
    cls = OutcomeUnknownTimeoutError if timed_out else OutcomeUnknownError
    return cls(f"{place}: {reason}; it may or may not have been done")
