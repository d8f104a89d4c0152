"""The statements with which one consumer takes, keeps and settles the messages of its group. Run on the threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from lapel.delivery import Delivery, Ordering

from .pubsub_schema import advance, line_up, now_ms, settle_row

__all__ = ["Queue", "Taken", "Verdict"]

DUE_ROWS = 256
"""Most deliveries that get into the line again in one transaction."""
LANES = 64
"""Most keys whose next messages are looked for at once."""
TAKE_BYTES = 8 * 1024 * 1024
"""A batch ends with the message that reaches this size."""

_DUE = (
    "SELECT message_id, key FROM pubsub_deliveries INDEXED BY pubsub_deliveries_due "
    "WHERE group_id = ? AND state >= 2 AND due <= ? ORDER BY due, message_id LIMIT ?"
)
_NEXT_DUE = (
    "SELECT due FROM pubsub_deliveries INDEXED BY pubsub_deliveries_due "
    "WHERE group_id = ? AND state >= 2 ORDER BY due LIMIT 1"
)
_IN_STATE = "SELECT message_id FROM pubsub_deliveries WHERE group_id = ? AND state = ? ORDER BY message_id LIMIT ?"
_HEADS = (
    "SELECT message_id, key FROM pubsub_deliveries d WHERE group_id = ?1 AND state = 0 AND (key IS NULL OR NOT EXISTS "
    "(SELECT 1 FROM pubsub_deliveries h WHERE h.group_id = ?1 AND h.key = d.key AND h.state = 2)) "
    "ORDER BY message_id LIMIT ?2"
)
_HAS_READY = "SELECT 1 FROM pubsub_deliveries WHERE group_id = ? AND key = ? AND state = 0 LIMIT 1"
_HELD_OF_LANE = (
    "SELECT max(message_id), sum(holder IS NOT ?) FROM pubsub_deliveries WHERE group_id = ? AND key = ? AND state = 2"
)
_BLOCKED_OF_LANE = (
    "SELECT message_id FROM pubsub_deliveries WHERE group_id = ? AND key = ? AND state = 1 ORDER BY message_id LIMIT ?"
)
_HELD_ELSEWHERE = "SELECT 1 FROM pubsub_deliveries WHERE group_id = ? AND state = 2 AND holder IS NOT ? LIMIT 1"
_LAST_HELD = "SELECT max(message_id) FROM pubsub_deliveries WHERE group_id = ? AND state = 2"
_FETCH = (
    "SELECT d.attempt + 1, d.key, m.expires_at, m.content_type, m.metadata, m.data FROM pubsub_deliveries d "
    "LEFT JOIN pubsub_messages m ON m.id = d.message_id WHERE d.message_id = ? AND d.group_id = ?"
)
_LEASE = (
    "UPDATE pubsub_deliveries SET state = 2, holder = ?, due = ?, attempt = attempt + 1 "
    "WHERE message_id = ? AND group_id = ?"
)
# Attempts tell two leases of one consumer on one message apart.
_CHECK = (
    "SELECT 1 FROM pubsub_deliveries WHERE message_id = ? AND group_id = ? AND state = 2 AND holder = ? AND attempt = ?"
)
_EXTEND = (
    "UPDATE pubsub_deliveries SET due = ? "
    "WHERE message_id = ? AND group_id = ? AND state = 2 AND holder = ? AND attempt = ?"
)
_RETRY = (
    "UPDATE pubsub_deliveries SET holder = NULL, due = ? "
    "WHERE message_id = ? AND group_id = ? AND state = 2 AND holder = ? AND attempt = ?"
)
_UNCOUNT = "UPDATE pubsub_deliveries SET attempt = attempt - 1 WHERE message_id = ? AND group_id = ?"
_LAG = (
    "SELECT count(*) FROM pubsub_deliveries WHERE group_id = ? AND (state IN (0, 1) OR (state = 2 AND holder IS NULL))"
)

_decode_metadata = msgspec.json.Decoder(dict[str, str]).decode


class Taken(NamedTuple):
    """The handle of a delivery: which message, and which of its leases."""

    message: int
    attempt: int


class Verdict(NamedTuple):
    """What becomes of a delivery: done, or, with `retry`, again after so many milliseconds."""

    taken: Taken
    key: str | None
    retry: int | None = None


class Queue(NamedTuple):
    """One consumer's view of its group. `holder` is its number, unlike any other; `lease` is milliseconds."""

    group: int
    topic: str
    ordering: Ordering
    holder: int
    lease: int

    def look(self, connection: sqlite3.Connection, lanes: Iterable[str]) -> tuple[bool, int | None]:
        """Tell whether `take` may find something, and if not, when time alone could change that. Writes nothing.

        `lanes` are the keys of messages that this consumer holds.
        """
        row = connection.execute(_NEXT_DUE, (self.group,)).fetchone()
        due = None if row is None else int(row[0])
        if due is not None and due <= now_ms():
            return True, None
        return bool(self._choose(connection, 1, lanes)), due

    def take(self, connection: sqlite3.Connection, count: int, lanes: Iterable[str]) -> list[Delivery]:
        """Lease up to `count` messages, in the order of publication. Expired ones met on the way are deleted."""
        now = now_ms()
        for message, key in connection.execute(_DUE, (self.group, now, DUE_ROWS)).fetchall():
            line_up(connection, self.group, message, key)
        size = 0
        expired: set[str] = set()
        taken: list[Delivery] = []
        for message in self._choose(connection, count, lanes):
            attempt, key, expires, content_type, metadata, data = connection.execute(
                _FETCH, (message, self.group)
            ).fetchone()
            if data is None or (expires is not None and expires <= now):
                settle_row(connection, self.group, message)
                if key is not None:
                    expired.add(key)
                continue
            connection.execute(_LEASE, (self.holder, now + self.lease, message, self.group))
            attributes = _decode_metadata(metadata) if metadata else {}
            taken.append(Delivery(Taken(message, attempt), self.topic, data, attributes, content_type, key, attempt))
            size += len(data)
            if size >= TAKE_BYTES:
                break
        for key in expired:
            advance(connection, self.group, key)
        return taken

    def settle(self, connection: sqlite3.Connection, verdicts: Sequence[Verdict]) -> int:
        """Apply verdicts and return how many came too late, because the message was no longer this consumer's."""
        lost = 0
        lanes: set[str] = set()
        for (message, attempt), key, retry in verdicts:
            own = (message, self.group, self.holder, attempt)
            if retry is not None and retry > 0:
                lost += connection.execute(_RETRY, (now_ms() + retry, *own)).rowcount == 0
            elif connection.execute(_CHECK, own).fetchone() is None:
                lost += 1
            elif retry is not None:
                line_up(connection, self.group, message, key)
            else:
                settle_row(connection, self.group, message)
                if key is not None:
                    lanes.add(key)
        for key in lanes:
            advance(connection, self.group, key)
        return lost

    def extend(self, connection: sqlite3.Connection, taken: Sequence[Taken]) -> list[Taken]:
        """Renew leases and return those that were lost."""
        due = now_ms() + self.lease
        return [
            item
            for item in taken
            if connection.execute(_EXTEND, (due, item.message, self.group, self.holder, item.attempt)).rowcount == 0
        ]

    def hand_back(
        self, connection: sqlite3.Connection, unstarted: Sequence[Verdict], started: Sequence[Verdict] = ()
    ) -> None:
        """Let others take messages now; the `unstarted` ones as if they had not been delivered."""
        for (message, attempt), key, _ in unstarted:
            if connection.execute(_CHECK, (message, self.group, self.holder, attempt)).fetchone():
                connection.execute(_UNCOUNT, (message, self.group))
                line_up(connection, self.group, message, key)
        for (message, attempt), key, _ in started:
            if connection.execute(_CHECK, (message, self.group, self.holder, attempt)).fetchone():
                line_up(connection, self.group, message, key)

    def lag(self, connection: sqlite3.Connection) -> int:
        """Return how many messages wait, those waiting for a retry included."""
        return int(connection.execute(_LAG, (self.group,)).fetchone()[0])

    def _choose(self, connection: sqlite3.Connection, count: int, lanes: Iterable[str]) -> list[int]:
        if self.ordering is Ordering.KEY:
            return self._choose_by_key(connection, count, lanes)
        if self.ordering is Ordering.ALL and connection.execute(_HELD_ELSEWHERE, (self.group, self.holder)).fetchone():
            return []
        found = [
            message
            for state in (0, 1)
            for (message,) in connection.execute(_IN_STATE, (self.group, state, count)).fetchall()
        ]
        found.sort()
        if self.ordering is Ordering.ALL and found:
            (last,) = connection.execute(_LAST_HELD, (self.group,)).fetchone()
            if last is not None and last > found[0]:
                return []
        return found[:count]

    def _choose_by_key(self, connection: sqlite3.Connection, count: int, lanes: Iterable[str]) -> list[int]:
        """Choose the first message of each free key, and, where room is left, what follows on keys held here.

        What several consumers hold of one key at once is always held by one of them, and is the beginning of it.
        """
        heads = connection.execute(_HEADS, (self.group, count)).fetchall()
        found = [message for message, _ in heads]
        room = count - len(found)
        if room <= 0:
            return found
        fresh = {key for _, key in heads if key is not None}
        followers: list[int] = []
        for key in [*fresh, *(lane for lane in lanes if lane not in fresh)][:LANES]:
            followers += self._followers(connection, key, room, first=key in fresh)
        followers.sort()
        return sorted(found + followers[:room])

    def _followers(self, connection: sqlite3.Connection, key: str, count: int, *, first: bool) -> list[int]:
        """Return what comes next on a key of which this consumer has all that is taken; with `first`, takes now."""
        last, others = connection.execute(_HELD_OF_LANE, (self.holder, self.group, key)).fetchone()
        if others or (not first and connection.execute(_HAS_READY, (self.group, key)).fetchone()):
            return []
        rows = connection.execute(_BLOCKED_OF_LANE, (self.group, key, count)).fetchall()
        # An earlier message that comes back, from a delay or an unordered consumer, waits until later ones are done.
        return [] if rows and last is not None and last > rows[0][0] else [message for (message,) in rows]
