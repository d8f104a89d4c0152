"""Every field of a Redis component reaches the client, is refused by name, or is listed as without effect."""

from __future__ import annotations

from typing import Any

import pytest

from lapel.errors import ConfigurationError, Problem, SettingsError
from lapel.policy import RetryPolicy
from lapel.secret import Secret
from lapel_contrib.redis.link import connection_arguments
from lapel_contrib.redis.options import QueryIndex
from lapel_contrib.redis.settings import RedisConnectionSettings, RedisStateSettings
from lapel_contrib.redis.tls import make_context

REFUSED = [info.name for info in RedisConnectionSettings.fields() if info.refused]
HOST = {"redisHost": "one"}
TLS = {**HOST, "enableTLS": "true"}

REACHES: list[tuple[Any, ...]] = [
    ({}, "hosts", (("one", 6379),)),
    ({"redisPort": "7000"}, "hosts", (("one", 7000),)),
    ({"redisHost": "one:7000"}, "hosts", (("one", 7000),)),
    ({"redisHost": "[::1]:7000"}, "hosts", (("::1", 7000),)),
    ({"redisHost": "one:7000", "redisPort": "7000"}, "hosts", (("one", 7000),)),
    ({"redisHost": "a:1, b", "redisType": "cluster"}, "hosts", (("a", 1), ("b", 6379))),
    ({"redisType": "cluster"}, "mode", "cluster"),
    ({}, "mode", "node"),
    ({"failover": "true", "sentinelMasterName": "m"}, "mode", "sentinel"),
    ({"failover": "true", "sentinelMasterName": "m"}, "sentinel_master", "m"),
    ({"redisUsername": "u", "redisPassword": "p"}, "username", "u"),
    ({"redisPassword": "p"}, "password", Secret("p")),
    ({"sentinelUsername": "u", "sentinelPassword": "p"}, "sentinel_username", "u"),
    ({"sentinelPassword": "p"}, "sentinel_password", Secret("p")),
    ({"redisDB": "3"}, "database", 3),
    ({"enableTLS": "true"}, "tls", True),
    ({"enableTLS": "true", "insecureSkipTLSVerify": "true"}, "skip_verify", True),
    ({"enableTLS": "true", "clientCert": "c", "clientKey": "k"}, "client_cert", "c"),
    ({"enableTLS": "true", "clientCert": "c", "clientKey": "k"}, "client_key", Secret("k")),
    ({}, "dial_timeout", 5.0),
    ({"dialTimeout": "250"}, "dial_timeout", 0.25),
    ({"dialTimeout": "2s"}, "dial_timeout", 2.0),
    ({}, "read_timeout", 3.0),
    ({"readTimeout": "1500"}, "read_timeout", 1.5),
    ({"readTimeout": "-1"}, "read_timeout", None),
    ({"readTimeout": "-1"}, "patience", 5.0),
    ({"readTimeout": "0"}, "read_timeout", 3.0),
    ({"readTimeout": "9s"}, "patience", 9.0),
    ({"poolSize": "2"}, "pool_size", 2),
    ({"poolTimeout": "700"}, "pool_timeout", 0.7),
    ({"readTimeout": "2s"}, "pool_timeout", 3.0),
    ({"idleTimeout": "1m"}, "idle_timeout", 60.0),
    ({"idleTimeout": "-1"}, "idle_timeout", None),
]

