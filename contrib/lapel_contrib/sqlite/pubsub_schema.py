"""The tables of pubsub.sqlite, and how messages get into them and out of them again.

`pubsub_messages` holds each message once. `pubsub_deliveries` has a row for each message and each group that has not
settled it, made when the message is published; the last one to go takes the message with it. A row for each group,
rather than a cursor and a list of exceptions, costs one insert more and makes taking, delay, retry, order and
expiry of a message local to one row.

A delivery is in one of four states, and an index lists each state of each group in the order of publication:

* READY: may be taken.
* BLOCKED: has a key, and an earlier message of that key is still there. Only READY rows need to be looked at to
  find the heads of all keys, however many messages wait behind them.
* HELD: leased by `holder` until `due`, or, without a holder, waiting for its retry until then.
* SCHEDULED: published with a delay, and not in line before `due`.

The messages of one key in one group are a lane. Its first row, scheduled ones aside, is never BLOCKED, and no other
row of it is READY. Unordered consumers take BLOCKED rows as well. Times are milliseconds since 1970, by the wall clock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple

from lapel.errors import StorageError

__all__ = [
    "BLOCKED",
    "HELD",
    "READY",
    "SCHEDULED",
    "Entry",
    "advance",
    "create",
    "forget_groups",
    "has_garbage",
    "line_up",
    "now_ms",
    "publish",
    "register",
    "remove_expired",
    "settle_row",
    "touch",
]

READY, BLOCKED, HELD, SCHEDULED = range(4)

# AUTOINCREMENT: no number is used again, so that a late settlement cannot hit another message.
_DEFINITIONS = (
    """
CREATE TABLE IF NOT EXISTS pubsub_groups (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  topic TEXT NOT NULL,
  name TEXT NOT NULL,
  seen_at INTEGER NOT NULL,
  UNIQUE (topic, name)
)
""",
    """
CREATE TABLE IF NOT EXISTS pubsub_messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  expires_at INTEGER,
  content_type TEXT,
  metadata TEXT,
  data BLOB NOT NULL
)
""",
    """
CREATE TABLE IF NOT EXISTS pubsub_deliveries (
  message_id INTEGER NOT NULL,
  group_id INTEGER NOT NULL,
  state INTEGER NOT NULL,
  key TEXT,
  due INTEGER,
  attempt INTEGER NOT NULL DEFAULT 0,
  holder INTEGER,
  PRIMARY KEY (message_id, group_id)
) WITHOUT ROWID
""",
)
_COLUMNS = {
    "pubsub_groups": {"id", "topic", "name", "seen_at"},
    "pubsub_messages": {"id", "expires_at", "content_type", "metadata", "data"},
    "pubsub_deliveries": {"message_id", "group_id", "state", "key", "due", "attempt", "holder"},
}
_INDEXES = """
CREATE INDEX IF NOT EXISTS pubsub_deliveries_queue ON pubsub_deliveries (group_id, state, message_id);
CREATE INDEX IF NOT EXISTS pubsub_deliveries_lane ON pubsub_deliveries (group_id, key, state, message_id)
  WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS pubsub_deliveries_due ON pubsub_deliveries (group_id, due) WHERE state >= 2;
