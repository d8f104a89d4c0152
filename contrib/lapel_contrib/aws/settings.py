"""The fields that all AWS components have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import urlsplit

from lapel.settings import Secret, Settings, setting

from .options import AwsOptions

__all__ = ["AwsSettings"]

_NO_ROLES_ANYWHERE = (
    "IAM Roles Anywhere needs a certificate that a Dapr control plane issues; use accessKey and secretKey, "
    "assumeRoleArn, or the credentials of the environment"
)


class AwsSettings(Settings):
    """Where the services are and who is calling.

    Credentials, the first that there are: `accessKey` with `secretKey` (and `sessionToken`), else the default chain of
    the AWS SDKs: environment variables, the shared files with their profiles (`AWS_PROFILE`), a web identity token, and
    the role of the container or machine. With `assumeRoleArn` they are used to assume that role. Credentials that
    expire are renewed in time.
    """

    region: str | None = setting(
        "region",
        aliases=("awsRegion",),
        default=None,
        doc="Region of the services. If not given, the one of the environment (`AWS_REGION`, `AWS_DEFAULT_REGION`) or "
        "the shared files.",
        example="us-east-1",
    )
    endpoint: str | None = setting(
        "endpoint",
        default=None,
        doc="URL that all services of this component are reached at, such as an emulator's.",
        example="http://127.0.0.1:4566",
    )
    access_key: Secret | None = setting(
        "accessKey", aliases=("awsAccessKey",), default=None, doc="Id of the access key."
    )
    secret_key: Secret | None = setting(
        "secretKey", aliases=("awsSecretKey",), default=None, doc="The access key's secret."
    )
    session_token: Secret | None = setting(
        "sessionToken", aliases=("awsSessionToken",), default=None, doc="Token that goes with temporary keys."
    )
    assume_role_arn: str | None = setting(
        "assumeRoleArn",
        aliases=("awsIamRoleArn",),
        default=None,
        doc="Role to assume, and to assume again before its credentials expire.",
    )
    session_name: str = setting(
        "sessionName",
        aliases=("awsStsSessionName",),
        default="DaprDefaultSession",
        doc="Name of the session with the assumed role, as it is seen in logs.",
    )
    trust_anchor_arn: str | None = setting("trustAnchorArn", refused=_NO_ROLES_ANYWHERE)
    trust_profile_arn: str | None = setting("trustProfileArn", refused=_NO_ROLES_ANYWHERE)

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield halves of credentials and endpoints that are none."""
        yield from super().check()
        if (self.access_key is None) != (self.secret_key is None):
            yield "accessKey and secretKey go together; give both or neither"
        elif self.session_token is not None and self.access_key is None:
            yield "sessionToken", "goes with accessKey and secretKey, which are missing"
        if self.endpoint is not None and not _is_url(self._with_scheme(self.endpoint)):
            yield "endpoint", "is not a URL; write it like http://127.0.0.1:4566"

    def options(self) -> AwsOptions:
        """Return what shapes the clients."""
        return AwsOptions(
            # The SDK for Python does not know this variable, all others do.
            region=self.region or os.environ.get("AWS_REGION") or None,
            endpoint=None if self.endpoint is None else self._with_scheme(self.endpoint).rstrip("/"),
            access_key=self.access_key,
            secret_key=self.secret_key,
            session_token=self.session_token,
            role=self.assume_role_arn,
            role_session=self.session_name,
        )

    def _with_scheme(self, endpoint: str) -> str:
        return endpoint


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