POLICIES: list[tuple[Any, ...]] = [
    ({}, None),
    ({"redisMaxRetries": "5"}, RetryPolicy(max_tries=6)),
    ({"maxRetries": "1"}, RetryPolicy(max_tries=2)),
    ({"redisMaxRetries": "0"}, RetryPolicy(max_tries=1)),
    ({"redisMaxRetries": "-1"}, RetryPolicy(max_tries=1)),
    ({"redisMinRetryInterval": "100"}, RetryPolicy(initial_delay=0.1)),
    ({"redisMinRetryInterval": "5s"}, RetryPolicy(initial_delay=5, maximum_delay=5)),
    ({"redisMinRetryInterval": "-1"}, RetryPolicy(initial_delay=0, maximum_delay=0)),
    ({"redisMaxRetryInterval": "800"}, RetryPolicy(maximum_delay=0.8)),
    ({"redisMaxRetryInterval": "-1"}, RetryPolicy(initial_delay=0, maximum_delay=0)),
    ({"maxRetryBackoff": "200000000"}, RetryPolicy(initial_delay=0.2)),
    ({"maxRetryBackoff": "200000000", "redisMinRetryInterval": "10"}, RetryPolicy(initial_delay=0.01)),
]

WRONG: list[tuple[Any, ...]] = [
    ({"redisHost": ""}, "redisHost", "required"),
    ({"redisHost": "a,b"}, "redisHost", "several hosts"),
    ({"redisHost": "a:b"}, "redisHost", "host:port"),
    ({"redisHost": "::1"}, "redisHost", "square brackets"),
    ({"redisHost": "a:1", "redisPort": "2"}, "redisPort", "names port 1"),
    ({"redisPort": "70000"}, "redisPort", "65535"),
    ({"redisType": "ring"}, "redisType", "cluster"),
    ({"failover": "true"}, "sentinelMasterName", "required"),
    ({"failover": "true", "sentinelMasterName": "m", "redisType": "cluster"}, "failover", "clusters"),
    ({"failover": "maybe"}, "failover", "true"),
    ({"redisUsername": "u"}, "redisPassword", "required"),
    ({"sentinelUsername": "u"}, "sentinelPassword", "required"),
    ({"enableTLS": "true", "clientCert": "c"}, "clientKey", "belong together"),
    ({"enableTLS": "true", "clientKey": "k"}, "clientCert", "belong together"),
    ({"clientCert": "c", "clientKey": "k"}, "enableTLS", "clientCert"),
    ({"insecureSkipTLSVerify": "true"}, "enableTLS", "insecureSkipTLSVerify"),
    ({"dialTimeout": "0"}, "dialTimeout", "1ms"),
    ({"ttlInSeconds": "-2"}, "ttlInSeconds", "-1"),
    ({"queryIndexes": "{}"}, "queryIndexes", "list"),
    ({"queryIndexes": '[{"name": "i", "indexes": []}]'}, "queryIndexes", "no keys"),
    ({"queryIndexes": '[{"name": "i", "indexes": [{"key": "a", "type": "TAG"}]}]'}, "queryIndexes", "NUMERIC"),
    ({"redisHosts": "a"}, "redisHosts", "redisHost"),
]


def parse(**fields: str) -> RedisStateSettings:
    return RedisStateSettings.parse({**HOST, **fields}, component="store", driver="state.redis", warnings=[])


def problems(**fields: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(**fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "option", "expected"),
    REACHES,
)
def test_a_field_reaches_the_client(fields: dict[str, str], option: str, expected: object) -> None:
    assert getattr(parse(**fields).options(), option) == expected


def test_what_redis_py_connects_with() -> None:
    options = parse(redisUsername="u", redisPassword="p", redisDB="3", dialTimeout="250").options()
    arguments = connection_arguments(options, None)
    assert (arguments["username"], arguments["password"], arguments["db"]) == ("u", "p", 3)
    assert arguments["socket_connect_timeout"] == 0.25
    assert arguments["retry"].get_retries() == 0, "redis-py must repeat nothing"


def test_sentinels_get_their_own_log_in_and_a_cluster_no_database() -> None:
    fields = {"failover": "true", "sentinelMasterName": "m", "redisPassword": "p", "redisDB": "3"}
    options = parse(**fields, sentinelUsername="su", sentinelPassword="sp").options()
    arguments = connection_arguments(options, None, sentinel=True)
    assert (arguments["username"], arguments["password"], arguments["db"]) == ("su", "sp", 0)
    assert connection_arguments(options, None)["db"] == 3
    assert connection_arguments(parse(redisType="cluster", redisDB="3").options(), None)["db"] == 0


