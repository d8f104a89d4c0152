"""What shapes the clients of a component, in a form that can be compared."""

from __future__ import annotations

from dataclasses import dataclass

from lapel.settings import Secret

__all__ = ["AwsOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsOptions:
    """Where the services are and who is calling. Components with equal options share session and clients.

    `region` and `endpoint` None: as the environment and the shared files of the AWS tools say. Without keys the
    credentials come from there too. `role` is assumed with those credentials. `path_style` None: as the SDK thinks
    best for the endpoint.
    """

    region: str | None = None
    endpoint: str | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
    role: str | None = None
    role_session: str = "DaprDefaultSession"
    path_style: bool | None = None
    verify: bool = True
