"""What a client is made of, once the fields are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lapel.settings import Secret

__all__ = ["ConsumerOptions", "KafkaOptions", "OidcOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcOptions:
    """Where tokens come from. `secret` is for client credentials, `assertion_key` for a signed assertion."""

    endpoint: str
    client_id: str
    scopes: tuple[str, ...]
    secret: Secret | None = None
    assertion_cert: str | None = None
    assertion_key: Secret | None = None
    resource: str | None = None
    audience: str | None = None
    kid: str | None = None
    extensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """How to reach the brokers, how to log in and how to publish. Components with equal options share a producer.

    Times are in seconds, sizes in bytes.
    """

    brokers: tuple[str, ...]
    client_id: str
    tls: bool
    skip_verify: bool
    ca_cert: str | None
    client_cert: str | None
    client_key: Secret | None
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None
    username: str | None
    password: Secret | None
    oidc: OidcOptions | None
    max_message_bytes: int
    compression: str | None
    acks: Literal["all", 1, 0]
    request_timeout: float | None
    metadata_refresh: float
    connection_idle: float | None

    @property
    def place(self) -> str:
        """Names the cluster in error texts."""
        return f"Kafka at {','.join(self.brokers)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """How members of consumer groups behave. Times are in seconds, sizes in bytes."""

    initial_offset: Literal["newest", "oldest"]
    strategy: Literal["range", "roundrobin", "sticky"]
    instance_id: str | None
    session_timeout: float
    heartbeat_interval: float
    retry_pause: float
    fetch_min: int
    fetch_partition: int
    buffer: int
    escape_headers: bool
    exclude_headers: re.Pattern[str] | None = None

    def patience(self, committing: float) -> float:
        """How many seconds handlers have in a rebalance: the group waits for us as long as a session may last."""
        return max(0.3 * self.session_timeout, self.session_timeout - self.heartbeat_interval - committing)
