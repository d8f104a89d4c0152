"""Every field of the AWS components reaches the service, is refused by name, or is listed as without effect."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.backends.aws import AwsBackend
from tests.backends.aws_proxy import AwsProxy, Reply, Request, json_error

import lapel
from lapel.descriptor import Capability
from lapel.driver import SharedClients
from lapel.errors import PermissionDeniedError, SettingsError
from lapel_contrib.aws import PARAMETERS, PUBSUB, S3_BINDING, SECRETS, SQS_BINDING
from lapel_contrib.aws.client import AwsClients, _config
from lapel_contrib.aws.component_settings import S3BindingSettings, SecretManagerSettings, SqsBindingSettings
from lapel_contrib.aws.options import AwsOptions
from lapel_contrib.aws.pubsub_settings import SnsSqsSettings
from lapel_contrib.aws.s3_transfer import Bucket

ALL = (SQS_BINDING, S3_BINDING, PUBSUB, SECRETS, PARAMETERS)
NEEDED: dict[str, dict[str, str]] = {"aws.sqs": {"queueName": "q"}, "aws.s3": {"bucket": "b"}}


def here(proxy: AwsProxy, **more: str) -> dict[str, str]:
    return {"endpoint": proxy.url, "region": "eu-west-3", "accessKey": "AKIAHERE", "secretKey": "very secret", **more}


def signed(request: Request) -> str:
    return request.headers["authorization"]


@pytest.mark.parametrize("descriptor", ALL, ids=lambda one: one.name)
@pytest.mark.parametrize("field", ["trustAnchorArn", "trustProfileArn"])
def test_roles_anywhere_is_refused_by_name(descriptor: Any, field: str) -> None:
    with pytest.raises(SettingsError, match=f"{field}.*Roles Anywhere"):
        descriptor.settings_model().parse({**NEEDED.get(descriptor.name, {}), field: "arn:aws:x"})


@pytest.mark.parametrize("descriptor", ALL, ids=lambda one: one.name)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accessKey": "a"}, "go together"),
        ({"secretKey": "a"}, "go together"),
        ({"sessionToken": "a"}, "goes with"),
        ({"endpoint": "ftp://x"}, "not a URL"),
    ],
)
def test_halves_of_credentials_and_bad_endpoints_are_refused(
    descriptor: Any, values: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        descriptor.settings_model().parse({**NEEDED.get(descriptor.name, {}), **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sqsDeadLettersQueueName": "d"}, "go together"),
        ({"messageReceiveLimit": "3"}, "go together"),
        (
            {"sqsDeadLettersQueueName": "d", "messageReceiveLimit": "3", "disableDeleteOnRetryLimit": "true"},
            "contradicts",
        ),
        ({"fifoMessageGroupID": "g"}, "without fifo"),
        ({"messageRetryLimit": "1"}, "messageRetryLimit"),
        ({"messageVisibilityTimeout": "0"}, "messageVisibilityTimeout"),
        ({"messageWaitTimeSeconds": "0"}, "messageWaitTimeSeconds"),
        ({"messageMaxNumber": "11"}, "messageMaxNumber"),
        ({"accountID": "12"}, "accountID"),
        ({"concurrencyMode": "many"}, "concurrencyMode"),
    ],
)
def test_contradictions_of_pubsub_are_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SnsSqsSettings.parse(values)


def test_the_old_names_of_credentials_are_taken() -> None:
    settings = SnsSqsSettings.parse(
        {"awsAccountID": "key", "awsSecret": "secret", "awsRegion": "r", "Endpoint": "http://h"}
    )
    options = settings.options()
    assert options.access_key is not None
    assert options.secret_key is not None
    assert (options.access_key.reveal(), options.secret_key.reveal()) == ("key", "secret")
    assert (options.region, options.endpoint) == ("r", "http://h")


def test_fields_about_giving_up_a_subscription_have_no_effect() -> None:
    problems = SnsSqsSettings.examine({"backOffMaxRetries": "3", "backOffMaxElapsedTime": "1m"})
    assert sorted((problem.field, problem.warning) for problem in problems) == [
        ("backOffMaxElapsedTime", True),
        ("backOffMaxRetries", True),
    ]


@pytest.mark.parametrize(
    ("values", "failures", "least", "most"),
    [
        ({}, 1, 5, 5),
        ({"backOffDuration": "700"}, 9, 0.7, 0.7),
        ({"backOffPolicy": "exponential"}, 1, 0.25, 0.75),
        ({"backOffPolicy": "exponential", "backOffRandomizationFactor": "0"}, 3, 1.125, 1.125),
        (
            {"backOffPolicy": "exponential", "backOffMultiplier": "3", "backOffRandomizationFactor": "0"},
            2,
            1.5,
            1.5,
        ),
        ({"backOffPolicy": "exponential", "backOffInitialInterval": "2s", "backOffMaxInterval": "3s"}, 50, 3, 3),
    ],
)
def test_the_back_off_of_failing_polls_is_as_asked(
    values: dict[str, str], failures: int, least: float, most: float
) -> None:
    assert least <= SnsSqsSettings.parse(values).pause_after(failures) <= most


@pytest.mark.parametrize(
    ("values", "attempts"),
    [
        ({}, 10),
        ({"messageRetryLimit": "4"}, 4),
        ({"disableDeleteOnRetryLimit": "true"}, None),
        ({"sqsDeadLettersQueueName": "d", "messageReceiveLimit": "3"}, None),
    ],
)
async def test_attempts_end_where_the_fields_say(
    aws_proxy: AwsProxy, values: dict[str, str], attempts: int | None
) -> None:
    async with lapel.open_pubsub("aws.snssqs", here(aws_proxy, **values)) as bus:
        assert bus.driver.max_attempts == attempts
        assert (Capability.DEAD_LETTER in bus.capabilities) == ("sqsDeadLettersQueueName" in values)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({"disableSSL": "true", "endpoint": "host:9000"}, ("endpoint", "http://host:9000")),
        ({"endpoint": "host:9000"}, ("endpoint", "https://host:9000")),
        ({"endpoint": "http://host:9000/"}, ("endpoint", "http://host:9000")),
        ({"insecureSSL": "true"}, ("verify", False)),
        ({}, ("verify", True)),
        ({"forcePathStyle": "true"}, ("path_style", True)),
        ({"forcePathStyle": "false"}, ("path_style", False)),
        ({}, ("path_style", None)),
    ],
)
def test_fields_of_s3_shape_its_client(values: dict[str, str], options: tuple[str, Any]) -> None:
    found = S3BindingSettings.parse({"bucket": "b", **values}).options()
    assert getattr(found, options[0]) == options[1]


@pytest.mark.parametrize(
    ("path_style", "endpoint", "style"),
    [
        (True, "http://host", "path"),
        (False, "http://host", "virtual"),
        (None, "http://host", "auto"),
        (True, None, "path"),
        (False, None, "auto"),
        (None, None, "auto"),
    ],
)
def test_the_style_of_addresses_is_what_was_asked_for(
    path_style: bool | None, endpoint: str | None, style: str
) -> None:
    assert _config(AwsOptions(path_style=path_style, endpoint=endpoint)).s3["addressing_style"] == style


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"endpoint": "http://host:9000", "forcePathStyle": "false"}, "http://own.host:9000/k"),
        ({"endpoint": "http://host:9000", "forcePathStyle": "true"}, "http://host:9000/own/k"),
        ({"forcePathStyle": "true"}, "https://s3.eu-west-3.amazonaws.com/own/k"),
    ],
)
async def test_an_address_that_is_told_is_the_one_that_is_used(values: dict[str, str], expected: str) -> None:
    keys = {"region": "eu-west-3", "accessKey": "a", "secretKey": "b"}
    clients = AwsClients(S3BindingSettings.parse({"bucket": "own", **keys, **values}).options(), SharedClients())
    try:
        bucket = Bucket(clients, await clients.client("s3"), "own", logging.getLogger("lapel.test"))
        assert bucket.url_of("k") == expected
        assert (await bucket.sign("k", 60)).startswith(f"{expected}?")
    finally:
        await clients.close()


@pytest.mark.parametrize("queue", ["a b", "x.fif", "", "q" * 81])
def test_a_queue_name_that_sqs_does_not_know_is_refused(queue: str) -> None:
    with pytest.raises(SettingsError, match="queueName"):
        SqsBindingSettings.parse({"queueName": queue})


# who is calling


async def test_keys_region_and_token_sign_requests(aws_proxy: AwsProxy) -> None:
    async with lapel.open_secret_store("aws.secretmanager", here(aws_proxy, sessionToken="the token")):
        pass
    (request,) = aws_proxy.of("DescribeSecret")
    assert "Credential=AKIAHERE/" in signed(request)
    assert "/eu-west-3/secretsmanager/" in signed(request)
    assert request.headers["x-amz-security-token"] == "the token"


async def test_a_profile_of_the_shared_files_is_used(
    aws_proxy: AwsProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_environment(monkeypatch, tmp_path)
    (tmp_path / "credentials").write_text("[staging]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = x\n")
    (tmp_path / "config").write_text("[profile staging]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_PROFILE", "staging")
    async with lapel.open_secret_store("aws.parameterstore", {"endpoint": aws_proxy.url}):
        pass
    assert "Credential=AKIAPROFILE/" in signed(aws_proxy.requests[0])
    assert "/ap-south-1/" in signed(aws_proxy.requests[0])


@pytest.mark.parametrize(("field", "region"), [({}, "eu-north-1"), ({"region": "eu-west-3"}, "eu-west-3")])
async def test_the_region_of_the_environment_counts_where_none_is_given(
    aws_proxy: AwsProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: dict[str, str], region: str
) -> None:
    _no_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-1")
    keys = {"accessKey": "a", "secretKey": "b"}
    async with lapel.open_secret_store("aws.parameterstore", {"endpoint": aws_proxy.url, **keys, **field}):
        pass
    assert f"/{region}/" in signed(aws_proxy.requests[0])


async def test_the_environment_comes_first_in_the_default_chain(
    aws_proxy: AwsProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    async with lapel.open_secret_store("aws.secretmanager", {"endpoint": aws_proxy.url, "region": "eu-west-1"}):
        pass
    assert "Credential=AKIAENVIRONMENT/" in signed(aws_proxy.requests[0])


async def test_without_any_credentials_opening_says_what_to_do(
    aws_proxy: AwsProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_environment(monkeypatch, tmp_path)
    with pytest.raises(PermissionDeniedError, match="accessKey"):
        async with lapel.open_secret_store("aws.secretmanager", {"endpoint": aws_proxy.url, "region": "eu-west-1"}):
            pass


async def test_a_role_is_assumed_under_its_session_name(aws_proxy: AwsProxy) -> None:
    role = "arn:aws:iam::123456789012:role/reader"
    settings = here(aws_proxy, assumeRoleArn=role, sessionName="night-shift")
    async with lapel.open_secret_store("aws.secretmanager", settings):
        pass
    (assumed,) = aws_proxy.of("AssumeRole")
    assert (assumed.form["RoleArn"], assumed.form["RoleSessionName"]) == (role, "night-shift")
    assert "Credential=AKIAHERE/" in signed(assumed)
    (request,) = aws_proxy.of("DescribeSecret")
    assert "Credential=ASIA" in signed(request)
    assert request.headers["x-amz-security-token"]


async def test_a_role_that_may_not_be_assumed_fails_the_opening(aws_proxy: AwsProxy) -> None:
    body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    aws_proxy.first("AssumeRole", 9, Reply(403, body, {"Content-Type": "text/xml"}))
    with pytest.raises(PermissionDeniedError):
        async with lapel.open_secret_store("aws.secretmanager", here(aws_proxy, assumeRoleArn="arn:aws:iam::1:role/x")):
            pass


async def test_a_web_identity_token_is_exchanged(
    aws_proxy: AwsProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_environment(monkeypatch, tmp_path)
    (tmp_path / "token").write_text("a.web.token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws_proxy.url)
    async with lapel.open_secret_store("aws.secretmanager", {"endpoint": aws_proxy.url, "region": "eu-west-1"}):
        pass
    (exchanged,) = aws_proxy.of("AssumeRoleWithWebIdentity")
    assert exchanged.form["WebIdentityToken"] == "a.web.token"
    assert "Credential=ASIA" in signed(aws_proxy.of("DescribeSecret")[0])


async def test_the_role_of_a_container_is_used(
    aws_proxy: AwsProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_environment(monkeypatch, tmp_path)
    keys = (
        b'{"AccessKeyId": "ASIACONTAINER", "SecretAccessKey": "x", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}'
    )

    def rule(request: Request) -> Reply | None:
        return Reply(200, keys, {"Content-Type": "application/json"}) if request.path == "/role" else None

    aws_proxy.rule = rule
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{aws_proxy.url}/role")
    async with lapel.open_secret_store("aws.secretmanager", {"endpoint": aws_proxy.url, "region": "eu-west-1"}):
        pass
    assert "Credential=ASIACONTAINER/" in signed(aws_proxy.of("DescribeSecret")[0])


async def test_secrets_of_the_settings_are_in_no_error(aws_proxy: AwsProxy) -> None:
    aws_proxy.first("DescribeSecret", 9, json_error("InvalidSignatureException", 403, "it was signed with very secret"))
    with pytest.raises(PermissionDeniedError) as caught:
        async with lapel.open_secret_store("aws.secretmanager", here(aws_proxy)):
            pass
    assert "very secret" not in str(caught.value)
    assert "very secret" not in repr(SecretManagerSettings.parse(here(aws_proxy)))


async def test_secrets_are_read_by_version_and_prefix(aws_server: AwsBackend, aws_proxy: AwsProxy) -> None:
    parameters = boto3.client(
        "ssm", endpoint_url=aws_server.url, region_name="eu-west-3", aws_access_key_id="a", aws_secret_access_key="b"
    )
    for value in ("one", "two"):
        parameters.put_parameter(Name="/unit/a", Value=value, Type="SecureString", Overwrite=True)
    async with lapel.open_secret_store("aws.parameterstore", here(aws_proxy, prefix="/unit/")) as store:
        assert dict(await store.get("a")) == {"a": "two"}
        assert dict(await store.get("a", metadata={"version_id": "1"})) == {"a": "one"}
    asked = [request.json for request in aws_proxy.of("GetParameter")]
    assert asked == [
        {"Name": "/unit/a", "WithDecryption": True},
        {"Name": "/unit/a:1", "WithDecryption": True},
    ]


async def test_values_of_many_parameters_are_read_four_requests_at_once(aws_proxy: AwsProxy) -> None:
    names = [f"p{number:02}" for number in range(45)]
    # Each of the first four is answered when all of them are there.
    together = threading.Barrier(4, timeout=20)
    left = itertools.count()

    def rule(request: Request) -> Reply:
        if request.operation == "DescribeParameters":
            found: Any = {"Parameters": [{"Name": name} for name in names]}
        else:
            asked = request.json["Names"]
            if next(left) < 4:
                together.wait()
            found = {"Parameters": [{"Name": name, "Value": f"v {name}"} for name in reversed(asked)]}
        return Reply(200, json.dumps(found).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    async with lapel.open_secret_store("aws.parameterstore", here(aws_proxy)) as store:
        aws_proxy.rule = rule
        found = await store.bulk_get()
    assert {name: dict(secret) for name, secret in found.items()} == {name: {name: f"v {name}"} for name in names}
    assert list(found) == names


async def test_version_and_stage_of_a_secret_reach_the_service(aws_proxy: AwsProxy) -> None:
    body = b'{"Name": "short", "SecretBinary": "AAE="}'
    aws_proxy.first("GetSecretValue", 1, Reply(200, body, {"Content-Type": "application/x-amz-json-1.1"}))
    async with lapel.open_secret_store("aws.secretmanager", here(aws_proxy)) as store:
        metadata = {"version_id": "v" * 32, "version_stage": "AWSPREVIOUS"}
        assert dict(await store.get("arn:aws:short", metadata=metadata)) == {"short": "AAE="}
    (request,) = aws_proxy.of("GetSecretValue")
    assert request.json == {"SecretId": "arn:aws:short", "VersionId": "v" * 32, "VersionStage": "AWSPREVIOUS"}


def _no_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
