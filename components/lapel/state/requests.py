"""Turn an application's arguments into final, validated requests: prefix, preconditions, lifetimes, values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from math import inf
from typing import Any, TypeVar

from ..component import ComponentOptions, unsupported
from ..descriptor import Capability
from ..errors import EtagInvalidError, InvalidArgumentError
from ..jsontext import JSON_CONTENT_TYPE, encode_value
from ..keyprefix import key_prefix
from .driver import StateDriver
from .types import (
    NO_METADATA,
    Concurrency,
    Consistency,
    DeleteOperation,
    DeletePrefixRequest,
    DeleteRequest,
    GetRequest,
    IfAbsent,
    IfMatch,
    KeysPage,
    KeysRequest,
    Precondition,
    SetOperation,
    SetRequest,
)

__all__ = ["RequestBuilder"]

TTL_MAXIMUM = 2**31 - 1
BARS = "||"
_IF_ABSENT = IfAbsent()
W = TypeVar("W", bound=StrEnum)


class RequestBuilder:
    """Builds the requests of one store. Every method raises `InvalidArgumentError` or `UnsupportedError`."""

    def __init__(self, driver: StateDriver[Any], options: ComponentOptions) -> None:
        self._driver = driver
        self.prefix = key_prefix(driver.settings.key_prefix, driver.context.component, options)
        self.refresh()

    def refresh(self) -> None:
        """Look at the driver's capabilities and limits, which are final once it is open."""
        # Flags and properties cost more than all other checks together.
        limits, capabilities = self._driver.limits, self._driver.capabilities
        self._key_bytes, self._value_bytes, self._ttl_seconds = limits.key_bytes, limits.value_bytes, limits.ttl_seconds
        room = inf if limits.key_bytes is None else limits.key_bytes - len(self.prefix.encode(errors="replace"))
        self._ascii_room = room if _is_text(self.prefix) else 0
        self._default_ttl = self._driver.default_ttl
        self._has_etag = Capability.ETAG in capabilities
        self._has_ttl = Capability.TTL in capabilities

    def get(
        self,
        key: str,
        consistency: Consistency | str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> GetRequest:
        """Build one read."""
        if metadata is not NO_METADATA:
            self._check_metadata(metadata)
        return GetRequest(self._key(key), self._consistency(consistency) if consistency else None, metadata)

    def set(
        self,
        key: str,
        value: Any,
        etag: str | None,
        concurrency: Concurrency | str | None,
        consistency: Consistency | str | None,
        ttl: timedelta | int | None,
        content_type: str | None,
        metadata: Mapping[str, str],
    ) -> SetRequest:
        """Build one write."""
        if content_type is not None:
            self._check_content_type(content_type)
        if type(value) is not bytes:
            try:
                value, content_type = encode_value(value, content_type)
            except InvalidArgumentError as exc:
                raise self._invalid(exc.message) from None
        limit = self._value_bytes
        if limit is not None and len(value) > limit:
            raise self._invalid(f"the value has {len(value)} bytes; this store takes at most {limit}")
        if metadata is not NO_METADATA:
            self._check_metadata(metadata)
            content_type = content_type or metadata.get("contentType")
            if content_type is not None:
                self._check_content_type(content_type)
            if ttl is None and "ttlInSeconds" in metadata:
                ttl = self._wire_ttl(metadata["ttlInSeconds"])
        return SetRequest(
            self._key(key),
            value,
            content_type,
            self._precondition(etag, concurrency, create=True) if etag or concurrency else None,
            self._default_ttl if ttl is None else self._ttl(ttl),
            self._consistency(consistency) if consistency else None,
            metadata,
        )

    def set_of(self, operation: SetOperation) -> SetRequest:
        """Build the write of a bulk or transaction."""
        return self.set(
            operation.key,
            operation.value,
            operation.etag,
            operation.concurrency,
            operation.consistency,
            operation.ttl,
            operation.content_type,
            operation.metadata,
        )

    def delete(self, operation: DeleteOperation) -> DeleteRequest:
        """Build one removal."""
        if operation.metadata is not NO_METADATA:
            self._check_metadata(operation.metadata)
        precondition = self._precondition(operation.etag, operation.concurrency, create=False)
        return DeleteRequest(
            self._key(operation.key),
            precondition if isinstance(precondition, IfMatch) else None,
            self._consistency(operation.consistency) if operation.consistency else None,
            operation.metadata,
        )

    def keys(self, request: KeysRequest) -> KeysRequest:
        """Check a listing and put the prefix before its pattern."""
        for text, what in ((request.pattern, "pattern"), (request.token or "", "token")):
            if not isinstance(text, str):
                raise self._invalid(f"the {what} must be text, not {type(text).__name__}")
        if not request.pattern:
            raise self._invalid("the pattern is empty; use '%' for all keys")
        if "\0" in request.pattern:
            raise self._invalid("the pattern holds a NUL character, which no key can")
        if _dangling_escape(request.pattern):
            raise self._invalid("the pattern ends in a backslash that escapes nothing")
        size = request.page_size
        if size is not None and (type(size) is not int or not 1 <= size < 2**63):
            raise self._invalid(f"page_size is {size!r}; it must be a whole number from 1, or None for all")
        if not _is_text(request.pattern) or not _is_text(request.token or ""):
            raise self._invalid("the pattern or token holds a lone surrogate, which is not text")
        if request.token is not None and not request.token.startswith(self.prefix):
            raise self._invalid("the token is not from a listing of this application")
        escaped = self.prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return KeysRequest(escaped + request.pattern, request.token, request.page_size, request.metadata)

    def keys_page(self, page: KeysPage) -> KeysPage:
        """Take the prefix off the keys of a page."""
        if not self.prefix:
            return page
        skip = len(self.prefix)
        return KeysPage(keys=[key[skip:] for key in page.keys], token=page.token)

    def delete_with_prefix(self, request: DeletePrefixRequest) -> DeletePrefixRequest:
        """Check a prefix, end it in two bars, and put the application's own before it."""
        if not isinstance(request.prefix, str):
            raise self._invalid(f"a prefix must be text, not {type(request.prefix).__name__}")
        if request.prefix in ("", BARS):
            raise self._invalid("a prefix is required (prefix is required)")
        bare = request.prefix.removesuffix(BARS)
        return DeletePrefixRequest(self._key(bare) + BARS, request.metadata)

    def _key(self, key: str) -> str:
        # All that most keys need; the rest looks at the others one question at a time.
        if type(key) is str and key.isascii() and "\0" not in key and 0 < len(key) <= self._ascii_room:
            prefix = self.prefix
            if not prefix:
                return key
            if BARS not in key:
                return prefix + key
        return self._unusual_key(key)

    def _unusual_key(self, key: str) -> str:
        if not isinstance(key, str):
            raise self._invalid(f"a key must be text, not {type(key).__name__}")
        if not key:
            raise self._invalid("the key is empty")
        if "\0" in key:
            raise self._invalid("the key holds a NUL character")
        if self.prefix and BARS in key:
            raise self._invalid("the key holds '||', which separates the key prefix of applications from keys")
        full = self.prefix + key
        if not _is_text(full):
            raise self._invalid("the key holds a lone surrogate, which is not text")
        limit, size = self._key_bytes, len(full.encode())
        if limit is not None and size > limit:
            whole = " with its prefix" if self.prefix else ""
            raise self._invalid(f"the key has {size} bytes{whole}; this store takes at most {limit}")
        return full

    def _precondition(
        self, etag: str | None, concurrency: Concurrency | str | None, *, create: bool
    ) -> Precondition | None:
        if concurrency and type(concurrency) is not Concurrency:
            concurrency = self._word(Concurrency, concurrency, "concurrency")
        if etag:
            if not isinstance(etag, str):
                raise self._invalid(f"an etag must be text, not {type(etag).__name__}")
            if not etag.isascii() and not _is_text(etag):
                raise EtagInvalidError(
                    "the etag holds a lone surrogate, which no etag does; pass it as it was returned",
                    component=self._driver.context.component,
                    driver=self._driver.descriptor.type,
                )
            precondition: Precondition = IfMatch(etag)
        elif create and concurrency is Concurrency.FIRST_WRITE:
            precondition = _IF_ABSENT
        else:
            return None
        if not self._has_etag:
            raise unsupported(self._driver, Capability.ETAG, "set" if create else "delete")
        return precondition

    def _consistency(self, consistency: Consistency | str) -> Consistency:
        if type(consistency) is Consistency:
            return consistency
        return self._word(Consistency, consistency, "consistency")

    def _ttl(self, ttl: timedelta | int) -> int | None:
        if isinstance(ttl, timedelta):
            seconds = ttl.total_seconds()
            if seconds != int(seconds):
                raise self._invalid(f"ttl is {seconds:g} s; lifetimes are whole seconds")
            if seconds < 0:
                # Not even -1 s: that is a moment computed in the past, and not "for ever".
                raise self._invalid(f"ttl is {seconds:g} s; a timedelta must be positive, for ever is the number -1")
            ttl = int(seconds)
        if type(ttl) is not int:
            raise self._invalid(f"ttl must be a timedelta or whole seconds, not {type(ttl).__name__}")
        if ttl == 0:
            raise self._invalid("ttl is 0; use -1 for ever, or delete the key")
        if ttl < -1 or ttl > TTL_MAXIMUM:
            raise self._invalid(f"ttl is {ttl} s; it must be from 1 to {TTL_MAXIMUM}, or -1 for ever")
        if not self._has_ttl:
            raise unsupported(self._driver, Capability.TTL, "set")
        if ttl > self._ttl_seconds:
            raise self._invalid(f"ttl is {ttl} s; this store takes at most {self._ttl_seconds}")
        return None if ttl == -1 else ttl

    def _word(self, kind: type[W], word: str, name: str) -> W:
        try:
            return kind(word)
        except ValueError:
            allowed = ", ".join(repr(member.value) for member in kind)
            raise self._invalid(f"{name} is {word!r}; expected one of {allowed}") from None

    def _check_content_type(self, content_type: str) -> None:
        if content_type == JSON_CONTENT_TYPE:
            return
        if not (isinstance(content_type, str) and content_type.isascii() and content_type.isprintable()):
            raise self._invalid(f"content type {content_type!r} is not one; expected text such as application/json")

    def _check_metadata(self, metadata: Mapping[str, str]) -> None:
        if not isinstance(metadata, Mapping) or not all(
            isinstance(text, str) for pair in metadata.items() for text in pair
        ):
            raise self._invalid("metadata must map text to text")

    def _invalid(self, message: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            message, component=self._driver.context.component, driver=self._driver.descriptor.type
        )

    def _wire_ttl(self, text: str) -> int | None:
        """Read `ttlInSeconds` as Dapr sends it: empty is none, 0 and -1 are for ever."""
        if not text:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise self._invalid(f"metadata ttlInSeconds is {text!r}; expected whole seconds")
        return int(text) or -1


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dangling_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1
