"""Settings of bindings.http."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar
from urllib.parse import urlsplit

from lapel.bindings.settings import BindingSettings
from lapel.settings import ByteSize, Secret, setting

__all__ = ["HEADER_NAME", "HttpSettings", "url_problem"]

HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""What can be the name of a header (RFC 9110, 5.1)."""


class HttpSettings(BindingSettings):
    """Settings of bindings.http."""

    offered_directions: ClassVar[tuple[str, ...]] = ("output",)

    url: Secret = setting(
        "url",
        doc="Where requests go, `http` or `https`; the request metadata `path` is added to it. Never shown, because it "
        "may hold credentials.",
        example="https://api.example.com/v1",
    )
    response_timeout: timedelta | None = setting(
        "responseTimeout",
        default=None,
        minimum=timedelta(milliseconds=1),
        doc="Deadline of a whole request, or of each chunk of a streamed one. Default: 5s.",
    )
    max_response_body_size: ByteSize = setting(
        "maxResponseBodySize",
        default=ByteSize(100 * 1024 * 1024),
        minimum=-(2**63),
        doc="A longer body is an error. 0 or less: no limit.",
    )
    mtls_root_ca: str | None = setting(
        "MTLSRootCA",
        default=None,
        doc="The certificate authorities that are trusted, as PEM or the path of a PEM file. Default: the system's.",
    )
    mtls_client_cert: str | None = setting(
        "MTLSClientCert", default=None, doc="Certificate shown to the server, as PEM or the path of a PEM file."
    )
    mtls_client_key: Secret | None = setting(
        "MTLSClientKey", default=None, doc="Private key of the certificate, as PEM or the path of a PEM file."
    )
    mtls_renegotiation: str = setting(
        "MTLSRenegotiation",
        default="RenegotiateNever",
        choices=("RenegotiateNever", "RenegotiateOnceAsClient", "RenegotiateFreelyAsClient"),
        doc="Whether a server may renegotiate TLS 1.2. RenegotiateOnceAsClient is refused: OpenSSL cannot count.",
    )
    security_token: Secret | None = setting(
        "securityToken", default=None, doc="Sent with each request to the host of `url`, in `securityTokenHeader`."
    )
    security_token_header: str | None = setting(
        "securityTokenHeader", default=None, pattern=HEADER_NAME.pattern, doc="The header that carries `securityToken`."
    )
    error_if_not_2xx: bool = setting(
        "errorIfNot2XX", default=True, doc="Whether a status other than 200 to 299 is an error. Also per request."
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Refuse a URL that no request can go to, and fields that protect only together with another one."""
        yield from super().check()
        problem, scheme = url_problem(self.url.reveal())
        if problem:
            yield "url", problem
        if (self.mtls_client_cert is None) != (self.mtls_client_key is None):
            given, other = "MTLSClientCert", "MTLSClientKey"
            if self.mtls_client_cert is None:
                given, other = other, given
            yield given, f"needs {other} as well"
        if (self.security_token is None) != (self.security_token_header is None):
            given, other = "securityToken", "securityTokenHeader"
            if self.security_token is None:
                given, other = other, given
            yield given, f"needs {other} as well; without it no token is sent"
        token = self.security_token.reveal() if self.security_token else ""
        if not token.isascii() or not token.isprintable():
            yield "securityToken", "holds characters that a header cannot carry"
        if self.mtls_renegotiation == "RenegotiateOnceAsClient":
            yield "MTLSRenegotiation", "not supported; use RenegotiateNever or RenegotiateFreelyAsClient"
        if scheme == "http" and (self.mtls_root_ca or self.mtls_client_cert):
            yield (
                "MTLSRootCA" if self.mtls_root_ca else "MTLSClientCert",
                "protects nothing with this url; make it https",
            )


def url_problem(text: str) -> tuple[str | None, str]:
    """Return why no request can go to this URL, None when one can, and the URL's scheme."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return "is not a URL", ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "expected a URL such as https://host/path", parts.scheme
    if parts.fragment:
        return "holds a '#', and what follows it is never sent; take it out", parts.scheme
    if not text.isprintable() or " " in text:
        return "holds spaces or control characters; percent-encode them", parts.scheme
    return None, parts.scheme
