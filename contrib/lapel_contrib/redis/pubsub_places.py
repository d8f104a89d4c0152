"""The limit of a component on messages at work, over all its subscriptions."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Places"]


class _User(Protocol):
    @property
    def at_work(self) -> int: ...

    def wake(self) -> None: ...


class Places:
    """At most `most` messages are at work with its users at once; None: any number. Who waits is served in turn."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._users: dict[_User, None] = {}

    def join(self, user: _User) -> None:
        """Count what is at work with a user from now on."""
        self._users[user] = None

    def leave(self, user: _User) -> None:
        """Count a user no longer. Idempotent."""
        self._users.pop(user, None)
        self.freed()

    def room(self, wanted: int) -> int:
        """Return how many further messages may be at work now, at most as many as are wanted."""
        if self._most is None:
            return wanted
        return max(0, min(wanted, self._most - sum(user.at_work for user in self._users)))

    def taken(self, user: _User) -> None:
        """Note that a user took places up, so that the others are asked first when some are free again."""
        if self._most is not None:
            self._users[user] = self._users.pop(user, None)

    def freed(self) -> None:
        """Let those who wait look whether there is a place."""
        if self._most is not None:
            for user in [*self._users]:
                user.wake()
