"""Bytes as the text that SQS and SNS carry."""

from __future__ import annotations

import re
import uuid

from lapel.errors import InvalidArgumentError

__all__ = ["as_text", "is_text", "new_id"]

LONGEST = 1024 * 1024
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, and the services therefore refuse."""


def is_text(text: str) -> bool:
    """Tell whether SQS and SNS take this text."""
    return bool(text) and _FORBIDDEN.search(text) is None


def as_text(data: bytes) -> tuple[str, int]:
    """Return a payload as text, and its size in bytes. Raises `InvalidArgumentError` when SQS does not take it."""
    if len(data) > LONGEST:
        raise InvalidArgumentError(f"the data is longer than the {LONGEST} bytes that SQS takes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidArgumentError(
            "SQS takes text only, and the data is not UTF-8; encode it, with Base64 perhaps"
        ) from None
    if not text:
        raise InvalidArgumentError("SQS takes no empty messages")
    if not is_text(text):
        raise InvalidArgumentError("the data has control characters, which SQS does not take; encode it")
    return text, len(data)


def new_id() -> str:
    """Return an id that no other message has."""
    return uuid.uuid4().hex
