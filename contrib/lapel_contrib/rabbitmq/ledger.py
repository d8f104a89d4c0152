"""What a channel was handed and has not settled yet."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["Ledger"]


class Ledger:
    """Delivery tags in the order of delivery, each with the name under which it was consumed.

    `current` counts those of the name that `begin` gave last: the broker's limit holds for each name by itself.
    """

    def __init__(self) -> None:
        self.current = 0
        self._name: str | None = None
        self._tags: dict[int, str | None] = {}

    def __len__(self) -> int:
        return len(self._tags)

    def __contains__(self, tag: int) -> bool:
        return tag in self._tags

    def begin(self, name: str) -> None:
        """Note that from now on messages come under this name."""
        self._name, self.current = name, 0

    def add(self, tag: int, name: str | None) -> None:
        """Enter a delivery. Tags only grow."""
        self._tags[tag] = name
        if name == self._name:
            self.current += 1

    def remove(self, tag: int) -> None:
        """Strike out one that is there."""
        if self._tags.pop(tag) == self._name:
            self.current -= 1

    def clear(self) -> None:
        """Strike out all."""
        self._tags.clear()
        self.current = 0

    def settle(self, tags: Collection[int]) -> tuple[int, int, list[int]]:
        """Strike out tags, and return how to tell the broker in few frames.

        The first number is the last tag up to which all are settled, 0 for none; the second how many those are. The
        list has the rest, each to be named by itself, because something before it is still held.
        """
        last = count = 0
        for tag in self._tags:
            if tag not in tags:
                break
            last, count = tag, count + 1
        rest = sorted(tag for tag in tags if tag > last)
        for tag in tags:
            self.remove(tag)
        return last, count, rest