@pytest.mark.parametrize(
    ("fields", "policy"),
    POLICIES,
)
def test_fields_about_retries_make_the_policy(fields: dict[str, str], policy: RetryPolicy | None) -> None:
    assert parse(**fields).retry_policy == policy


def test_a_long_read_timeout_lengthens_the_deadline_of_calls() -> None:
    assert parse().call_timeout is None
    assert parse(readTimeout="20s").call_timeout == 21


@pytest.mark.parametrize("field", ["writeTimeout", "minIdleConns", "maxConnAge", "idleCheckFrequency"])
def test_a_knob_without_meaning_here_is_a_warning(field: str) -> None:
    warnings: list[Problem] = []
    RedisStateSettings.parse({**HOST, field: "5"}, warnings=warnings)
    assert [(warning.field, warning.warning) for warning in warnings] == [(field, True)]


@pytest.mark.parametrize("field", ["useEntraID", "useAzureAD", "useOIDC", *REFUSED])
def test_a_log_in_that_is_not_supported_is_refused_by_name(field: str) -> None:
    text = problems(**{field: "true"})
    assert field in text
    assert "not supported" in text


def test_log_ins_that_are_switched_off_are_no_fault() -> None:
    parse(useEntraID="false", useOIDC="false")


@pytest.mark.parametrize(
    ("fields", "named", "reason"),
    WRONG,
)
def test_what_is_wrong_is_named(fields: dict[str, str], named: str, reason: str) -> None:
    text = problems(**fields)
    assert named in text
    assert reason in text


@pytest.mark.parametrize(("text", "expected"), [("60", 60), ("0", None), ("-1", None)])
def test_default_lifetime(text: str, expected: int | None) -> None:
    from lapel.driver import DriverContext
    from lapel_contrib.redis.state import RedisState

    assert RedisState(parse(ttlInSeconds=text), DriverContext(component="store")).default_ttl == expected


def test_indexes_are_read() -> None:
    text = '[{"name": "orders", "indexes": [{"key": "a.b", "type": "TEXT"}, {"key": "n", "type": "NUMERIC"}]}]'
    assert parse(queryIndexes=text).indexes == (QueryIndex("orders", (("a.b", "TEXT"), ("n", "NUMERIC"))),)


def test_components_with_the_same_connection_share_whatever_else_differs() -> None:
    assert parse(ttlInSeconds="5", redisMaxRetries="1").options() == parse().options()
    assert hash(parse(redisPassword="p").options()) == hash(parse(redisPassword="p").options())
    assert parse(redisPassword="p").options() != parse(redisPassword="q").options()
    assert parse(redisDB="1").options() != parse().options()


def test_no_secret_is_shown() -> None:
    settings = parse(**TLS, redisPassword="hunter2", clientCert="c", clientKey="hunter3")
    assert "hunter" not in f"{settings!r} {settings.options()!r}"


async def test_tls_verifies_the_server_unless_told_otherwise() -> None:
    strict, lenient = make_context(parse(**TLS).options()), None
    assert strict is not None
    assert strict.check_hostname
    lenient = make_context(parse(**TLS, insecureSkipTLSVerify="true").options())
    assert lenient is not None
    assert not lenient.check_hostname
    assert make_context(parse().options()) is None


def test_a_certificate_that_is_none_is_named_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match=r"clientCert.*clientKey") as caught:
        make_context(parse(**TLS, clientCert="not PEM", clientKey="hunter3").options())
    assert caught.value.__cause__ is None
    assert "hunter3" not in str(caught.value)


def test_no_field_is_left_untested() -> None:
    untested = {info.name for info in RedisConnectionSettings.fields() if not info.refused and not info.ignored}
    for given, *_ in [*REACHES, *POLICIES, *WRONG]:
        untested -= set(given)
    assert untested - {"redisHost"} == {"useEntraID", "useOIDC"}, "these two have a test of their own"
