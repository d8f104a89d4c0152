"""The class that authors of pub/sub drivers subclass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from ..delivery import Backoff, Consumer
from ..driver import Driver, SettingsT
from ..errors import LapelError, UnsupportedError
from .types import BulkPublishRequest, PublishRequest, SubscribeRequest

__all__ = ["PubSubDriver"]


class PubSubDriver(Driver[SettingsT]):
    """A broker. It stores what is published and hands it out; everything else is the dispatcher's work."""

    order_is_free: bool = True
    """Whether subscribing with an order changes nothing that others find at the broker. Where false, a host asks for
    an order only when the subscription says so itself."""

    @property
    def max_attempts(self) -> int | None:
        """How often a message is handed to a handler, from the component's own field; None for no limit."""
        return None

    @property
    def backoff(self) -> Backoff | None:
        """The pauses between attempts, from the component's own fields; None for the default."""
        return None

    @abstractmethod
    async def publish(self, request: PublishRequest) -> None:
        """Return when the broker has confirmed that it stored the message.

        Raises `UnavailableError` when it was certainly not stored, `OutcomeUnknownError` when nobody knows,
        `InvalidArgumentError` when the broker can never take it.
        """

    async def bulk_publish(self, request: BulkPublishRequest) -> Sequence[LapelError | None]:
        """Publish each entry and return None or its error for each, in order. Only called with `BULK_PUBSUB`."""
        raise UnsupportedError("is declared but not implemented", driver=self.descriptor.type, operation="bulk_publish")

    @abstractmethod
    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        """Return an armed consumer: a message published from now on reaches the group.

        Called again by the supervisor after an outage. Must leave nothing behind when it raises.
        """
