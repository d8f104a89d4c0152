"""The error tables of bindings, secrets, configuration and locks."""

from __future__ import annotations

from typing import Any

from tests.host.rows import AWAY, Row

from lapel.errors import OperationFailedError

_WRONG_EXPIRIES: tuple[Any, ...] = (1.5, "soon", True, [], 2**31, "9" * 5000)


def other_rows() -> list[Row]:
    binding, lock = "/v1.0/bindings/files", {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 5}
    failed = "error invoking output binding {}: {}"
    rows = [
        Row(
            id=f"binding body {content!r}",
            ask=("POST", binding),
            content=content,
            status=400,
            code="ERR_MALFORMED_REQUEST",
        )
        for content in (
            b"",
            b"[]",
            b"{",
            b'{"operation":1}',
            b'{"operation":"get","metadata":{"a":1}}',
            b'{"data":nan}',
        )
    ]
    rows += [
        Row(
            id=f"binding: {text}",
            ask=("POST", f"/v1.0/bindings/{name}"),
            json=json,
            status=500,
            code="ERR_INVOKE_OUTPUT_BINDING",
            message=failed.format(name, text),
        )
        for name, json, text in (
            ("nothing", {"operation": "get"}, "couldn't find output binding nothing"),
            ("cron", {"operation": "get"}, "couldn't find output binding cron"),
            ("store", {"operation": "get"}, "couldn't find output binding store"),
            ("files", {"data": 1}, "operation field is missing from request"),
            (
                "files",
                {"operation": "fly"},
                "binding files does not support operation fly. supported operations:create get list delete",
            ),
        )
    ]
    rows += [
        Row(
            id="binding failed",
            ask=("POST", binding),
            json={"operation": "get", "metadata": {"fileName": "x"}},
            fails=("files", "invoke"),
            error=OperationFailedError("the disk is gone"),
            status=500,
            code="ERR_INVOKE_OUTPUT_BINDING",
            message=failed.format("files", "the disk is gone"),
        ),
        Row(
            id="secret store missing",
            ask=("GET", "/v1.0/secrets/nothing/k"),
            status=401,
            code="ERR_SECRET_STORE_NOT_FOUND",
            message="failed finding secret store with key nothing",
        ),
        Row(
            id="secret store missing, bulk",
            ask=("GET", "/v1.0/secrets/nothing/bulk"),
            status=401,
            code="ERR_SECRET_STORE_NOT_FOUND",
        ),
        Row(
            id="secret denied",
            ask=("GET", "/v1.0/secrets/secrets/private"),
            status=403,
            code="ERR_PERMISSION_DENIED",
            message='access denied by policy to get "private" from "secrets"',
        ),
        Row(id="secret missing", ask=("GET", "/v1.0/secrets/secrets/none"), status=500, code="ERR_SECRET_GET"),
        Row(
            id="secret failed",
            ask=("GET", "/v1.0/secrets/secrets/k"),
            fails=("secrets", "get"),
            status=500,
            code="ERR_SECRET_GET",
            message=f"failed getting secret with key k from secret store secrets: {AWAY}",
        ),
        Row(
            id="secrets failed",
            ask=("GET", "/v1.0/secrets/secrets/bulk"),
            fails=("secrets", "bulk_get"),
            status=500,
            code="ERR_SECRET_GET",
            message=f"failed getting secrets from secret store secrets: {AWAY}",
        ),
    ]
    for version in ("v1.0", "v1.0-alpha1"):
        rows += [
            Row(
                id=f"{version} configuration store missing: {path}",
                ask=("GET", f"/{version}/configuration/nothing{path}"),
                status=400,
                code="ERR_CONFIGURATION_STORE_NOT_FOUND",
                message="configuration store nothing not found",
            )
            for path in ("", "/subscribe", "/id/unsubscribe")
        ]
        rows += [
            Row(
                id=f"{version} configuration get failed",
                ask=("GET", f"/{version}/configuration/config?key=a&key=b"),
                fails=("config", "get"),
                status=500,
                code="ERR_CONFIGURATION_GET",
                message=f"failed to get [a b] from Configuration store config: {AWAY}",
            ),
            Row(
                id=f"{version} configuration subscribe without an application",
                ask=("GET", f"/{version}/configuration/config/subscribe"),
                status=500,
                code="ERR_APP_CHANNEL_NIL",
            ),
        ]
    malformed = "ERR_MALFORMED_REQUEST"
    for word, message, code in (
        ("lock", "failed to try acquiring lock: ", "ERR_TRY_LOCK"),
        ("unlock", "failed to release lock: ", "ERR_UNLOCK"),
    ):
        path = f"/v1.0-alpha1/{word}"
        rows += [
            Row(
                id=f"{word} body {content!r}",
                ask=("POST", f"{path}/locks"),
                content=content,
                status=400,
                code=malformed,
            )
            for content in (b"[]", b"{", b'"x"', b'{"resourceId":1,"expiryInSeconds":1}', b'{"lockOwner":[]}', b"\xff")
        ]
        rows += [
            Row(
                id=f"{word} without resource",
                ask=("POST", f"{path}/nothing"),
                json={**lock, "resourceId": ""},
                status=400,
                code=malformed,
                message="ResourceId is empty in lock store nothing",
            ),
            Row(
                id=f"{word} without owner",
                ask=("POST", f"{path}/nothing"),
                json={**lock, "lockOwner": ""},
                status=400,
                code=malformed,
                message="LockOwner is empty in lock store nothing",
            ),
            Row(
                id=f"{word} store missing",
                ask=("POST", f"{path}/nothing"),
                json=lock,
                status=400,
                code="ERR_LOCK_STORE_NOT_FOUND",
                message="lock store nothing not found",
            ),
            Row(
                id=f"{word} with bars",
                ask=("POST", f"{path}/locks"),
                json={**lock, "resourceId": "a||b"},
                status=400,
                code=malformed,
            ),
            Row(
                id=f"{word} failed",
                ask=("POST", f"{path}/locks"),
                json=lock,
                fails=("locks", "try_lock unlock"),
                status=500,
                code=code,
                message=message + AWAY,
            ),
        ]
    rows += [
        Row(
            id=f"lock expiry {expiry!r}",
            ask=("POST", "/v1.0-alpha1/lock/nothing"),
            json={**lock, "expiryInSeconds": expiry},
            status=400,
            code=malformed,
            message="ExpiryInSeconds is not positive in lock store nothing",
        )
        for expiry in (0, -1, None, "-5")
    ]
    rows += [
        Row(
            id=f"lock expiry of a wrong type {expiry!r}",
            ask=("POST", "/v1.0-alpha1/lock/locks"),
            json={**lock, "expiryInSeconds": expiry},
            status=400,
            code=malformed,
        )
        for expiry in _WRONG_EXPIRIES
    ]
    return rows
