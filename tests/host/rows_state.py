"""The error table of the state API."""

from __future__ import annotations

from tests.host.rows import AWAY, RESOURCE, Row

from lapel.errors import EtagInvalidError, EtagMismatchError, UnavailableError

STATE = "/v1.0/state/store"
ITEM = [{"key": "k", "value": 1}]
TWO = [*ITEM, {"key": "l", "value": 2}]
UPSERT = {"operations": [{"operation": "upsert", "request": {"key": "k", "value": 1}}]}
BARS = "input key/keyPrefix 'a||b' can't contain '||'"
BARS_KINDS = ("BadRequest", "ResourceInfo", "ErrorInfo")


def state_rows() -> list[Row]:
    malformed = "ERR_MALFORMED_REQUEST"
    rows = [
        Row(
            id=f"state store missing: {method} {path}",
            ask=(method, path.format("nothing")),
            json=json,
            status=400,
            code="ERR_STATE_STORE_NOT_FOUND",
            message="state store nothing is not found",
            reason="DAPR_STATE_NOT_FOUND",
            kinds=("ErrorInfo",),
        )
        for method, path, json in (
            ("GET", "/v1.0/state/{}/k", None),
            ("POST", "/v1.0/state/{}", ITEM),
            ("PUT", "/v1.0/state/{}", ITEM),
            ("DELETE", "/v1.0/state/{}/k", None),
            ("POST", "/v1.0/state/{}/bulk", {"keys": ["k"]}),
            ("POST", "/v1.0/state/{}/transaction", UPSERT),
            ("POST", "/v1.0-alpha1/state/{}/query", {}),
        )
    ]
    rows += [
        Row(id=f"state body {content!r} at {path}", ask=("POST", path), content=content, status=400, code=malformed)
        for path, contents in (
            (
                STATE,
                (b"", b"{}", b'""', b"[{", b'[{"key":1}]', b'[{"key":"k","etag":5}]', b'[{"key":"k","value":nan}]'),
            ),
            (STATE, (b'[{"key":"k","metadata":{"ttlInSeconds":5}}]', b'[{"key":"k","value":"\xff"}]', b"[" * 5000)),
            (STATE, (b'[{"key":"k","options":{"concurrency":1}}]', b"\xff\xfe", b'[{"key":"\\ud800","value":1}]')),
            (f"{STATE}/bulk", (b"", b"[]", b'{"keys":"k"}', b'{"keys":[1]}', b'{"keys":["k"],"parallelism":"2"}')),
            (f"{STATE}/transaction", (b"", b"[]", b'{"operations":{}}', b'{"operations":[{"request":[]}]}')),
            ("/v1.0-alpha1/state/store/query", (b"{", b'{"filter":{"EQ":1}}', b'{"nothing":1}', b'{"sort":1}')),
        )
        for content in contents
    ]
    rows += [
        Row(
            id=f"state item without key {json}", ask=("POST", path), json=json, status=400, code=malformed, message=text
        )
        for text in ('"key" is a required field',)
        for path, json in (
            (STATE, [{}]),
            (STATE, [{"value": 1}]),
            (STATE, [{"key": "", "value": 1}]),
            (STATE, [*ITEM, {"value": 1}]),
            (f"{STATE}/transaction", {"operations": [{"operation": "upsert", "request": {"value": 1}}]}),
            (f"{STATE}/transaction", {"operations": [{"operation": "delete"}]}),
        )
    ]
    rows += [
        Row(
            id=f"state key with bars: {method} {path}",
            ask=(method, path),
            json=json,
            status=400,
            code=malformed,
            message=BARS,
            reason="DAPR_STATE_ILLEGAL_KEY",
            kinds=BARS_KINDS,
        )
        for method, path, json in (
            ("GET", f"{STATE}/a%7C%7Cb", None),
            ("DELETE", f"{STATE}/a%7C%7Cb", None),
            ("POST", STATE, [{"key": "a||b", "value": 1}]),
            ("POST", f"{STATE}/bulk", {"keys": ["k", "a||b"]}),
            ("POST", f"{STATE}/transaction", {"operations": [{"operation": "delete", "request": {"key": "a||b"}}]}),
        )
    ]
    rows += [
        Row(
            id=f"state wrong option {json}", ask=("POST", STATE), json=[{**ITEM[0], **json}], status=400, code=malformed
        )
        for json in (
            {"options": {"concurrency": "sometimes"}},
            {"options": {"consistency": "sometimes"}},
            {"metadata": {"ttlInSeconds": "soon"}},
            {"metadata": {"ttlInSeconds": "-2"}},
            {"metadata": {"ttlInSeconds": "1.5"}},
            {"metadata": {"ttlInSeconds": "2147483648"}},
            {"metadata": {"ttlInSeconds": "9" * 5000}},
        )
    ]
    mismatch = EtagMismatchError("it changed")
    invalid = EtagInvalidError("it is no number")
    saving = "failed saving state in state store store: "
    deleting = "failed deleting state with key k: "
    rows += [
        Row(
            id="state get failed",
            ask=("GET", f"{STATE}/k"),
            fails=("store", "get"),
            status=500,
            code="ERR_STATE_GET",
            message=f"fail to get k from state store store: {AWAY}",
        ),
        Row(
            id="state bulk get failed",
            ask=("POST", f"{STATE}/bulk"),
            json={"keys": ["k", "l"]},
            fails=("store", "bulk_get get"),
            status=500,
            code="ERR_STATE_BULK_GET",
            message=AWAY,
        ),
    ]
    for json, kind in ((ITEM, "one"), (TWO, "several")):
        ask, fails = ("POST", STATE), ("store", "set bulk_set")
        rows += [
            Row(
                id=f"state save of {kind} failed",
                ask=ask,
                json=json,
                fails=fails,
                status=500,
                code="ERR_STATE_SAVE",
                message=saving + AWAY,
            ),
            Row(
                id=f"state save of {kind}, etag mismatch",
                ask=ask,
                json=json,
                fails=fails,
                error=mismatch,
                status=409,
                code="ERR_STATE_SAVE",
                message=f"{saving}possible etag mismatch. error from state store: it changed",
            ),
            Row(
                id=f"state save of {kind}, etag invalid",
                ask=ask,
                json=json,
                fails=fails,
                error=invalid,
                status=400,
                code="ERR_STATE_SAVE",
                message=f"{saving}invalid etag value: it is no number",
            ),
        ]
    rows += [
        Row(
            id=f"state delete failed with {type(error).__name__}",
            ask=("DELETE", f"{STATE}/k"),
            fails=("store", "delete"),
            error=error,
            status=status,
            code="ERR_STATE_DELETE",
            message=deleting + text,
        )
        for error, status, text in (
            (UnavailableError(AWAY), 500, AWAY),
            (mismatch, 409, "possible etag mismatch. error from state store: it changed"),
            (invalid, 400, "invalid etag value: it is no number"),
        )
    ]
    rows += [
        Row(
            id="state transactions unsupported",
            ask=("POST", "/v1.0/state/simple/transaction"),
            json=UPSERT,
            status=500,
            code="ERR_STATE_STORE_NOT_SUPPORTED",
            message="state store simple doesn't support transactions",
            reason="DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED",
            kinds=("Help", "ResourceInfo", "ErrorInfo"),
        ),
        Row(
            id="state too many operations",
            ask=("POST", "/v1.0/state/small/transaction"),
            json={"operations": UPSERT["operations"] * 3},
            status=400,
            code="ERR_STATE_STORE_TOO_MANY_TRANSACTIONS",
            message="the transaction contains 3 operations, which is more than what the state store supports: 2",
            reason="DAPR_STATE_TOO_MANY_TRANSACTIONS",
            kinds=RESOURCE,
        ),
        Row(
            id="state operation unknown",
            ask=("POST", f"{STATE}/transaction"),
            json={"operations": [{"operation": "merge", "request": {"key": "k"}}]},
            status=400,
            code="ERR_NOT_SUPPORTED_STATE_OPERATION",
            message="operation type merge not supported",
        ),
        Row(
            id="state transaction failed",
            ask=("POST", f"{STATE}/transaction"),
            json=UPSERT,
            fails=("store", "transaction"),
            status=500,
            code="ERR_STATE_TRANSACTION",
            message=f"error while executing state transaction: {AWAY}",
        ),
        Row(
            id="state transaction, etag mismatch",
            ask=("POST", f"{STATE}/transaction"),
            json={"operations": [{"operation": "upsert", "request": {"key": "k", "value": 1, "etag": "7"}}]},
            status=500,
            code="ERR_STATE_TRANSACTION",
        ),
        Row(
            id="state query unsupported",
            ask=("POST", "/v1.0-alpha1/state/simple/query"),
            json={},
            status=500,
            code="ERR_STATE_STORE_NOT_SUPPORTED",
            message="state store does not support querying",
            reason="DAPR_STATE_QUERYING_NOT_SUPPORTED",
            kinds=RESOURCE,
        ),
        Row(
            id="state query failed",
            ask=("POST", "/v1.0-alpha1/state/store/query"),
            json={},
            fails=("store", "query"),
            status=500,
            code="ERR_STATE_QUERY",
            message=f"state store store query failed: {AWAY}",
            reason="DAPR_STATE_QUERY_FAILED",
            kinds=RESOURCE,
        ),
    ]
    return rows
