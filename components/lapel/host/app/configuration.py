"""Changes of configuration items to the application."""

from __future__ import annotations

import msgspec

from ...configuration import ConfigurationEvent, ConfigurationItem
from ...errors import LapelError
from ..api.configuration import item_data
from .channel import AppChannel, AppStatusError

__all__ = ["ConfigurationDelivery"]


class ConfigurationDelivery:
    """Tells the application of changed items of one store, one request for each. The handler of one subscription."""

    def __init__(self, channel: AppChannel, store: str) -> None:
        self._channel = channel
        self._store = store
        self._event: ConfigurationEvent | None = None
        self._left: dict[str, ConfigurationItem] = {}

    async def __call__(self, event: ConfigurationEvent) -> None:
        """Hand over every item, also after one that is not taken, and raise then: an event comes once.

        Called again with the same event, as a retry policy does, it hands over only what has not been taken.
        """
        if event is not self._event:
            self._event, self._left = event, dict(event.items)
        failure: LapelError | None = None
        for key, item in list(self._left.items()):
            try:
                await self._hand_over(event.id, key, item)
            except LapelError as exc:
                failure = failure or exc
            else:
                del self._left[key]
        if failure is not None:
            raise failure

    async def _hand_over(self, id: str, key: str, item: ConfigurationItem) -> None:
        path = f"/configuration/{self._store}/{key}"
        body = msgspec.json.encode({"id": id, "items": {key: item_data(item)}})
        reply = await self._channel.request("POST", path, body=body, content_type="application/json")
        if not reply.ok:
            raise AppStatusError(f"the application answered {path} with {reply.status}", reply.status)
