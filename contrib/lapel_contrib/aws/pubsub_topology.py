"""Topics, queues and subscriptions of pubsub.aws.snssqs, as Dapr lays them out."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lapel.coalesce import Coalescer
from lapel.errors import InvalidArgumentError, LapelError, NotFoundError, OperationFailedError, UnavailableError

from .client import CLOSE_SECONDS, AwsClients
from .errors import SDK_ERRORS, NotAllowedError, code_of
from .pubsub_settings import SnsSqsSettings
from .queue import Queue, is_passing

__all__ = ["Topology", "sanitized"]

LONGEST_NAME = 80
FIFO = ".fifo"
_EXISTS = frozenset({"QueueAlreadyExists", "QueueNameExists"})
RESTORE_SECONDS = 5.0
"""How long publishing to a topic leaves a subscription alone that could not be made again."""
_POLICY_TRIES = 5
_STATEMENTS = 50
"""Most statements that one change of a policy adds."""
_FORBIDDEN = re.compile("[^A-Za-z0-9_-]")
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}


class Topology:
    """Finds or makes what messages go through, and remembers it until it turns out to be gone; then it is made anew.

    With `disableEntityManagement` nothing is made. Requests take at most `assetsManagementTimeoutSeconds` each. All
    methods raise only errors of lapel, and may overlap.
    """

    def __init__(
        self, settings: SnsSqsSettings, clients: AwsClients, sns: Any, sqs: Any, logger: logging.Logger
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._sns = sns
        self._sqs = sqs
        self._logger = logger
        self._topics: dict[str, str] = {}
        self._originals: dict[str, str] = {}
        self._queues: dict[str, Queue] = {}
        self._arns: dict[str, str] = {}
        self._allowing: dict[str, Coalescer[str, None]] = {}
        # Topics and groups that were connected, and of those the ones whose topic or queue is gone since, with the
        # time from which on it is worth trying to connect them again.
        self._connected: set[tuple[str, str]] = set()
        self._lost: dict[tuple[str, str], float] = {}
        self._turn = asyncio.Lock()
        self._restoring = asyncio.Lock()

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
        """Return the ARN of a topic.

        When it was made anew, the groups that were connected to the one before have been connected to it again, so
        that they miss nothing that is published to it here.
        """
        arn = await self._topic(topic)
        await self._restore(lambda one, _: one == topic)
        return arn

    def forget(self, topic: str) -> None:
        """Look for a topic anew next time: it seems to be gone, and so are its subscriptions."""
        self._topics.pop(topic, None)
        self._lose(lambda one, _: one == topic)

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
        """Have the messages of a topic go to the queue of a group, and return that.

        When the queue was made anew, the other topics have been connected to it again that were so before. Raises
        `NotFoundError` when something is missing that is not made here, or not at once: the next call looks anew.
        """
        queue = await self._connect(topic, group)
        for error in await self._restore(lambda _, one: one == group):
            if is_passing(error):
                raise error
        return queue

    async def close(self) -> None:
        """End what is under way."""
        await asyncio.gather(*(allowing.close(CLOSE_SECONDS) for allowing in self._allowing.values()))

    # inside

    async def _topic(self, topic: str) -> str:
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

    async def _connect(self, topic: str, group: str) -> Queue:
        remembered = topic in self._topics or group in self._queues
        try:
            return await self._connect_once(topic, group)
        except NotFoundError:
            self._forget_connection(topic, group)
            if self._settings.existing_only or not remembered:
                raise
        return await self._connect_once(topic, group)

    async def _connect_once(self, topic: str, group: str) -> Queue:
        arn, queue = await self._topic(topic), await self.queue(group)
        place = f"subscription of {queue.place} to {arn}"
        if self._settings.existing_only:
            await self._check_subscription(arn, queue, place)
            return queue
        target = await self._arn(queue)
        allowing = self._allowing.get(group)
        if allowing is None:
            # Topics that are connected at the same time share the changes of the policy.
            allowing = self._allowing[group] = Coalescer(
                partial(self._allow, group), max_items=_STATEMENTS, name=f"policy of {queue.name}"
            )
        await allowing.submit(arn)
        await self._manage(
            self._sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=target, ReturnSubscriptionArn=True), place
        )
        self._connected.add((topic, group))
        self._lost.pop((topic, group), None)
        return queue

    def _forget_connection(self, topic: str, group: str) -> None:
        """Look for a topic and a queue anew next time: one is gone, and the reply does not always tell which."""
        queue = self._queues.pop(group, None)
        if queue is not None:
            self._arns.pop(queue.url, None)
        self._lose(lambda _, one: one == group)
        self.forget(topic)

    def _lose(self, concerns: Callable[[str, str], bool]) -> None:
        self._lost |= {pair: 0.0 for pair in self._connected if concerns(*pair)}

    async def _restore(self, concerns: Callable[[str, str], bool]) -> list[LapelError]:
        """Connect those that were lost, and that this concerns, again; return why some could not be."""
        errors: list[LapelError] = []
        if not self._lost:
            return errors
        clock = asyncio.get_running_loop().time
        async with self._restoring:
            for pair in [each for each, after in self._lost.items() if concerns(*each) and after <= clock()]:
                try:
                    await self._connect(*pair)
                except LapelError as exc:
                    self._lost[pair] = clock() + RESTORE_SECONDS
                    self._logger.warning("topic %r could not be connected to group %r again: %s", *pair, exc)
                    errors.append(exc)
        return errors

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

    async def _allow(self, group: str, topics: Sequence[str]) -> Sequence[None]:
        """Let topics send to the queue of a group: one statement more in its policy for each, unless it is there."""
        queue = await self.queue(group)
        target = await self._arn(queue)
        for attempt in range(_POLICY_TRIES):
            async with self._limited(queue.place):
                text = (await queue.attributes("Policy")).get("Policy") or "{}"
            policy = json.loads(text)
            statements = policy.get("Statement") or []
            if isinstance(statements, dict):
                # A single one may be written without the list.
                statements = [statements]
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
        try:
            async with self._limited(queue.place):
                # Asked each time: a subscription counts as armed only when its queue has answered.
                target = (await queue.attributes("QueueArn"))["QueueArn"]
        except NotAllowedError:
            target = await self._arn_of("sqs", queue.name)
        more: dict[str, str] = {}
        while True:
            try:
                page = await self._manage(self._sns.list_subscriptions_by_topic(TopicArn=arn, **more), place)
            except NotAllowedError as exc:
                self._logger.info("that there is a %s cannot be checked, and is taken for granted: %s", place, exc)
                return
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
