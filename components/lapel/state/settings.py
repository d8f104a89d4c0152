"""Fields that every state store has, handled above the driver."""

from __future__ import annotations

from collections.abc import Iterable

from ..keyprefix import check_strategy
from ..settings import Secret, Settings, setting

__all__ = ["StateSettings"]


class StateSettings(Settings):
    """Base of the settings of every state driver."""

    key_prefix: str = setting(
        "keyPrefix",
        default="appid",
        doc="What goes before every key when an app id is given: `appid`, `name` (of the component), `namespace` "
        "(namespace and app id), `none`, or any other text.",
    )
    actor_state_store: bool = setting("actorStateStore", default=False, doc="Marks the store that actors use.")
    primary_encryption_key: Secret | None = setting(
        "primaryEncryptionKey",
        default=None,
        doc="Key for encrypting values at rest.",
        refused="values are not encrypted by lapel yet, and storing them in the clear would break the promise",
    )
    secondary_encryption_key: Secret | None = setting(
        "secondaryEncryptionKey",
        default=None,
        doc="Older key for encrypted values.",
        refused="values are not encrypted by lapel yet",
    )
    outbox_publish_pubsub: str | None = setting(
        "outboxPublishPubsub", default=None, doc="Outbox component.", refused="the outbox is not implemented"
    )
    outbox_publish_topic: str | None = setting(
        "outboxPublishTopic", default=None, doc="Outbox topic.", refused="the outbox is not implemented"
    )
    outbox_pubsub: str | None = setting(
        "outboxPubsub", default=None, doc="Internal outbox component.", refused="the outbox is not implemented"
    )
    outbox_discard_when_missing_state: bool | None = setting(
        "outboxDiscardWhenMissingState",
        default=None,
        doc="What the outbox does with unknown transactions.",
        refused="the outbox is not implemented",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the key prefix."""
        yield from super().check()
        yield from check_strategy(self.key_prefix)
