"""Logs of a host: text for people, or one JSON object a line for machines."""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from typing import Any

import msgspec

__all__ = ["JsonFormatter", "RecentProblems", "configure_logging"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LEVELS = {"WARNING": "warning", "CRITICAL": "fatal"}


class JsonFormatter(logging.Formatter):
    """Writes a record as Dapr does: `time`, `level`, `msg`, `scope`, `app_id`, `type`; and `error` for a traceback."""

    def __init__(self, app_id: str | None) -> None:
        super().__init__()
        self._app_id = app_id or ""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": _LEVELS.get(record.levelname, record.levelname.lower()),
            "msg": record.getMessage(),
            "scope": record.name,
            "app_id": self._app_id,
            "type": "log",
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


class RecentProblems(logging.Handler):
    """Keeps the last warnings and errors of lapel, for the status page."""

    def __init__(self, most: int = 50) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[dict[str, str]] = deque(maxlen=most)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record, without its traceback."""
        self._kept.append(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="seconds"),
                "level": record.levelname.lower(),
                "scope": record.name,
                "text": record.getMessage(),
            }
        )

    def entries(self) -> list[dict[str, str]]:
        """Return what is kept, the newest first."""
        return list(reversed(self._kept))


def configure_logging(level: str, *, as_json: bool = False, app_id: str | None = None) -> None:
    """Send everything from `level` on to stderr. For programs; a library must not."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(app_id) if as_json else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # That the server comes and goes is said by the host.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # It reports each change of a watched folder; in a log that is written there, that is a change again.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
