"""Settings of pubsub.aws.snssqs."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta

from lapel.pubsub.settings import PubSubSettings
from lapel.settings import Secret, setting

from .settings import AwsSettings

__all__ = ["SnsSqsSettings"]

_FOR_EVER = "a subscription is restored for as long as it exists"


class SnsSqsSettings(AwsSettings, PubSubSettings):
    """Settings of pubsub.aws.snssqs."""

    access_key: Secret | None = setting(
        "accessKey", aliases=("awsAccountID", "awsAccessKey"), default=None, doc="Id of the access key."
    )
    secret_key: Secret | None = setting(
        "secretKey", aliases=("awsSecret", "awsSecretKey"), default=None, doc="The access key's secret."
    )
    partition: str | None = setting(
        "partition",
        default=None,
        pattern="aws[a-z-]*",
        doc="Partition of AWS in the names of topics, with `disableEntityManagement`. That of the region if not given.",
        example="aws-cn",
    )
    account_id: str | None = setting(
        "accountID",
        default=None,
        pattern="[0-9]{12}",
        doc="Account of topics and queues, with `disableEntityManagement`. The caller's if not given.",
    )
    fifo: bool = setting(
        "fifo", default=False, doc="Topics and queues keep the order of message groups. Their names get `.fifo`."
    )
    fifo_group: str | None = setting(
        "fifoMessageGroupID",
        default=None,
        pattern="[!-~]{1,128}",
        doc="The group of every message, so that all are in one order. If not given, a message's key is its group; "
        "those without one share the consumerID.",
    )
    visibility: int = setting(
        "messageVisibilityTimeout",
        default=10,
        minimum=1,
        maximum=43_200,
        doc="Seconds after which the message of a process that died is given to another. Renewed while it is handled.",
    )
    retry_limit: int = setting(
        "messageRetryLimit",
        default=10,
        minimum=2,
        doc="How often a message is handled before it is given up. Without effect if there is a dead-letter queue.",
    )
    receive_limit: int | None = setting(
        "messageReceiveLimit",
        default=None,
        minimum=1,
        maximum=1000,
        doc="How often a message is received before SQS moves it to the dead-letter queue.",
        example="10",
    )
    dead_letter_queue: str | None = setting(
        "sqsDeadLettersQueueName", default=None, doc="Queue for messages that are given up.", example="orders-dead"
    )
    keep_failed: bool = setting(
        "disableDeleteOnRetryLimit",
        default=False,
        doc="Never give up a message: it comes again until it is handled or too old for SQS.",
    )
    wait_seconds: int = setting(
        "messageWaitTimeSeconds", default=2, minimum=1, maximum=20, doc="How long a request for messages waits for one."
    )
    most_messages: int = setting(
        "messageMaxNumber", default=10, minimum=1, maximum=10, doc="Most messages in the reply to one request."
    )
    existing_only: bool = setting(
        "disableEntityManagement",
        default=False,
        doc="Make and change nothing at AWS: topics, queues, subscriptions and policies have to be there.",
    )
    management_timeout: float = setting(
        "assetsManagementTimeoutSeconds",
        default=5.0,
        minimum=0.1,
        doc="Seconds that each request may take which makes or looks for topics, queues and subscriptions.",
    )
    concurrency_mode: str = setting(
        "concurrencyMode",
        default="parallel",
        choices=("parallel", "single"),
        doc="`single`: a subscription gets a message when it is done with the one before.",
    )
    concurrency_limit: int = setting(
        "concurrencyLimit",
        default=0,
        minimum=0,
        doc="Most messages that a subscription holds at once, with `parallel`. 0: as many as its concurrency wants.",
    )
    backoff_policy: str = setting(
        "backOffPolicy",
        default="constant",
        choices=("constant", "exponential"),
        doc="How the pause between failing requests for messages grows.",
    )
    backoff_duration: timedelta = setting(
        "backOffDuration", default=timedelta(seconds=5), unit="ms", doc="The pause, with `constant`."
    )
    backoff_initial: timedelta = setting(
        "backOffInitialInterval",
        default=timedelta(milliseconds=500),
        unit="ms",
        doc="The first pause, with `exponential`.",
    )
    backoff_factor: float = setting(
        "backOffRandomizationFactor",
        default=0.5,
        minimum=0.0,
        maximum=1.0,
        doc="The share by which pauses vary at random, with `exponential`.",
    )
    backoff_multiplier: float = setting(
        "backOffMultiplier", default=1.5, minimum=1.0, doc="What a pause is multiplied with, with `exponential`."
    )
    backoff_maximum: timedelta = setting(
        "backOffMaxInterval", default=timedelta(seconds=60), unit="ms", doc="The longest pause, with `exponential`."
    )
    backoff_elapsed: timedelta | None = setting("backOffMaxElapsedTime", ignored=_FOR_EVER)
    backoff_retries: int | None = setting("backOffMaxRetries", ignored=_FOR_EVER)

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield halves of a dead-letter queue, and what contradicts it."""
        yield from super().check()
        if (self.dead_letter_queue is None) != (self.receive_limit is None):
            yield "sqsDeadLettersQueueName and messageReceiveLimit go together; give both or neither"
        if self.keep_failed and self.dead_letter_queue is not None:
            yield "disableDeleteOnRetryLimit", "contradicts sqsDeadLettersQueueName, which takes what failed too often"
        if self.fifo_group is not None and not self.fifo:
            yield "fifoMessageGroupID", "has no meaning without fifo"

    def pause_after(self, failures: int) -> float:
        """Return the pause in seconds after so many failed requests for messages."""
        if self.backoff_policy == "constant":
            return self.backoff_duration.total_seconds()
        longest = self.backoff_maximum.total_seconds()
        grown = self.backoff_initial.total_seconds() * self.backoff_multiplier ** min(failures - 1, 100)
        spread = random.uniform(1 - self.backoff_factor, 1 + self.backoff_factor)  # noqa: S311  # spreads load only
        return float(min(longest, grown * spread))
