"""Fields that every pub/sub component has, handled above the driver."""

from __future__ import annotations

from ..settings import Settings, setting

__all__ = ["PubSubSettings"]


class PubSubSettings(Settings):
    """Base of the settings of every pub/sub driver."""

    consumer_id: str | None = setting(
        "consumerID",
        default=None,
        doc="Consumer group: subscribers with the same id share the messages, different ids each get all. "
        "Defaults to the app id.",
    )
    allowed_topics: tuple[str, ...] = setting(
        "allowedTopics", default=(), doc="If set, applications may use no other topics."
    )
    protected_topics: tuple[str, ...] = setting(
        "protectedTopics", default=(), doc="Topics that only applications named in a scope may use."
    )
    publishing_scopes: str | None = setting(
        "publishingScopes", default=None, doc="Who may publish what: `app1=t1,t2;app2=t3`; `app=` means no topic."
    )
    subscription_scopes: str | None = setting(
        "subscriptionScopes", default=None, doc="Who may subscribe to what, written like `publishingScopes`."
    )
