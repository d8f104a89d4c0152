"""Publish and subscribe, and bindings, without `await`. Handlers are plain functions in threads of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self, TypeVar

import msgspec

from .. import bindings, pubsub
from ..component import Health, HealthState
from ..errors import ClosedError
from .facade import Component, Facade, blocking
from .runner import check_plain
from .streams import Feed, Stream

__all__ = [
    "BindingResponse",
    "BulkHandler",
    "EventHandler",
    "Handler",
    "InputBinding",
    "OutputBinding",
    "PubSub",
    "Reading",
    "Subscription",
]

Handler = Callable[[pubsub.Message], pubsub.Outcome | None]
"""What `PubSub.subscribe` calls; it may block. Returning None is success, raising is `Outcome.RETRY`."""

BulkHandler = Callable[[list[pubsub.Message]], Sequence[pubsub.Outcome | None] | None]
"""What `PubSub.bulk_subscribe` calls: None for success of all, or one outcome for each message, in order."""

EventHandler = Callable[[bindings.BindingEvent], Any]
"""Receives one event of an input binding; it may block. Its result is the reply: bytes, a `BindingResponse`, any other
value as JSON, or None."""

NO_METADATA: Mapping[str, str] = {}
_DRAIN = timedelta(seconds=30)
_R = TypeVar("_R", pubsub.Subscription, bindings.Reading)


class _Running(Facade[_R]):
    """Something that calls a handler until it is closed. A `with` block closes it at its end."""

    def pause(self) -> None:
        """Start no handler and take nothing in until `resume`; handlers that run go on. Idempotent."""
        self._runner.run(self._inner.pause())

    def resume(self) -> None:
        """Go on after `pause`. Idempotent."""
        self._runner.run(self._inner.resume())

    def health(self) -> Health:
        """Return its state, judged by progress. Closed is a state too; the only error is `WrongLoopError`."""
        try:
            return self._runner.call(self._inner.health)
        except ClosedError:
            return Health(state=HealthState.CLOSED)

    def close(self) -> None:
        """Take nothing more, hand back what was not started, and wait for handlers up to the drain time-out.

        A handler that needs longer is left behind in its thread, and what it had in hand is delivered again where the
        source can do that. Idempotent. Called by its own handler it does not wait for that one.
        """
        self._runner.run_closing(self._inner.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Subscription(_Running[pubsub.Subscription]):
    """A running subscription, restored after every outage. It ends with `close`, or with the component."""

    lag = blocking(pubsub.Subscription.lag)

    @property
    def topic(self) -> str:
        """The topic subscribed to."""
        return self._inner.topic

    @property
    def group(self) -> str:
        """The consumer group."""
        return self._inner.group

    @property
    def in_flight(self) -> int:
        """How many messages are held: in handlers, about to start, or waiting for a retry."""
        return self._inner.in_flight

    @property
    def paused(self) -> bool:
        """Whether `pause` is in force."""
        return self._inner.paused


class Reading(_Running[bindings.Reading]):
    """The events of an input binding, being handed to a handler until `close`."""

    @property
    def closing(self) -> bool:
        """Whether `close` was called, by whomever."""
        return self._inner.closing

    @property
    def ended(self) -> bool:
        """Whether all of `close` is done."""
        return self._inner.ended


class PubSub(Component[pubsub.PubSub]):
    """`lapel.PubSub` without `await`. Handlers are plain functions, run in threads of their own."""

    publish = blocking(pubsub.PubSub.publish)
    bulk_publish = blocking(pubsub.PubSub.bulk_publish)

    def subscribe(
        self,
        topic: str,
        handler: Handler,
        *,
        ordering: pubsub.Ordering | str = pubsub.Ordering.NONE,
        concurrency: int = 10,
        max_attempts: int | None = None,
        backoff: pubsub.Backoff | None = None,
        dead_letter_topic: str | None = None,
        drain_timeout: timedelta | float = _DRAIN,
        raw: bool | None = None,
        group: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Subscription:
        """Call `handler` for every message, in up to `concurrency` threads at once; return when armed.

        Everything as for `lapel.PubSub.subscribe`, but `handler` is a plain function and may block.
        """
        work = self._inner.subscribe(
            topic,
            self._runner.threaded(handler),
            ordering=ordering,
            concurrency=concurrency,
            max_attempts=max_attempts,
            backoff=backoff,
            dead_letter_topic=dead_letter_topic,
            drain_timeout=drain_timeout,
            raw=raw,
            group=group,
            metadata=metadata,
        )
        return Subscription(self._runner.run(work), self._runner)

    def bulk_subscribe(
        self,
        topic: str,
        handler: BulkHandler,
        *,
        max_messages: int = 100,
        max_wait: timedelta | float = 1.0,
        ordering: pubsub.Ordering | str = pubsub.Ordering.NONE,
        concurrency: int = 1,
        max_attempts: int | None = None,
        backoff: pubsub.Backoff | None = None,
        dead_letter_topic: str | None = None,
        drain_timeout: timedelta | float = _DRAIN,
        raw: bool | None = None,
        group: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Subscription:
        """Call `handler` with up to `max_messages` at once; return when armed.

        Everything as for `lapel.PubSub.bulk_subscribe`, but `handler` is a plain function and may block.
        """
        work = self._inner.bulk_subscribe(
            topic,
            self._runner.threaded(handler),
            max_messages=max_messages,
            max_wait=max_wait,
            ordering=ordering,
            concurrency=concurrency,
            max_attempts=max_attempts,
            backoff=backoff,
            dead_letter_topic=dead_letter_topic,
            drain_timeout=drain_timeout,
            raw=raw,
            group=group,
            metadata=metadata,
        )
        return Subscription(self._runner.run(work), self._runner)

    @property
    def subscriptions(self) -> frozenset[Subscription]:
        """The subscriptions that have not been closed."""
        return frozenset(Subscription(each, self._runner) for each in self._inner.subscriptions)


class BindingResponse(msgspec.Struct, frozen=True):
    """What an operation answers, as `lapel.BindingResponse`. `data` is a `Stream` where one was asked for."""

    data: bytes | Stream | None = None
    metadata: Mapping[str, str] = NO_METADATA
    content_type: str | None = None

    def read(self) -> bytes:
        """Return all data as bytes, reading a stream to its end; empty when there is none."""
        if self.data is None or isinstance(self.data, bytes):
            return self.data or b""
        return b"".join(self.data)

    def close(self) -> None:
        """Let go of a stream that is not read to its end. Does nothing when there is none; idempotent."""
        if isinstance(self.data, Stream):
            self.data.close()


class OutputBinding(Component[bindings.OutputBinding]):
    """`lapel.OutputBinding` without `await`."""

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that `invoke` takes."""
        return self._inner.operations

    def invoke(
        self,
        operation: str,
        data: Any = None,
        *,
        metadata: Mapping[str, str] = NO_METADATA,
        stream: bool = False,
    ) -> BindingResponse:
        """Carry out one of `operations`, as `lapel.OutputBinding.invoke`.

        An iterator of bytes, like a generator or an open binary file, goes out as it is, read by this thread; other
        iterables are JSON. With `stream` the reply's data is a `Stream` that must be read to the end or closed.
        """
        feed = Feed(data) if isinstance(data, Iterator) else None
        work = self._inner.invoke(operation, data if feed is None else feed, metadata=metadata, stream=stream)
        response = self._runner.run(work, None if feed is None else feed.caller())
        answer = response.data
        return BindingResponse(
            answer if answer is None or isinstance(answer, bytes) else Stream(answer, self._runner),
            response.metadata,
            response.content_type,
        )


class InputBinding(Component[bindings.InputBinding]):
    """`lapel.InputBinding` without `await`. Handlers are plain functions, run in threads of their own."""

    def read(
        self,
        handler: EventHandler,
        *,
        concurrency: int = 1,
        max_attempts: int | None = None,
        backoff: pubsub.Backoff | None = None,
        drain_timeout: float = 30.0,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Reading:
        """Call `handler` with each event from now on, in `concurrency` threads; return when the source is armed.

        Everything as for `lapel.InputBinding.read`, but `handler` is a plain function and may block.
        """
        check_plain(handler)

        def handle(event: bindings.BindingEvent) -> Any:
            reply = handler(event)
            if isinstance(reply, BindingResponse):
                return bindings.BindingResponse(reply.read(), reply.metadata, reply.content_type)
            return reply

        work = self._inner.read(
            self._runner.threaded(handle),
            concurrency=concurrency,
            max_attempts=max_attempts,
            backoff=backoff,
            drain_timeout=drain_timeout,
            metadata=metadata,
        )
        return Reading(self._runner.run(work), self._runner)
