"""Settings of crypto.dapr.jwks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from lapel.settings import Secret, Settings, setting
from lapel_contrib.http.settings import url_problem

__all__ = ["JwksSettings", "is_url"]

_TIMEOUT = timedelta(seconds=30)
_INTERVAL = timedelta(minutes=10)


class JwksSettings(Settings):
    """Settings of crypto.dapr.jwks."""

    jwks: Secret = setting(
        "jwks",
        doc="The key set: an `http` or `https` URL, the path of an existing file, or the JSON itself, plain or in "
        "base64. Never shown, because it may hold private keys.",
        example="https://auth.example.com/.well-known/jwks.json",
    )
    request_timeout: timedelta = setting(
        "requestTimeout",
        default=_TIMEOUT,
        doc="Deadline of one fetch from a URL. Less than 1ms: the default.",
    )
    min_refresh_interval: timedelta = setting(
        "minRefreshInterval",
        default=_INTERVAL,
        doc="A URL is fetched at most once in this time. Less than 1s: the default.",
    )

    @property
    def fetch_seconds(self) -> float:
        """The deadline of one fetch."""
        given = self.request_timeout
        return (given if given >= timedelta(milliseconds=1) else _TIMEOUT).total_seconds()

    @property
    def interval_seconds(self) -> float:
        """The least time between two fetches."""
        given = self.min_refresh_interval
        return (given if given >= timedelta(seconds=1) else _INTERVAL).total_seconds()

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Refuse a URL that no request can go to."""
        text = self.jwks.reveal().strip()
        problem = url_problem(text)[0] if is_url(text) else None
        if problem:
            yield "jwks", problem


def is_url(text: str) -> bool:
    """Tell whether the text is meant as a URL."""
    return text[:8].lower().startswith(("http://", "https://"))
