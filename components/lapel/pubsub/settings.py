"""Fields that every pub/sub component has, handled above the driver."""

from __future__ import annotations

from collections.abc import Iterable

from ..settings import Settings, setting

__all__ = ["SCOPES_FORM", "PubSubSettings", "parse_scopes"]

SCOPES_FORM = "`app1=topic1,topic2;app2=`"
"""How scopes are written; `app=` means no topic."""


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

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield which scopes cannot be read."""
        yield from super().check()
        for name, scopes in (
            ("publishingScopes", self.publishing_scopes),
            ("subscriptionScopes", self.subscription_scopes),
        ):
            if parse_scopes(scopes) is None:
                yield name, f"is not written as {SCOPES_FORM}"


def parse_scopes(scopes: str | None) -> dict[str, frozenset[str]] | None:
    """Return the topics of each application that is named; None for text that cannot be read."""
    found: dict[str, frozenset[str]] = {}
    for part in (scopes or "").split(";"):
        if not part.strip():
            continue
        app, equals, topics = part.partition("=")
        if not equals or not app.strip():
            return None
        listed = frozenset(topic.strip() for topic in topics.split(",") if topic.strip())
        found[app.strip()] = found.get(app.strip(), frozenset()) | listed
    return found
