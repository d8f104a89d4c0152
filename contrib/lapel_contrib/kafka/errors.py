"""From the errors of the Kafka client to those of lapel."""

from __future__ import annotations

from aiokafka import errors as kafka

from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StorageError,
    ThrottledError,
    UnavailableError,
)

__all__ = ["name_of", "not_stored", "translate"]

_PERMISSION: dict[type[BaseException], str] = {
    kafka.TopicAuthorizationFailedError: "this user may not use the topic; grant it READ, WRITE or DESCRIBE",
    kafka.GroupAuthorizationFailedError: "this user may not use the consumer group; grant it READ on the group",
    kafka.ClusterAuthorizationFailedError: "this user may not do this in the cluster (IDEMPOTENT_WRITE)",
    kafka.SaslAuthenticationFailed: "the login was refused; check saslUsername, saslPassword and saslMechanism",
    kafka.UnsupportedSaslMechanismError: "the brokers do not offer this saslMechanism",
    kafka.IllegalSaslStateError: "the listener expects another kind of login; check authType",
}
_ARGUMENT: dict[type[BaseException], str] = {
    kafka.MessageSizeTooLargeError: "the message is larger than the brokers take (message.max.bytes of the topic); "
    "set maxMessageBytes to what they take",
    kafka.RecordListTooLargeError: "the messages are larger than a segment of the topic",
    kafka.InvalidTopicError: "the brokers do not take this name of a topic",
}
_LATER: dict[type[BaseException], str] = {
    kafka.NotEnoughReplicasError: "too few replicas are in sync (min.insync.replicas); nothing was stored",
    kafka.UnknownTopicOrPartitionError: "the topic does not exist and the brokers did not make it; create it, or set "
    "auto.create.topics.enable",
    kafka.NoBrokersAvailable: "no broker can be reached",
    kafka.NodeNotReadyError: "a broker cannot be reached",
    kafka.KafkaConnectionError: "no broker can be reached",
}
_UNCERTAIN = (
    kafka.NotEnoughReplicasAfterAppendError,
    kafka.RequestTimedOutError,
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.LeaderNotAvailableError,
    kafka.NotLeaderForPartitionError,
)
"""What may come back although the message is stored: an earlier attempt may have been, whose answer was lost."""


def translate(error: BaseException, place: str) -> LapelError:
    """Return the error for a request that stored nothing. `place` names the cluster.

    The client's own texts are left out: they may quote what was sent.
    """
    if isinstance(error, LapelError):
        return error
    for table, kind in (
        (_PERMISSION, PermissionDeniedError),
        (_ARGUMENT, InvalidArgumentError),
        (_LATER, UnavailableError),
    ):
        for cls, text in table.items():
            if isinstance(error, cls):
                return kind(f"{place}: {text}")
    if isinstance(error, kafka.KafkaStorageError):
        return StorageError(f"{place}: the broker cannot write to its disk; look at its log")
    if isinstance(error, kafka.KafkaTimeoutError):
        return ThrottledError(f"{place}: the messages before this one are not out yet; nothing was stored")
    if isinstance(error, OSError | TimeoutError) or (isinstance(error, kafka.KafkaError) and error.retriable):
        return UnavailableError(f"{place}: {name_of(error)}")
    return OperationFailedError(f"{place}: the brokers or the client refused ({name_of(error)})")


def not_stored(error: BaseException, place: str) -> LapelError:
    """Return the error for a message that was handed to the client and came back with `error`.

    What a broker refuses is certainly not stored; after all else nobody knows.
    """
    if isinstance(error, kafka.BrokerResponseError) and not isinstance(error, _UNCERTAIN):
        known = translate(error, place)
        if isinstance(error, kafka.UnknownError):
            known = OperationFailedError(f"{place}: the broker refused the message; a compacted topic needs a key")
        return known
    return OutcomeUnknownError(f"{place}: {name_of(error)}; the message may or may not have been stored")


def name_of(error: BaseException) -> str:
    """Return the name of an error in words: RequestTimedOutError is `request timed out`."""
    name = type(error).__name__.removesuffix("Error").removesuffix("Exception")
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
