"""Which applications may use which topics, as the fields of a component say.

Source: Dapr's "Pub/sub topic access" page and the behaviour of its sidecar.
"""

from __future__ import annotations

from collections.abc import Collection

from ..errors import ConfigurationError, TopicForbiddenError
from .settings import SCOPES_FORM, PubSubSettings, parse_scopes

__all__ = ["TopicScopes"]


class TopicScopes:
    """The rules of one component for one application.

    `allowedTopics`, when set, are the only topics of all. An application named in a scope may use the topics listed
    there and no others; one that is not named may use all but the protected ones.
    Raises `ConfigurationError` for a scope that cannot be read: a rule that protects must not be skipped.
    """

    def __init__(self, settings: PubSubSettings, app_id: str, component: str) -> None:
        self._app_id = app_id
        self._component = component
        self._allowed = frozenset(settings.allowed_topics)
        self._protected = frozenset(settings.protected_topics)
        self._publish = _topics(settings.publishing_scopes, app_id, "publishingScopes", component)
        self._subscribe = _topics(settings.subscription_scopes, app_id, "subscriptionScopes", component)

    @property
    def restrictive(self) -> bool:
        """Whether there is any rule to check."""
        return bool(self._allowed or self._protected or self._publish is not None or self._subscribe is not None)

    def check_publish(self, topic: str) -> None:
        """Raise `TopicForbiddenError` unless the application may publish to this topic."""
        self._check(topic, self._publish, "publish to", "publishingScopes")

    def check_subscribe(self, topic: str) -> None:
        """Raise `TopicForbiddenError` unless the application may subscribe to this topic."""
        self._check(topic, self._subscribe, "subscribe to", "subscriptionScopes")

    def _check(self, topic: str, own: Collection[str] | None, verb: str, field: str) -> None:
        if self._allowed and topic not in self._allowed:
            rule = "it is not among allowedTopics"
        elif own is None and topic in self._protected:
            rule = f"it is among protectedTopics and {field} does not name it for this app"
        elif own is not None and topic not in own:
            rule = f"{field} does not name it for this app"
        else:
            return
        raise TopicForbiddenError(
            f"app {self._app_id!r} may not {verb} topic {topic!r}: {rule}", component=self._component
        )


def _topics(scopes: str | None, app_id: str, field: str, component: str) -> frozenset[str] | None:
    """Return the topics listed for the app, None when it is not named."""
    found = parse_scopes(scopes)
    if found is None:
        raise ConfigurationError(f"field {field!r}: is not written as {SCOPES_FORM}", component=component)
    return found.get(app_id)
