"""Wrong fields of the HTTP binding are found, by name, before anything is sent."""

from __future__ import annotations

import pytest

from lapel_contrib.http.settings import HttpSettings


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"url": "ftp://h"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://h:port"}, "url"),
        ({"url": "http://h/#x"}, "url"),
        ({"url": "http://h/a b"}, "url"),
        ({"url": "https://h", "MTLSClientCert": "c"}, "MTLSClientCert"),
        ({"url": "https://h", "MTLSClientKey": "k"}, "MTLSClientKey"),
        ({"url": "http://h", "MTLSRootCA": "c"}, "MTLSRootCA"),
        ({"url": "http://h", "securityToken": "t"}, "securityToken"),
        ({"url": "http://h", "securityTokenHeader": "X"}, "securityTokenHeader"),
        ({"url": "http://h", "securityToken": "t\n", "securityTokenHeader": "X"}, "securityToken"),
        ({"url": "http://h", "securityToken": "t", "securityTokenHeader": "X Y"}, "securityTokenHeader"),
        ({"url": "http://h", "MTLSRenegotiation": "RenegotiateOnceAsClient"}, "MTLSRenegotiation"),
        ({"url": "http://h", "MTLSRenegotiation": "Sometimes"}, "MTLSRenegotiation"),
        ({"url": "http://h", "responseTimeout": "0"}, "responseTimeout"),
        ({"url": "http://h", "maxResponseBodySize": "lots"}, "maxResponseBodySize"),
        ({"url": "http://h", "errorIfNot2XX": "perhaps"}, "errorIfNot2XX"),
        ({"url": "http://h", "direction": "input"}, "direction"),
    ],
)
def test_wrong_fields_are_found_offline(fields: dict[str, str], name: str) -> None:
    assert [problem.field for problem in HttpSettings.examine(fields)] == [name]
