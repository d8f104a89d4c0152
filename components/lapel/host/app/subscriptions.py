"""What the application subscribes to: from its own answer, and from files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ...errors import InvalidArgumentError, LapelError
from ...manifest import Document
from ...resiliency import Resiliency
from ...resiliency.policies import BUILT_IN_RETRIES, DISCOVERY_RETRIES
from ...values import parse_bool
from .channel import AppChannel
from .rules import Rule, Rules

__all__ = ["AppSubscription", "BulkOptions", "declared", "discovered", "merged"]

DISCOVERY_SECONDS = 10.0
"""How long asking for subscriptions may take, unless a resiliency document has retries of its own for it."""
_APIS = ("dapr.io/v1alpha1", "dapr.io/v2alpha1")
_log = logging.getLogger("lapel.host")


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """How many messages come in one request at most, and how many seconds the first of them waits for others."""

    max_messages: int = 100
    max_wait: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSubscription:
    """One subscription of the application. `origin` is `PROGRAMMATIC` or `DECLARATIVE`."""

    pubsub: str
    topic: str
    rules: Rules
    origin: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    dead_letter_topic: str | None = None
    bulk: BulkOptions | None = None

    @property
    def raw(self) -> bool:
        """Whether messages are not CloudEvents: metadata `rawPayload`."""
        text = next((value for name, value in self.metadata.items() if name.lower() == "rawpayload"), "false")
        try:
            return parse_bool(text)
        except InvalidArgumentError:
            return False

    def describe(self) -> dict[str, Any]:
        """Return it as the metadata API shows it."""
        shown: dict[str, Any] = {
            "pubsubname": self.pubsub,
            "topic": self.topic,
            "rules": [
                {"match": rule.match, "path": rule.path} if rule.match else {"path": rule.path}
                for rule in self.rules.rules
            ],
            "type": self.origin,
        }
        if self.metadata:
            shown["metadata"] = dict(self.metadata)
        if self.dead_letter_topic:
            shown["deadLetterTopic"] = self.dead_letter_topic
        return shown


async def discovered(channel: AppChannel, app_id: str, resiliency: Resiliency) -> list[AppSubscription]:
    """Ask the application at `GET /dapr/subscribe`.

    404 is none. Other failures are tried again as `DaprBuiltInInitializationRetries` says, and then logged, and are
    none too.
    """
    failure = ""
    own = resiliency.retries.get(DISCOVERY_RETRIES)
    retry = own or BUILT_IN_RETRIES[DISCOVERY_RETRIES]
    try:
        async with asyncio.timeout(DISCOVERY_SECONDS if own is None else None):
            for number in range(retry.attempts or 1):
                if number:
                    await asyncio.sleep(retry.delay(number))
                try:
                    reply = await channel.request("GET", "/dapr/subscribe", headers={"dapr-app-id": app_id})
                except LapelError as exc:
                    failure = exc.message
                    continue
                if reply.status == 404:
                    return []
                if reply.ok:
                    return _parsed(reply.body)
                failure = f"it answered {reply.status}"
    except TimeoutError:
        failure = failure or f"no answer within {DISCOVERY_SECONDS:g} s"
    _log.error("the application's subscriptions (GET /dapr/subscribe) are not known: %s", failure)
    return []


def declared(documents: Iterable[Document], app_id: str | None) -> list[AppSubscription]:
    """Return the subscriptions of the files that are in the scope of `app_id`; what is wrong is logged and left out."""
    found = []
    for document in documents:
        if document.kind != "Subscription":
            continue
        place = f"{document.file}:{document.line}" if document.file else "a Subscription document"
        if document.api_version not in _APIS:
            _log.error("%s: apiVersion %r is none of %s; left out", place, document.api_version, ", ".join(_APIS))
            continue
        scopes = document.data.get("scopes") or []
        if scopes and app_id is not None and app_id not in scopes:
            continue
        spec = document.data.get("spec")
        if not isinstance(spec, Mapping):
            _log.error("%s: it has no spec; left out", place)
            continue
        subscription = _subscription(spec, "DECLARATIVE", place)
        if subscription is not None:
            found.append(subscription)
    return found


def merged(programmatic: Iterable[AppSubscription], declarative: Iterable[AppSubscription]) -> list[AppSubscription]:
    """Return one for each topic: the application's own wins, and among files the first."""
    found: dict[tuple[str, str], AppSubscription] = {}
    for subscription in programmatic:
        found[subscription.pubsub, subscription.topic] = subscription
    for subscription in declarative:
        found.setdefault((subscription.pubsub, subscription.topic), subscription)
    return list(found.values())


def _parsed(body: bytes) -> list[AppSubscription]:
    try:
        entries = msgspec.json.decode(body) if body.strip() else []
    except ValueError:
        entries = None
    if entries is None or not isinstance(entries, list):
        _log.error("the application's answer to GET /dapr/subscribe is not a JSON list; it has no subscriptions")
        return []
    found = (
        _subscription(entry, "PROGRAMMATIC", f"entry {number} of /dapr/subscribe")
        for number, entry in enumerate(entries)
        if isinstance(entry, Mapping)
    )
    return [subscription for subscription in found if subscription is not None]


def _subscription(spec: Mapping[str, Any], origin: str, place: str) -> AppSubscription | None:
    """Read one entry; names of fields match without regard to case."""
    given = {str(name).lower(): value for name, value in spec.items() if value is not None}
    pubsub, topic = str(given.get("pubsubname") or ""), str(given.get("topic") or "")
    try:
        rules = _rules(given)
    except InvalidArgumentError as exc:
        _log.error("%s: %s; the subscription is left out", place, exc.message)
        return None
    missing = [name for name, value in (("pubsubname", pubsub), ("topic", topic), ("a route", rules)) if not value]
    if missing:
        _log.warning("%s has no %s; the subscription is left out", place, " and no ".join(missing))
        return None
    metadata = given.get("metadata")
    return AppSubscription(
        pubsub=pubsub,
        topic=topic,
        rules=Rules(rules),
        origin=origin,
        metadata={str(key): _text(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else {},
        dead_letter_topic=str(given.get("deadlettertopic") or "") or None,
        bulk=_bulk(given.get("bulksubscribe"), place),
    )


def _rules(given: Mapping[str, Any]) -> list[Rule]:
    rules: list[Rule] = []
    routes = given.get("routes")
    default = None
    if isinstance(routes, Mapping):
        listed = [rule for rule in routes.get("rules") or () if isinstance(rule, Mapping) and rule.get("path")]
        rules += [Rule(str(rule.get("match") or ""), str(rule["path"])) for rule in listed]
        default = routes.get("default")
    default = default or given.get("route")
    if default:
        rules.append(Rule("", str(default)))
    return rules


def _bulk(given: Any, place: str) -> BulkOptions | None:
    if not isinstance(given, Mapping):
        return None
    options = {str(name).lower(): value for name, value in given.items() if value is not None}
    if _text(options.get("enabled", "false")).lower() != "true":
        return None
    try:
        most = int(options.get("maxmessagescount") or 100)
        wait = int(options.get("maxawaitdurationms") or 1000)
    except (TypeError, ValueError):
        most = wait = 0
    if most < 1 or wait < 1:
        _log.warning("%s: bulkSubscribe needs whole numbers above 0; it has its defaults", place)
        return BulkOptions()
    return BulkOptions(most, wait / 1000)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