CREATE INDEX IF NOT EXISTS pubsub_messages_expiry ON pubsub_messages (expires_at) WHERE expires_at IS NOT NULL
"""

_ADD_MESSAGE = "INSERT INTO pubsub_messages (expires_at, content_type, metadata, data) VALUES (?, ?, ?, ?)"
_ADD_DELIVERY = "INSERT INTO pubsub_deliveries (message_id, group_id, state, key, due) VALUES (?, ?, ?, ?, ?)"
_IN_LANE = "SELECT 1 FROM pubsub_deliveries WHERE group_id = ? AND key = ? AND state < 3 LIMIT 1"
_EARLIER = (
    "SELECT 1 FROM pubsub_deliveries WHERE group_id = ? AND key = ? AND state IN (0, 1, 2) AND message_id < ? LIMIT 1"
)
_FIRST_BLOCKED = "SELECT min(message_id) FROM pubsub_deliveries WHERE group_id = ? AND key = ? AND state = 1"
_DEMOTE = "UPDATE pubsub_deliveries SET state = 1 WHERE group_id = ? AND key = ? AND state = 0 AND message_id > ?"
_LINE_UP = "UPDATE pubsub_deliveries SET state = ?, due = NULL, holder = NULL WHERE message_id = ? AND group_id = ?"
_DROP_MESSAGE = (
    "DELETE FROM pubsub_messages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM pubsub_deliveries WHERE message_id = ?1)"
)
_EXPIRED = (
    "SELECT m.id FROM pubsub_messages m WHERE m.expires_at <= ?1 AND NOT EXISTS (SELECT 1 FROM pubsub_deliveries d "
    "WHERE d.message_id = m.id AND d.state = 2 AND d.holder IS NOT NULL AND d.due > ?1) ORDER BY m.expires_at LIMIT ?2"
)
_IDLE_GROUPS = "SELECT id FROM pubsub_groups WHERE seen_at <= ?"


class Entry(NamedTuple):
    """A message to publish; `ttl`, `delay` and `retention` are milliseconds, None for none."""

    data: bytes
    key: str | None
    content_type: str | None
    metadata: str | None
    ttl: int | None
    delay: int | None
    retention: int | None


def now_ms() -> int:
    """Return the wall clock."""
    return time.time_ns() // 1_000_000


def create(connection: sqlite3.Connection) -> None:
    """Create what is missing. Raises `StorageError` when tables of these names hold something else."""
    for definition in _DEFINITIONS:
        connection.execute(definition)
    for table, columns in _COLUMNS.items():
        found = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
        if found != columns:
            raise StorageError(f"table {table!r} exists and is not one of pubsub.sqlite; use another database file")
    for index in _INDEXES.split(";"):
        connection.execute(index)


def register(connection: sqlite3.Connection, topic: str, name: str) -> int:
    """Return the number of a group; a new one gets what is published from now on."""
    connection.execute(
        "INSERT INTO pubsub_groups (topic, name, seen_at) VALUES (?, ?, ?) "
        "ON CONFLICT (topic, name) DO UPDATE SET seen_at = excluded.seen_at",
        (topic, name, now_ms()),
    )
    row = connection.execute("SELECT id FROM pubsub_groups WHERE topic = ? AND name = ?", (topic, name)).fetchone()
    return int(row[0])


def touch(connection: sqlite3.Connection, groups: Sequence[int]) -> list[int]:
    """Note that groups are in use, and return those that no longer exist."""
    now = now_ms()
    update = "UPDATE pubsub_groups SET seen_at = ? WHERE id = ?"
    return [group for group in groups if connection.execute(update, (now, group)).rowcount == 0]


def publish(connection: sqlite3.Connection, topic: str, entries: Sequence[Entry]) -> None:
    """Store messages for every group of the topic; where there is none, nothing needs to be stored."""
    groups = connection.execute("SELECT id FROM pubsub_groups WHERE topic = ?", (topic,)).fetchall()
    if not groups:
        return
    now = now_ms()
    for entry in entries:
        expires = None if entry.retention is None else now + (entry.delay or 0) + entry.retention
        if entry.ttl is not None:
            expires = now + entry.ttl if expires is None else min(expires, now + entry.ttl)
        values = (expires, entry.content_type, entry.metadata, entry.data)
        message = connection.execute(_ADD_MESSAGE, values).lastrowid
        due = now + entry.delay if entry.delay else None
        for (group,) in groups:
            if due is not None:
                state = SCHEDULED
            elif entry.key is not None and connection.execute(_IN_LANE, (group, entry.key)).fetchone():
                state = BLOCKED
            else:
                state = READY
            connection.execute(_ADD_DELIVERY, (message, group, state, entry.key, due))


def line_up(connection: sqlite3.Connection, group: int, message: int, key: str | None) -> None:
    """Put a delivery that was held or scheduled into the line, at its place."""
    state = READY
    if key is not None:
        if connection.execute(_EARLIER, (group, key, message)).fetchone():
            state = BLOCKED
        else:
            connection.execute(_DEMOTE, (group, key, message))
    connection.execute(_LINE_UP, (state, message, group))


def advance(connection: sqlite3.Connection, group: int, key: str) -> None:
    """Let the next message of a key be taken, where none before it is left."""
    (first,) = connection.execute(_FIRST_BLOCKED, (group, key)).fetchone()
    if first is not None and connection.execute(_EARLIER, (group, key, first)).fetchone() is None:
        connection.execute(_LINE_UP, (READY, first, group))


def settle_row(connection: sqlite3.Connection, group: int, message: int) -> None:
    """Delete a delivery, and the message when this was its last one. The caller advances the lane."""
    connection.execute("DELETE FROM pubsub_deliveries WHERE message_id = ? AND group_id = ?", (message, group))
    connection.execute(_DROP_MESSAGE, (message,))


def has_garbage(connection: sqlite3.Connection, idle: int | None) -> bool:
    """Tell whether `remove_expired` or `forget_groups` has something to do."""
    now = now_ms()
    if connection.execute(_EXPIRED, (now, 1)).fetchone():
        return True
    return idle is not None and connection.execute(_IDLE_GROUPS, (now - idle,)).fetchone() is not None


def remove_expired(connection: sqlite3.Connection, limit: int) -> int:
    """Delete messages whose time has passed and that no handler has in hands; return how many."""
    expired = connection.execute(_EXPIRED, (now_ms(), limit)).fetchall()
    for (message,) in expired:
        rows = connection.execute("SELECT group_id, key FROM pubsub_deliveries WHERE message_id = ?", (message,))
        lanes = rows.fetchall()
        connection.execute("DELETE FROM pubsub_deliveries WHERE message_id = ?", (message,))
        connection.execute("DELETE FROM pubsub_messages WHERE id = ?", (message,))
        for group, key in lanes:
            if key is not None:
                advance(connection, group, key)
    return len(expired)


def forget_groups(connection: sqlite3.Connection, idle: int, limit: int) -> int:
    """Delete up to `limit` deliveries of groups unused for `idle` milliseconds, and groups that have none left.

    Returns how many rows were deleted; 0 when there is nothing more to do.
    """
    removed = 0
    for (group,) in connection.execute(_IDLE_GROUPS, (now_ms() - idle,)).fetchall():
        rows = connection.execute(
            "SELECT message_id FROM pubsub_deliveries WHERE group_id = ? LIMIT ?", (group, limit - removed)
        ).fetchall()
        for (message,) in rows:
            settle_row(connection, group, message)
        removed += len(rows)
        if removed >= limit:
            return removed
        connection.execute("DELETE FROM pubsub_groups WHERE id = ?", (group,))
        removed += 1
    return removed
