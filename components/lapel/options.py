"""How an application or a runtime wants a component to be run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from .policy import RetryPolicy

if TYPE_CHECKING:
    from .resiliency import ComponentPolicies

__all__ = ["ComponentOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentOptions:
    """How a component is run; the defaults suit an application.

    `app_id` None adds no key prefix and no `consumerID`. `retries` None means the component's own fields or the
    default policy; a runtime that has its own passes `RetryPolicy.off()`. `call_timeout` None means the
    component's documented time-out or 5 s. `envelope` False publishes and hands out messages without a CloudEvent.
    `topic_prefix` goes before every topic of a pub/sub component on its broker: the namespace, when a field in its
    file has the tag `{namespace}`. `resiliency` has the policies of resiliency documents. They win over what the
    component says; their time-out is for each try, so that retries are not bounded by one deadline.
    """

    app_id: str | None = None
    namespace: str | None = None
    retries: RetryPolicy | None = None
    call_timeout: timedelta | None = None
    init_timeout: timedelta = timedelta(seconds=5)
    envelope: bool = True
    topic_prefix: str = ""
    resiliency: ComponentPolicies | None = None
