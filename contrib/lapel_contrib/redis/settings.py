"""Settings of the Redis components."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from lapel.policy import RetryPolicy
from lapel.settings import Secret, Settings, setting
from lapel.state.settings import StateSettings

from .options import QueryIndex, RedisOptions, parse_host, parse_indexes

__all__ = ["RedisConnectionSettings", "RedisStateSettings"]

_NEVER = timedelta(milliseconds=-1)
_PORT = 6379
_READ_TIMEOUT = timedelta(seconds=3)
_NO_ENTRA = "Entra ID log-in is not supported; use redisUsername and redisPassword"
_NO_OIDC = "OIDC log-in is not supported; use redisUsername and redisPassword"


def _refused(name: str, reason: str, *aliases: str) -> Any:
    return setting(name, aliases=aliases, refused=reason)


class RedisConnectionSettings(Settings):
    """Fields of every Redis component: where the server is, how to log in, how long to wait.

    Bare numbers in durations are milliseconds. The fields about retries set the retry policy of the component; the
    client itself repeats nothing.
    """

    hosts: tuple[str, ...] = setting(
        "redisHost",
        doc="`host` or `host:port`; for a cluster, or for sentinels with `failover`, several separated by commas.",
        example="localhost:6379",
    )
    port: int | None = setting(
        "redisPort", default=None, minimum=1, maximum=65535, doc="Port of the hosts that name none; 6379 if not given."
    )
    username: str | None = setting("redisUsername", default=None, doc="ACL user; the default user if not given.")
    password: Secret | None = setting("redisPassword", default=None, doc="Password of the user.")
    sentinel_username: str | None = setting("sentinelUsername", default=None, doc="ACL user at the sentinels.")
    sentinel_password: Secret | None = setting("sentinelPassword", default=None, doc="Password at the sentinels.")
    database: int = setting("redisDB", default=0, minimum=0, doc="Number of the database; a cluster has only 0.")
    type: str = setting(
        "redisType", default="node", choices=("node", "cluster"), doc="Whether the hosts are nodes of a cluster."
    )
    failover: bool = setting(
        "failover", default=False, doc="The hosts are sentinels, which are asked for the address of the primary."
    )
    sentinel_master: str | None = setting(
        "sentinelMasterName", default=None, doc="Name of the primary at the sentinels. Required with `failover`."
    )
    tls: bool = setting("enableTLS", default=False, doc="Encrypt, and verify the server against the system's roots.")
    skip_verify: bool = setting(
        "insecureSkipTLSVerify",
        default=False,
        doc="Accept any certificate of the server. Whoever can answer in its place can read everything.",
    )
    client_cert: str | None = setting("clientCert", default=None, doc="Certificate to show to the server, as PEM text.")
    client_key: Secret | None = setting("clientKey", default=None, doc="Private key of the certificate, as PEM text.")
    max_retries: int | None = setting(
        "redisMaxRetries",
        aliases=("maxRetries",),
        default=None,
        minimum=-1,
        doc="How often a read or a conditional write is repeated after a failure; 0 and -1: never. 2 if not given.",
    )
    min_retry_interval: timedelta | None = setting(
        "redisMinRetryInterval",
        default=None,
        unit="ms",
        minimum=_NEVER,
        doc="Pause before the first repetition, doubled for each further one; -1: none. 50ms if not given.",
    )
    max_retry_backoff: int | None = setting(
        "maxRetryBackoff",
        default=None,
        minimum=-1,
        deprecated="use redisMinRetryInterval, which it stands for (in nanoseconds) when that is not given",
        doc="The least pause in nanoseconds.",
    )
    max_retry_interval: timedelta | None = setting(
        "redisMaxRetryInterval",
        default=None,
        unit="ms",
        minimum=_NEVER,
        doc="Longest pause between repetitions; -1: no pause at all. 2s if not given.",
    )
    dial_timeout: timedelta = setting(
        "dialTimeout",
        default=timedelta(seconds=5),
        unit="ms",
        minimum=timedelta(milliseconds=1),
        doc="How long connecting and logging in may take.",
    )
    read_timeout: timedelta = setting(
        "readTimeout",
        default=_READ_TIMEOUT,
        unit="ms",
        minimum=_NEVER,
        doc="How long the server may take to answer before the connection is given up; 0: the default. -1: as long as "
        "the operation may take, but 5s on the connection that all share, where a call never takes long.",
    )
    write_timeout: timedelta | None = setting(
        "writeTimeout",
        ignored="readTimeout runs from the moment a request is handed to the system, so it covers sending too",
    )
    pool_size: int = setting(
        "poolSize",
        default=10,
        minimum=1,
        doc="Most connections to one server for large values, listings, queries and waiting for replicas. All other "
        "commands share one more.",
    )
    pool_timeout: timedelta | None = setting(
        "poolTimeout",
        default=None,
        unit="ms",
        minimum=timedelta(milliseconds=1),
        doc="How long a call waits for one of these connections; readTimeout and a second if not given.",
    )
    idle_timeout: timedelta = setting(
        "idleTimeout",
        default=timedelta(minutes=5),
        unit="ms",
        minimum=_NEVER,
        doc="A connection of the pool that was not used for so long is replaced by a new one; -1: never.",
    )
    min_idle: int | None = setting("minIdleConns", ignored="connections are opened when they are needed")
    max_age: timedelta | None = setting(
        "maxConnAge", ignored="connections do not wear out; log-in data are set once, and idle ones go by idleTimeout"
    )
    idle_check: timedelta | None = setting(
        "idleCheckFrequency", ignored="idle connections are looked at when one is needed"
    )
    use_entra: bool = setting(
        "useEntraID", aliases=("useAzureAD",), default=False, doc="Only `false`: Entra ID log-in is not supported."
    )
    use_oidc: bool = setting("useOIDC", default=False, doc="Only `false`: OIDC log-in is not supported.")
    oidc_token_endpoint: str | None = _refused("oidcTokenEndpoint", _NO_OIDC)
    oidc_client_id: str | None = _refused("oidcClientID", _NO_OIDC)
    oidc_client_cert: str | None = _refused("oidcClientAssertionCert", _NO_OIDC)
    oidc_client_key: Secret | None = _refused("oidcClientAssertionKey", _NO_OIDC)
    oidc_scopes: str | None = _refused("oidcScopes", _NO_OIDC)
    oidc_resource: str | None = _refused("oidcResource", _NO_OIDC)
    oidc_audience: str | None = _refused("oidcAudience", _NO_OIDC)
    oidc_kid: str | None = _refused("oidcKid", _NO_OIDC)
    oidc_ca_cert: str | None = _refused("oidcCACert", _NO_OIDC)
    azure_client_id: str | None = _refused("azureClientId", _NO_ENTRA, "spnClientId")
    azure_tenant_id: str | None = _refused("azureTenantId", _NO_ENTRA, "spnTenantId")
    azure_client_secret: Secret | None = _refused("azureClientSecret", _NO_ENTRA, "spnClientSecret")
    azure_certificate: Secret | None = _refused("azureCertificate", _NO_ENTRA, "spnCertificate")
    azure_certificate_file: str | None = _refused("azureCertificateFile", _NO_ENTRA, "spnCertificateFile")
    azure_certificate_password: Secret | None = _refused(
        "azureCertificatePassword", _NO_ENTRA, "spnCertificatePassword"
    )
    azure_environment: str | None = _refused("azureEnvironment", _NO_ENTRA, "azureCloud")
    azure_auth_methods: str | None = _refused("azureAuthMethods", _NO_ENTRA)

    def options(self) -> RedisOptions:
        """Return what a client is made of. Components with equal options share one."""
        port = self.port or _PORT
        pool_timeout = self.pool_timeout
        read = None if self.read_timeout < timedelta(0) else (self.read_timeout or _READ_TIMEOUT).total_seconds()
        idle = None if self.idle_timeout < timedelta(0) else self.idle_timeout.total_seconds()
        return RedisOptions(
            hosts=tuple(parse_host(host, port) for host in self.hosts),
            mode="sentinel" if self.failover else "cluster" if self.type == "cluster" else "node",
            username=self.username,
            password=self.password,
            sentinel_master=self.sentinel_master,
            sentinel_username=self.sentinel_username,
            sentinel_password=self.sentinel_password,
            database=self.database,
            tls=self.tls,
            skip_verify=self.skip_verify,
            client_cert=self.client_cert,
            client_key=self.client_key,
            dial_timeout=self.dial_timeout.total_seconds(),
            read_timeout=read,
            pool_size=self.pool_size,
            pool_timeout=(read or 3.0) + 1.0 if pool_timeout is None else pool_timeout.total_seconds(),
            idle_timeout=idle,
        )

    @property
    def call_timeout(self) -> float | None:
        """The deadline of a call in seconds: a second more than readTimeout where that exceeds the default of 5 s."""
        seconds = self.read_timeout.total_seconds() + 1.0
        return seconds if seconds > 5.0 else None

    @property
    def retry_policy(self) -> RetryPolicy | None:
        """The policy that the fields about retries ask for; None when none of them is given."""
        first = self.min_retry_interval
        if first is None and self.max_retry_backoff is not None:
            first = timedelta(microseconds=self.max_retry_backoff / 1000)
        if self.max_retries is None and first is None and self.max_retry_interval is None:
            return None
        default = RetryPolicy()
        longest = self.max_retry_interval
        if longest is not None and longest < timedelta(0):
            first = longest
        initial = default.initial_delay if first is None else max(0.0, first.total_seconds())
        maximum = max(default.maximum_delay, initial) if longest is None else max(0.0, longest.total_seconds())
        return RetryPolicy(
            max_tries=default.max_tries if self.max_retries is None else 1 + max(0, self.max_retries),
            initial_delay=initial,
            maximum_delay=maximum if initial else 0.0,
        )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields taken together."""
        yield from super().check()
        if not self.hosts:
            yield "redisHost", "names no host"
        for host in self.hosts:
            try:
                _, port = parse_host(host, self.port or _PORT)
            except ValueError as exc:
                yield "redisHost", str(exc)
                continue
            if self.port is not None and port != self.port:
                yield "redisPort", f"is {self.port}, but a host of redisHost names port {port}"
        if self.type == "node" and not self.failover and len(self.hosts) > 1:
            yield "redisHost", "names several hosts; set redisType to cluster, or failover with sentinelMasterName"
        if self.type == "cluster" and self.failover:
            yield "failover", "sentinels are not for clusters, which fail over by themselves; remove one of the two"
        if self.failover and not self.sentinel_master:
            yield "sentinelMasterName", "is required with failover"
        if self.username is not None and self.password is None:
            yield "redisPassword", "is required with redisUsername"
        if self.sentinel_username is not None and self.sentinel_password is None:
            yield "sentinelPassword", "is required with sentinelUsername"
        yield from self._check_security()

    def _check_security(self) -> Iterable[tuple[str, str]]:
        if (self.client_cert is None) != (self.client_key is None):
            missing = "clientKey" if self.client_key is None else "clientCert"
            yield missing, "is missing: clientCert and clientKey belong together"
        if not self.tls and (self.client_cert is not None or self.skip_verify):
            given = "clientCert" if self.client_cert is not None else "insecureSkipTLSVerify"
            yield "enableTLS", f"must be true for {given} to have an effect"
        if self.use_entra:
            yield "useEntraID", _NO_ENTRA
        if self.use_oidc:
            yield "useOIDC", _NO_OIDC


class RedisStateSettings(RedisConnectionSettings, StateSettings):
    """Settings of state.redis."""

    ttl_in_seconds: int | None = setting(
        "ttlInSeconds",
        default=None,
        minimum=-1,
        maximum=2**31 - 1,
        doc="Lifetime in seconds of writes that name none; 0 and -1: for ever.",
    )
    query_indexes: Any = setting(
        "queryIndexes",
        default=None,
        doc="Indexes for queries, as a JSON list of objects with `name` and `indexes`, a list of objects with `key` (a "
        "path) and `type` (TEXT or NUMERIC). With it, JSON values are stored as documents.",
        example='[{"name": "orders", "indexes": [{"key": "customer.name", "type": "TEXT"}]}]',
    )

    @property
    def indexes(self) -> tuple[QueryIndex, ...]:
        """The indexes that `queryIndexes` describes."""
        return parse_indexes(self.query_indexes)

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the connection and the indexes."""
        yield from super().check()
        try:
            parse_indexes(self.query_indexes)
        except ValueError as exc:
            yield "queryIndexes", str(exc)
