"""Fields that the Kafka components have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

from lapel.delivery import Backoff
from lapel.settings import ByteSize, Secret, Settings, setting

from .options import ConsumerOptions, KafkaOptions, OidcOptions

__all__ = ["KafkaConnectionSettings"]

AUTH_TYPES = ("none", "password", "mtls", "certificate", "oidc", "oidc_private_key_jwt")
_NO_AWS = "log-in with AWS IAM (authType awsiam) is not supported; use SCRAM or mTLS, which MSK offers as well"
_NO_REGISTRY = "schema registries and Avro are not supported; publish encoded bytes with rawPayload"
_SASL: dict[str, Literal["SCRAM-SHA-256", "SCRAM-SHA-512"]] = {
    "SHA-256": "SCRAM-SHA-256",
    "SHA-512": "SCRAM-SHA-512",
}
_SMALLEST_WAIT = timedelta(milliseconds=1)
_CONSTANT = timedelta(seconds=5)


def _refused(name: str, reason: str, *aliases: str) -> Any:
    return setting(name, aliases=aliases, refused=reason)


class KafkaConnectionSettings(Settings):
    """Where the brokers are, how to log in, how to publish, and how to behave in consumer groups.

    Bare numbers in durations are seconds, but in `consumeRetryInterval` and the `backOff` fields milliseconds.
    """

    brokers: tuple[str, ...] = setting(
        "brokers", doc="`host:port` of one or more brokers, separated by commas.", example="localhost:9092"
    )
    client_id: str = setting("clientID", default="lapel", doc="How this program is called in the broker's logs.")
    auth_type: str | None = setting(
        "authType",
        default=None,
        choices=(*AUTH_TYPES, "awsiam"),
        doc="How to log in. `none`: not at all and unencrypted. `password`: SASL. `mtls`: with a client certificate. "
        "`certificate`: not at all, but encrypted and with the broker's certificate verified. `oidc`: with tokens for "
        "client id and secret. `oidc_private_key_jwt`: with tokens for a signed assertion. Required. All but `none` "
        "encrypt, unless `disableTls` is set.",
    )
    auth_required: bool | None = setting(
        "authRequired",
        default=None,
        deprecated="use authType",
        doc="Without authType: true is `password` when saslPassword is given, else `mtls`; false is `none`.",
    )
    sasl_username: str | None = setting("saslUsername", default=None, doc="User name, for `password`.")
    sasl_password: Secret | None = setting("saslPassword", default=None, doc="Password, for `password`.")
    sasl_mechanism: str | None = setting(
        "saslMechanism",
        default=None,
        choices=("SHA-256", "SHA-512", "PLAINTEXT"),
        doc="SCRAM with that hash, for `password`; PLAINTEXT, or none given, is SASL PLAIN.",
    )
    ca_cert: str | None = setting(
        "caCert", default=None, doc="Authorities that the brokers' certificates are verified against, as PEM text."
    )
    client_cert: str | None = setting("clientCert", default=None, doc="Certificate to show, as PEM text.")
    client_key: Secret | None = setting("clientKey", default=None, doc="Its private key, as PEM text.")
    skip_verify: bool = setting(
        "skipVerify",
        default=False,
        doc="Accept any certificate. Whoever can answer in a broker's place can read everything.",
    )
    disable_tls: bool = setting("disableTls", default=False, doc="Do not encrypt.")
    oidc_token_endpoint: str | None = setting("oidcTokenEndpoint", default=None, doc="URL that hands out tokens.")
    oidc_client_id: str | None = setting("oidcClientID", default=None, doc="Client id at the token endpoint.")
    oidc_client_secret: Secret | None = setting("oidcClientSecret", default=None, doc="Client secret, for `oidc`.")
    oidc_scopes: tuple[str, ...] = setting("oidcScopes", default=("openid",), doc="Scopes to ask for.")
    oidc_extensions: dict[str, str] = setting(
        "oidcExtensions", default={}, doc="Further SASL extensions to send to the broker, as a JSON object of texts."
    )
    oidc_assertion_cert: str | None = setting(
        "oidcClientAssertionCert",
        default=None,
        doc="Certificate of the assertion's key, as PEM text, for `oidc_private_key_jwt`; named by its thumbprint.",
    )
    oidc_assertion_key: Secret | None = setting(
        "oidcClientAssertionKey", default=None, doc="RSA key that signs assertions, as PEM text."
    )
    oidc_resource: str | None = setting("oidcResource", default=None, doc="`resource` to ask a token for.")
    oidc_audience: str | None = setting(
        "oidcAudience", default=None, doc="Audience of assertions; the token endpoint if not given."
    )
    oidc_kid: str | None = setting("oidcKid", default=None, doc="Key id in the header of assertions.")
    region: str | None = _refused("region", _NO_AWS, "awsRegion")
    access_key: Secret | None = _refused("accessKey", _NO_AWS, "awsAccessKey")
    secret_key: Secret | None = _refused("secretKey", _NO_AWS, "awsSecretKey")
    session_token: Secret | None = _refused("sessionToken", _NO_AWS, "awsSessionToken")
    assume_role: str | None = _refused("assumeRoleArn", _NO_AWS, "awsIamRoleArn")
    session_name: str | None = _refused("sessionName", _NO_AWS, "awsStsSessionName")
    trust_anchor: str | None = _refused("trustAnchorArn", _NO_AWS)
    trust_profile: str | None = _refused("trustProfileArn", _NO_AWS)

    max_message_bytes: ByteSize = setting(
        "maxMessageBytes",
        default=ByteSize(1024 * 1024),
        minimum=1024,
        doc="Largest message with key and headers; larger ones are refused. Must not be more than the brokers take "
        "(message.max.bytes).",
    )
    compression: str = setting(
        "compression",
        default="none",
        choices=("none", "gzip", "snappy", "lz4", "zstd"),
        doc="How batches of messages are compressed.",
    )
    required_acks: str = setting(
        "producerRequiredAcks",
        default="all",
        choices=("all", "local", "none"),
        doc="What publishing waits for: all replicas in sync, the leader alone, or nothing. With `all` a message is "
        "stored once, however often the connection breaks; with the others it can be stored twice, or be lost.",
    )
    retry_max: int | None = setting(
        "producerRetryMax",
        ignored="the producer repeats what was not acknowledged until the call's deadline; the broker recognizes "
        "repetitions",
    )
    version: str | None = setting("version", ignored="the version of the protocol is negotiated with the brokers")
    dial_timeout: timedelta | None = setting("dialTimeout", ignored="readTimeout holds for connecting too")
    read_timeout: timedelta | None = setting(
        "readTimeout",
        default=None,
        minimum=_SMALLEST_WAIT,
        doc="After how long without an answer a connection is given up and made anew. 8s if not given.",
    )
    write_timeout: timedelta | None = setting(
        "writeTimeout", ignored="readTimeout runs from the moment a request is handed to the system"
    )
    metadata_timeout: timedelta | None = setting(
        "metadataTimeout", ignored="readTimeout and the call's deadline hold for requests of metadata too"
    )
    metadata_refresh: timedelta = setting(
        "clientConnectionTopicMetadataRefreshInterval",
        default=timedelta(minutes=8),
        minimum=_SMALLEST_WAIT,
        doc="How often topics and partitions are looked up again without a reason.",
    )
    connection_idle: timedelta = setting(
        "clientConnectionKeepAliveInterval",
        default=timedelta(0),
        doc="After how long without use a connection is closed; 0: never.",
    )

    initial_offset: Literal["newest", "oldest"] = setting(
        "initialOffset",
        default="newest",
        choices=("newest", "oldest"),
        doc="Where a new group begins: with what is published from now on, or with the oldest message there is.",
    )
    retry_interval: timedelta = setting(
        "consumeRetryInterval",
        default=timedelta(milliseconds=100),
        unit="ms",
        minimum=_SMALLEST_WAIT,
        doc="Pause before a failed request to a broker is repeated.",
    )
    heartbeat_interval: timedelta = setting(
        "heartbeatInterval",
        default=timedelta(seconds=3),
        minimum=_SMALLEST_WAIT,
        doc="How often a member of a group gives a sign of life; also how long it may take to notice that others join.",
    )
    session_timeout: timedelta = setting(
        "sessionTimeout",
        default=timedelta(seconds=10),
        minimum=_SMALLEST_WAIT,
        doc="After how long without a sign of life the group goes on without a member; also how long a rebalance "
        "waits for members.",
    )
    strategy: Literal["range", "sticky", "roundrobin"] = setting(
        "consumerGroupRebalanceStrategy",
        default="range",
        choices=("range", "sticky", "roundrobin"),
        doc="How partitions are shared out. The same for all members of a group.",
    )
    instance_id: str | None = setting(
        "groupInstanceID",
        default=None,
        doc="Static membership: a name that stays over restarts and that no other member of the group has, such as "
        "that of the pod. A restart within sessionTimeout then causes no rebalance.",
    )
    buffer: int = setting(
        "channelBufferSize",
        default=256,
        minimum=1,
        doc="How many messages of a partition are kept ready beyond those that handlers have.",
    )
    fetch_min: int = setting(
        "consumerFetchMin",
        default=1,
        minimum=1,
        doc="How many bytes a broker gathers, for up to half a second, before it answers.",
    )
    fetch_default: int = setting(
        "consumerFetchDefault",
        default=1024 * 1024,
        minimum=1,
        doc="How many bytes of one partition are fetched at once.",
    )
    escape_headers: bool = setting(
        "escapeHeaders",
        default=False,
        doc="Percent-encode the key and the values of headers in the metadata of received messages.",
    )
    exclude_headers: str | None = setting(
        "excludeHeaderMetaRegex",
        default=None,
        doc="Metadata whose names this regular expression matches, in any place, do not become headers, nor headers "
        "metadata.",
    )
    registry_url: str | None = _refused("schemaRegistryURL", _NO_REGISTRY)
    registry_key: str | None = _refused("schemaRegistryAPIKey", _NO_REGISTRY)
    registry_secret: Secret | None = _refused("schemaRegistryAPISecret", _NO_REGISTRY)
    registry_caching: bool | None = setting("schemaCachingEnabled", ignored=_NO_REGISTRY)
    registry_ttl: timedelta | None = setting("schemaLatestVersionCacheTTL", ignored=_NO_REGISTRY)
    avro_json: bool | None = _refused("useAvroJSON", _NO_REGISTRY)

    backoff_policy: str = setting(
        "backOffPolicy",
        default="constant",
        choices=("constant", "exponential"),
        doc="Whether the pauses between attempts at a message grow.",
    )
    backoff_duration: timedelta = setting(
        "backOffDuration", default=_CONSTANT, unit="ms", doc="The pause, with `constant`."
    )
    backoff_initial: timedelta = setting(
        "backOffInitialInterval",
        default=timedelta(milliseconds=500),
        unit="ms",
        doc="The first pause, with `exponential`.",
    )
    backoff_randomization: float = setting(
        "backOffRandomizationFactor",
        default=0.5,
        minimum=0.0,
        maximum=1.0,
        doc="The share of a pause that is drawn at random, with `exponential`.",
    )
    backoff_multiplier: float = setting(
        "backOffMultiplier", default=1.5, minimum=1.0, doc="What each pause is multiplied by, with `exponential`."
    )
    backoff_maximum: timedelta = setting(
        "backOffMaxInterval",
        default=timedelta(seconds=60),
        unit="ms",
        doc="The longest pause, with `exponential`.",
    )
    backoff_elapsed: timedelta | None = setting(
        "backOffMaxElapsedTime",
        default=None,
        unit="ms",
        doc="With `exponential`: no further attempt once the pauses add up to this; without end if not given.",
    )
    backoff_retries: int = setting(
        "backOffMaxRetries",
        default=-1,
        minimum=-1,
        doc="How often a message is tried again after the first attempt; -1: without end.",
    )

    @property
    def login(self) -> str:
        """The kind of log-in, also where only the older field is given."""
        if self.auth_type is not None:
            return self.auth_type
        if not self.auth_required:
            return "none"
        return "password" if self.sasl_password is not None else "mtls"

    @property
    def backoff(self) -> Backoff:
        """The pauses between attempts that the `backOff` fields ask for."""
        if self.backoff_policy == "constant":
            pause = self.backoff_duration.total_seconds()
            return Backoff(initial=pause, maximum=pause, multiplier=1.0, jitter=0.0)
        first = self.backoff_initial.total_seconds()
        return Backoff(
            initial=first,
            maximum=max(first, self.backoff_maximum.total_seconds()),
            multiplier=self.backoff_multiplier,
            jitter=self.backoff_randomization,
        )

    @property
    def attempts(self) -> int | None:
        """How often a message is tried, as the `backOff` fields have it; None without end."""
        most = None if self.backoff_retries < 0 else 1 + self.backoff_retries
        if self.backoff_policy == "constant" or self.backoff_elapsed is None:
            return most
        left, pause = self.backoff_elapsed.total_seconds(), self.backoff_initial.total_seconds()
        longest, count = self.backoff_maximum.total_seconds(), 1
        while left >= pause and (most is None or count < most):
            if pause <= 0:
                return most
            left -= pause
            count += 1
            pause = min(longest, pause * self.backoff_multiplier)
        return count

    def options(self) -> KafkaOptions:
        """Return what clients are made of."""
        login = self.login
        oidc = None
        if login.startswith("oidc"):
            oidc = OidcOptions(
                endpoint=self.oidc_token_endpoint or "",
                client_id=self.oidc_client_id or "",
                scopes=self.oidc_scopes,
                secret=self.oidc_client_secret if login == "oidc" else None,
                assertion_cert=self.oidc_assertion_cert,
                assertion_key=self.oidc_assertion_key,
                resource=self.oidc_resource,
                audience=self.oidc_audience,
                kid=self.oidc_kid,
                extensions=tuple(sorted(self.oidc_extensions.items())),
            )
        acks: dict[str, Literal["all", 1, 0]] = {"all": "all", "local": 1, "none": 0}
        password = login == "password"
        idle = self.connection_idle.total_seconds()
        return KafkaOptions(
            brokers=self.brokers,
            client_id=self.client_id,
            tls=login != "none" and not self.disable_tls,
            skip_verify=self.skip_verify,
            ca_cert=self.ca_cert,
            client_cert=self.client_cert,
            client_key=self.client_key,
            mechanism=_SASL.get(self.sasl_mechanism or "", "PLAIN") if password else "OAUTHBEARER" if oidc else None,
            username=self.sasl_username if password else None,
            password=self.sasl_password if password else None,
            oidc=oidc,
            max_message_bytes=int(self.max_message_bytes),
            compression=None if self.compression == "none" else self.compression,
            acks=acks[self.required_acks],
            request_timeout=None if self.read_timeout is None else self.read_timeout.total_seconds(),
            metadata_refresh=self.metadata_refresh.total_seconds(),
            connection_idle=idle or None,
        )

    def consumer_options(self) -> ConsumerOptions:
        """Return how members of groups behave."""
        return ConsumerOptions(
            initial_offset=self.initial_offset,
            strategy=self.strategy,
            instance_id=self.instance_id,
            session_timeout=self.session_timeout.total_seconds(),
            heartbeat_interval=self.heartbeat_interval.total_seconds(),
            retry_pause=self.retry_interval.total_seconds(),
            fetch_min=self.fetch_min,
            fetch_partition=max(self.fetch_default, int(self.max_message_bytes)),
            buffer=self.buffer,
            escape_headers=self.escape_headers,
            exclude_headers=None if self.exclude_headers is None else re.compile(self.exclude_headers),
        )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields taken together."""
        yield from super().check()
        if not self.brokers:
            yield "brokers", "names no broker"
        for broker in self.brokers:
            host, colon, port = broker.rpartition(":")
            if colon and not (host and port.isdigit() and 0 < int(port) < 65536):
                yield "brokers", f"{broker!r} is not written as host:port"
        if self.exclude_headers is not None:
            try:
                re.compile(self.exclude_headers)
            except re.error as exc:
                yield "excludeHeaderMetaRegex", f"is not a regular expression: {exc}"
        if self.session_timeout <= self.heartbeat_interval:
            yield "heartbeatInterval", "must be shorter than sessionTimeout; a third of it is usual"
        yield from self._check_login()

    def _check_login(self) -> Iterable[tuple[str, str]]:
        login = self.login
        if self.auth_type is None and self.auth_required is None:
            yield "authType", f"is required; one of {', '.join(AUTH_TYPES)}"
            return
        if login == "awsiam":
            yield "authType", _NO_AWS
        needs: dict[str, tuple[tuple[str, object], ...]] = {
            "password": (("saslUsername", self.sasl_username), ("saslPassword", self.sasl_password)),
            "mtls": (("clientCert", self.client_cert), ("clientKey", self.client_key)),
            "certificate": (("caCert", self.ca_cert or (self.skip_verify or None)),),
            "oidc": (
                ("oidcTokenEndpoint", self.oidc_token_endpoint),
                ("oidcClientID", self.oidc_client_id),
                ("oidcClientSecret", self.oidc_client_secret),
            ),
            "oidc_private_key_jwt": (
                ("oidcTokenEndpoint", self.oidc_token_endpoint),
                ("oidcClientID", self.oidc_client_id),
                ("oidcClientAssertionCert", self.oidc_assertion_cert),
                ("oidcClientAssertionKey", self.oidc_assertion_key),
            ),
        }
        for name, value in needs.get(login, ()):
            if value is None:
                yield name, f"is required with authType {login}"
        if login == "mtls" and self.ca_cert is None and not self.skip_verify:
            yield "caCert", "is required with authType mtls, unless skipVerify is set"
        if login in ("mtls", "certificate") and self.disable_tls:
            yield "disableTls", f"cannot be true with authType {login}, which is nothing without TLS"
        if (self.client_cert is None) != (self.client_key is None):
            yield "clientKey" if self.client_key is None else "clientCert", "is missing: the two belong together"
        unencrypted = login == "none" or self.disable_tls
        given = [
            name
            for name, value in (
                ("caCert", self.ca_cert),
                ("clientCert", self.client_cert),
                ("skipVerify", self.skip_verify or None),
            )
            if value is not None
        ]
        if unencrypted and given:
            what = "authType none" if login == "none" else "disableTls"
            yield given[0], f"has no effect with {what}; use authType certificate or mtls, or remove it"
        for name, value in (("saslUsername", self.sasl_username), ("saslPassword", self.sasl_password)):
            if value is not None and login == "none":
                yield name, "has no effect with authType none; use authType password, or remove it"
