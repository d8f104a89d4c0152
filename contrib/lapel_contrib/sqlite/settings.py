"""Settings of the SQLite components."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from lapel.errors import ConfigurationError
from lapel.lock.settings import LockSettings
from lapel.pubsub.settings import PubSubSettings
from lapel.settings import ByteSize, Settings, setting
from lapel.state.settings import StateSettings

from .connection import SqliteOptions

__all__ = [
    "TABLE_NAME",
    "SqliteConfigurationSettings",
    "SqliteConnectionSettings",
    "SqliteLockSettings",
    "SqlitePubSubSettings",
    "SqliteStateSettings",
]

TABLE_NAME = r"[A-Za-z0-9_]+"
"""What a table may be called."""

_FIELD = "connectionString"
_LONG_AGO = timedelta(days=-36500)
_SHORTEST_GROUP_EXPIRY = timedelta(minutes=10)


class SqliteConnectionSettings(Settings):
    """Fields of every SQLite component: which database, and how long to wait for it."""

    connection_string: str = setting(
        _FIELD,
        aliases=("url",),
        doc="Path of the database file, a `file:` URI with SQLite's options, or `:memory:` for a private database in "
        "memory. The file is created, its directory is not.",
        example="data.db",
    )
    timeout: timedelta = setting(
        "timeout",
        aliases=("timeoutInSeconds",),
        default=timedelta(seconds=20),
        minimum=timedelta(seconds=1),
        doc="Deadline of each operation.",
    )
    busy_timeout: timedelta = setting(
        "busyTimeout",
        default=timedelta(seconds=2),
        minimum=_LONG_AGO,
        doc="How long to wait for the lock of another process; 0 or less: not at all.",
    )
    disable_wal: bool = setting(
        "disableWAL",
        default=False,
        doc="Use a rollback journal instead of write-ahead logging; slower. Without effect in memory.",
    )

    def options(self) -> SqliteOptions:
        """Return what the engine is opened with. Components with equal options and one file share an engine."""
        return SqliteOptions(
            connection_string=self.connection_string,
            busy_timeout=max(0.0, self.busy_timeout.total_seconds()),
            disable_wal=self.disable_wal,
            concealed="connection_string" in self._hidden,
        )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields of the kind and the connection string."""
        yield from super().check()
        try:
            self.options().target()
        except ConfigurationError as exc:
            secret = "connection_string" in self._hidden
            yield (
                _FIELD,
                "is not a valid connection string" if secret else exc.message.removeprefix(f"field {_FIELD!r} "),
            )


class SqliteStateSettings(SqliteConnectionSettings, StateSettings):
    """Settings of state.sqlite."""

    table_name: str = setting("tableName", default="state", pattern=TABLE_NAME, doc="Table of the items.")
    metadata_table_name: str = setting(
        "metadataTableName",
        default="metadata",
        pattern=TABLE_NAME,
        doc="Table of the layout's version and the time of the last clean-up.",
    )
    cleanup_interval: timedelta = setting(
        "cleanupInterval",
        aliases=("cleanupIntervalInSeconds",),
        default=timedelta(0),
        minimum=_LONG_AGO,
        doc="How often expired rows are removed from the file; 0 or less: never. They are invisible either way.",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the connection string and the names of the tables."""
        yield from super().check()
        if self.table_name.lower() == self.metadata_table_name.lower():
            yield "metadataTableName", "must differ from tableName"
        for field, name in (("tableName", self.table_name), ("metadataTableName", self.metadata_table_name)):
            yield from _reserved(field, name)


class SqliteConfigurationSettings(SqliteConnectionSettings):
    """Settings of configuration.sqlite."""

    table_name: str = setting(
        "tableName",
        default="configuration",
        pattern=TABLE_NAME,
        doc="Table of the items, with the text columns `key`, `value`, `version` and `metadata`. Created if missing.",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the connection string and the name of the table."""
        yield from super().check()
        yield from _reserved("tableName", self.table_name)


class SqliteLockSettings(SqliteConnectionSettings, LockSettings):
    """Settings of lock.sqlite."""

    table_name: str = setting(
        "tableName", default="locks", pattern=TABLE_NAME, doc="Table of the locks. Created if missing."
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the connection string and the name of the table."""
        yield from super().check()
        yield from _reserved("tableName", self.table_name)


class SqlitePubSubSettings(SqliteConnectionSettings, PubSubSettings):
    """Settings of pubsub.sqlite."""

    lease_duration: timedelta = setting(
        "leaseDuration",
        default=timedelta(seconds=30),
        minimum=timedelta(seconds=1),
        doc="How long the messages of a process that died stay its own. Leases of living ones are extended in time.",
    )
    retention: timedelta = setting(
        "retention",
        default=timedelta(days=7),
        doc="How long a message is kept for groups that do not settle it; 0: for ever. A change holds for messages "
        "published after it.",
    )
    group_expiry: timedelta = setting(
        "groupExpiry",
        default=timedelta(0),
        doc="After how long without a subscriber a consumer group is deleted with its messages; 0: never. If not 0, "
        "at least 10 minutes. For consumer ids that are new at every start.",
    )
    max_message_bytes: ByteSize = setting(
        "maxMessageBytes",
        default=ByteSize(16 * 1024 * 1024),
        minimum=ByteSize(1),
        maximum=ByteSize(512 * 1024 * 1024),
        doc="Largest message that may be published.",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the connection string and the times."""
        yield from super().check()
        if timedelta(0) < self.group_expiry < _SHORTEST_GROUP_EXPIRY:
            yield "groupExpiry", "must be 0 or at least 10 minutes; groups in use say so once a minute"


def _reserved(field: str, name: str) -> Iterable[tuple[str, str]]:
    if name.lower().startswith("sqlite_"):
        yield field, "must not start with 'sqlite_', which SQLite keeps for itself"
