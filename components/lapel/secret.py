"""A text that must not be seen."""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b
from typing import Any, NoReturn, SupportsIndex, final

__all__ = ["Secret"]

_HASH_KEY = secrets.token_bytes(32)


@final
class Secret:
    """Hold a password, token or key so that it is shown nowhere by accident.

    `repr`, `str` and every format give `Secret(***)`, whatever the length. Two secrets are compared in constant
    time and never equal plain text; the hash is keyed per process. Copies share the object; pickling raises
    `TypeError`. A secret is true when it is not empty. `reveal` is the one way to the text.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """Return the text. Hand it on to the client that needs it and keep no copy."""
        return self.__text

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__bytes(), other.__bytes())

    def __hash__(self) -> int:
        return int.from_bytes(blake2b(self.__bytes(), digest_size=8, key=_HASH_KEY).digest(), "big")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __bytes(self) -> bytes:
        return self.__text.encode("utf-8", "surrogatepass")
