"""Topics, queues and subscriptions of pubsub.aws.snssqs, as Dapr lays them out."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lapel.coalesce import Coalescer
from lapel.errors import InvalidArgumentError, NotFoundError, OperationFailedError, UnavailableError

from .client import CLOSE_SECONDS, AwsClients
from .errors import SDK_ERRORS, code_of
from .pubsub_settings import SnsSqsSettings
from .queue import Queue

__all__ = ["Topology", "sanitized"]

LONGEST_NAME = 80
FIFO = ".fifo"
_EXISTS = frozenset({"QueueAlreadyExists", "QueueNameExists"})
_POLICY_TRIES = 5
_STATEMENTS = 50
"""Most statements that one change of a policy adds."""
_FORBIDDEN = re.compile("[^A-Za-z0-9_-]")
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}


class Topology:
    """Finds or makes what messages go through, once each, and remembers it.

    With `disableEntityManagement` nothing is made. Requests take at most `assetsManagementTimeoutSeconds` each. All
    methods raise only errors of lapel, and may overlap.
    """

    def __init__(self, settings: SnsSqsSettings, clients: AwsClients, sns: Any, sqs: Any) -> None:
        self._settings = settings
        self._clients = clients
        self._sns = sns
        self._sqs = sqs
        self._topics: dict[str, str] = {}
        self._originals: dict[str, str] = {}
        self._queues: dict[str, Queue] = {}
        self._arns: dict[str, str] = {}
        self._allowing: dict[str, Coalescer[str, None]] = {}
        self._turn = asyncio.Lock()

    def name_of(self, topic: str) -> str:
        """Return the name of a topic at SNS. Raises `InvalidArgumentError` where two topics have the same."""
        name = sanitized(topic, "topic", fifo=self._settings.fifo)
        other = self._originals.setdefault(name, topic)
        if other != topic:
            raise InvalidArgumentError(
                f"the topics {other!r} and {topic!r} have the same name at SNS, {name!r}: only letters, digits, _ and "
                f"- are kept, at most {LONGEST_NAME}; rename one"
            )
        return name

    async def topic(self, topic: str) -> str:
        """Return the ARN of a topic."""
        found = self._topics.get(topic)
        if found is not None:
            return found
        name = self.name_of(topic)
        if self._settings.existing_only:
            arn = await self._arn_of("sns", name)
        else:
            arguments: dict[str, Any] = {"Name": name, "Tags": [{"Key": "dapr-topic-name", "Value": topic[:256]}]}
            if self._settings.fifo:
                arguments["Attributes"] = {"FifoTopic": "true", "ContentBasedDeduplication": "true"}
            reply = await self._manage(self._sns.create_topic(**arguments), f"SNS topic {name!r}")
            arn = reply["TopicArn"]
        self._topics[topic] = arn
        return arn

    def forget(self, topic: str) -> None:
        """Look for a topic anew next time: it seems to be gone."""
        self._topics.pop(topic, None)

    async def queue(self, group: str) -> Queue:
        """Return the queue of a consumer group."""
        found = self._queues.get(group)
        if found is None:
            async with self._turn:
                found = self._queues.get(group) or await self._make_queue(group)
                self._queues[group] = found
        return found

    async def dead_letters(self) -> Queue | None:
        """Return the queue for messages that are given up, where the settings name one."""
        name = self._settings.dead_letter_queue
        return None if name is None else await self._named(name)

    async def connect(self, topic: str, group: str) -> Queue:
        """Have the messages of a topic go to the queue of a group, and return that."""
        arn, queue = await self.topic(topic), await self.queue(group)
        place = f"subscription of {queue.place} to {arn}"
        if self._settings.existing_only:
            await self._check_subscription(arn, queue, place)
            return queue
        target = await self._arn(queue)
        allowing = self._allowing.get(queue.url)
        if allowing is None:
            # Topics that are connected at the same time share the changes of the policy.
            allowing = self._allowing[queue.url] = Coalescer(
                partial(self._allow, queue, target), max_items=_STATEMENTS, name=f"policy of {queue.name}"
            )
        await allowing.submit(arn)
        await self._manage(
            self._sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=target, ReturnSubscriptionArn=True), place
        )
        return queue

    async def close(self) -> None:
        """End what is under way."""
        await asyncio.gather(*(allowing.close(CLOSE_SECONDS) for allowing in self._allowing.values()))

    # inside

    async def _make_queue(self, group: str) -> Queue:
        queue = await self._named(group)
        dead = await self.dead_letters()
        if dead is not None and not self._settings.existing_only:
            redrive = {
                "deadLetterTargetArn": await self._arn(dead),
                "maxReceiveCount": str(self._settings.receive_limit),
            }
            call = self._sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"RedrivePolicy": json.dumps(redrive)})
            await self._manage(call, queue.place)
        return queue

    async def _named(self, given: str) -> Queue:
        """Find or make a queue."""
        settings = self._settings
        name = sanitized(given, "consumerID", fifo=settings.fifo)
        if settings.existing_only:
            async with self._limited(f"SQS queue {name!r}"):
                return await Queue.find(self._clients, self._sqs, name, settings.account_id)
        fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if settings.fifo else {}
        try:
            async with self._limited(f"SQS queue {name!r}"):
                reply = await self._sqs.create_queue(QueueName=name, Attributes=fifo, tags={"dapr-queue-name": given})
        except SDK_ERRORS as exc:
            if code_of(exc) not in _EXISTS:
                raise self._clients.translate(exc, f"SQS queue {name!r}", writes=False) from None
            # It was made by somebody else with other attributes, which are to stay.
            return await Queue.find(self._clients, self._sqs, name)
        return Queue(self._clients, self._sqs, name, reply["QueueUrl"])

    async def _arn(self, queue: Queue) -> str:
        found = self._arns.get(queue.url)
        if found is None:
            async with self._limited(queue.place):
                found = self._arns[queue.url] = (await queue.attributes("QueueArn"))["QueueArn"]
        return found

    async def _arn_of(self, service: str, name: str) -> str:
        settings = self._settings
        region = self._sns.meta.region_name
        partition = settings.partition or next(
            (found for prefix, found in _PARTITIONS.items() if region.startswith(prefix)), "aws"
        )
        account = settings.account_id
        if account is None:
            sts = await self._clients.client("sts")
            account = (await self._manage(sts.get_caller_identity(), "AWS account"))["Account"]
        return f"arn:{partition}:{service}:{region}:{account}:{name}"

    async def _allow(self, queue: Queue, target: str, topics: Sequence[str]) -> Sequence[None]:
        """Let topics send to the queue: one statement more in its policy for each, unless it is there."""
        for attempt in range(_POLICY_TRIES):
            async with self._limited(queue.place):
                text = (await queue.attributes("Policy")).get("Policy") or "{}"
            policy = json.loads(text)
            statements = policy.get("Statement") or []
            missing = [topic for topic in topics if not any(_lets(statement, topic) for statement in statements)]
            if not missing:
                return [None] * len(topics)
            if attempt:
                # Another process wrote its own statement over ours between our reading and writing.
                await asyncio.sleep(0.05 * attempt)
            statements += [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": target,
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
                }
                for topic in dict.fromkeys(missing)
            ]
            policy = {"Version": "2012-10-17", **policy, "Statement": statements}
            call = self._sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"Policy": json.dumps(policy)})
            await self._manage(call, queue.place)
        raise OperationFailedError(f"{queue.place}: its policy does not keep the statements for {', '.join(topics)}")

    async def _check_subscription(self, arn: str, queue: Queue, place: str) -> None:
        async with self._limited(queue.place):
            # Asked each time: a subscription counts as armed only when its queue has answered.
            target = (await queue.attributes("QueueArn"))["QueueArn"]
        more: dict[str, str] = {}
        while True:
            page = await self._manage(self._sns.list_subscriptions_by_topic(TopicArn=arn, **more), place)
            if any(each.get("Endpoint") == target for each in page.get("Subscriptions") or ()):
                return
            if not (token := page.get("NextToken")):
                raise NotFoundError(f"{place}: there is none; make it, or leave out disableEntityManagement")
            more = {"NextToken": token}

    async def _manage(self, call: Any, place: str) -> Any:
        """Await a request that may be repeated without harm."""
        async with self._limited(place):
            return await self._clients.call(call, place, writes=False)

    def _limited(self, place: str) -> _Limit:
        return _Limit(self._settings.management_timeout, place)


class _Limit:
    """A time limit whose end is an `UnavailableError`."""

    def __init__(self, seconds: float, place: str) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._text = f"{place}: no answer within {seconds:g} s (assetsManagementTimeoutSeconds)"

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            await self._timeout.__aexit__(*exc_info)
        except TimeoutError:
            raise UnavailableError(self._text) from None


def sanitized(name: str, what: str, *, fifo: bool) -> str:
    """Return a name as SNS and SQS take it: at most 80 letters, digits, _ and -, with `.fifo` where order is kept."""
    bare = name.removesuffix(FIFO) if fifo else name
    kept = _FORBIDDEN.sub("", bare)
    if not kept:
        raise InvalidArgumentError(f"the {what} {name!r} has none of the characters that AWS allows in names")
    return kept[: LONGEST_NAME - len(FIFO)] + FIFO if fifo else kept[:LONGEST_NAME]


def _lets(statement: Mapping[str, Any], topic: str) -> bool:
    if statement.get("Effect") != "Allow":
        return False
    sources: list[Any] = []
    for condition in (statement.get("Condition") or {}).values():
        found = condition.get("aws:SourceArn")
        sources += found if isinstance(found, list) else [found]
    return topic in sources
