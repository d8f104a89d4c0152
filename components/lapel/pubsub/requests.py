"""From the arguments of a publish call to what a driver gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..component import ComponentOptions, unsupported
from ..descriptor import Capability
from ..errors import InvalidArgumentError
from ..jsontext import encode_value
from .cloudevents import CLOUD_EVENT_CONTENT_TYPE, CloudEvent, raw_payload, ttl_of, wrap
from .driver import PubSubDriver
from .scopes import TopicScopes
from .types import NO_METADATA, PublishRequest

__all__ = ["RequestBuilder", "check_metadata", "check_text", "seconds_of"]

_CENTURIES = 1e11
_TTL_NAMES = ("ttl", "ttlinseconds")


class RequestBuilder:
    """Checks arguments, encodes values and puts the envelope around them, for one component."""

    def __init__(self, driver: PubSubDriver[Any], options: ComponentOptions, scopes: TopicScopes | None) -> None:
        self._driver = driver
        self._name = driver.context.component
        self._app_id = options.app_id
        self._envelope = options.envelope
        self._topic_prefix = options.topic_prefix
        self._scopes = scopes
        self.refresh()

    def refresh(self) -> None:
        """Read capabilities and limits again, once they are final."""
        capabilities, limits = self._driver.capabilities, self._driver.limits
        self._native_ttl = Capability.MESSAGE_TTL in capabilities
        self._attributes = Capability.ATTRIBUTES in capabilities
        self._largest = limits.value_bytes if limits.value_bytes is not None else math.inf
        self._longest = limits.ttl_seconds

    def is_raw(self, raw: bool | None, metadata: Mapping[str, str]) -> bool:
        """Tell whether messages go without an envelope: the argument, else `rawPayload`, else the component says so."""
        if raw is not None:
            return raw
        return (bool(metadata) and raw_payload(metadata)) or not self._envelope

    def publish(
        self,
        topic: str,
        data: Any,
        content_type: str | None,
        key: str | None,
        ttl: timedelta | float | None,
        delay: timedelta | float | None,
        raw: bool | None,
        metadata: Mapping[str, str],
        traceparent: str = "",
        tracestate: str = "",
    ) -> PublishRequest:
        """Return the request. Raises `InvalidArgumentError`, `PermissionDeniedError` or `UnsupportedError`."""
        check_text(topic, "topic")
        if key:
            check_text(key, "key")
        if content_type is not None and not (isinstance(content_type, str) and content_type.isprintable()):
            raise InvalidArgumentError(f"content type {content_type!r} is not one; expected text such as text/plain")
        if metadata is not NO_METADATA:
            check_metadata(metadata)
        if self._scopes is not None:
            self._scopes.check_publish(topic)
        if type(data) is not bytes:
            data, content_type = _encode(data, content_type)
        lifetime = None
        if ttl is not None or metadata:
            lifetime = seconds_of(ttl, "ttl") if ttl is not None else ttl_of(metadata)
        if lifetime is not None and lifetime > self._longest:
            raise InvalidArgumentError(
                f"a time to live of {lifetime:g} s is longer than the limit of {self._longest} s"
            )
        if self.is_raw(raw, metadata):
            if lifetime is not None and not self._native_ttl:
                raise unsupported(self._driver, Capability.MESSAGE_TTL, "publish")
            if traceparent and self._attributes and "traceparent" not in metadata:
                metadata = {
                    **metadata,
                    "traceparent": traceparent,
                    **({"tracestate": tracestate} if tracestate else {}),
                }
        else:
            attributes = metadata
            if ttl is not None and not self._native_ttl:
                attributes = {name: text for name, text in metadata.items() if name.lower() not in _TTL_NAMES}
                attributes["ttl"] = f"{lifetime:.9f}s"
            data = wrap(
                data,
                topic=topic,
                pubsub_name=self._name,
                content_type=content_type,
                source=self._app_id,
                metadata=attributes,
                traceparent=traceparent,
                tracestate=tracestate,
                broker_has_ttl=self._native_ttl,
            )
            content_type = CLOUD_EVENT_CONTENT_TYPE
        if len(data) > self._largest:
            raise InvalidArgumentError(f"a message of {len(data)} bytes is over the broker's limit of {self._largest}")
        pause = None if delay is None else self._delay(delay)
        if self._topic_prefix:
            topic = self._topic_prefix + topic
        return PublishRequest(
            topic, data, content_type, key, lifetime if self._native_ttl else None, pause, metadata or NO_METADATA
        )

    def _delay(self, delay: timedelta | float) -> float:
        if Capability.DELAYED_DELIVERY not in self._driver.capabilities:
            raise unsupported(self._driver, Capability.DELAYED_DELIVERY, "publish")
        seconds = seconds_of(delay, "delay", zero=True)
        longest = self._driver.limits.delay_seconds
        if longest is not None and seconds > longest:
            raise InvalidArgumentError(f"a delay of {seconds:g} s is longer than the broker's limit of {longest} s")
        return seconds


def check_text(value: Any, what: str) -> None:
    """Raise `InvalidArgumentError` unless `value` is text of at least one character, without NUL or lone surrogates."""
    if type(value) is str and value and value.isascii() and "\0" not in value:
        return
    if not isinstance(value, str):
        raise InvalidArgumentError(f"the {what} must be text, not {type(value).__name__}")
    if not value:
        raise InvalidArgumentError(f"the {what} is empty")
    if "\0" in value:
        raise InvalidArgumentError(f"the {what} holds a NUL character")
    if not _is_text(value):
        raise InvalidArgumentError(f"the {what} holds a lone surrogate, which is not text")


def check_metadata(metadata: Any) -> None:
    """Raise `InvalidArgumentError` unless `metadata` maps text to text."""
    if not isinstance(metadata, Mapping):
        raise InvalidArgumentError(f"metadata must map text to text, not be a {type(metadata).__name__}")
    for pair in metadata.items():
        for text in pair:
            if not isinstance(text, str) or not (text.isascii() or _is_text(text)):
                raise InvalidArgumentError(f"metadata must map text to text; see {pair[0]!r}")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def seconds_of(value: timedelta | float, name: str, *, zero: bool = False) -> float:
    """Return an argument that is a duration in seconds. Raises `InvalidArgumentError` unless it is positive."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    # Comparing first: a huge integer cannot become a float, and NaN compares with nothing.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not -_CENTURIES < seconds < _CENTURIES:
        raise InvalidArgumentError(f"{name} must be a timedelta or a number of seconds")
    if seconds < 0 or (seconds == 0 and not zero):
        raise InvalidArgumentError(f"{name} must be {'at least 0' if zero else 'positive'}, got {value!r}")
    return float(seconds)


def _encode(data: Any, content_type: str | None) -> tuple[bytes, str | None]:
    if isinstance(data, CloudEvent):
        return data.to_json(), CLOUD_EVENT_CONTENT_TYPE
    if content_type is not None and isinstance(data, Mapping):
        base = content_type.partition(";")[0].strip().lower()
        if base == CLOUD_EVENT_CONTENT_TYPE:
            return encode_value(data, None)[0], content_type
    return encode_value(data, content_type)
