"""The error table of the publish API."""

from __future__ import annotations

from tests.host.rows import AWAY, RESOURCE, Row

EVENTS = "/v1.0/publish/bulk/bus/t"


def pubsub_rows() -> list[Row]:
    entry = {"entryId": "1", "event": 1, "contentType": "application/json"}
    ser, wrong = "ERR_PUBSUB_EVENTS_SER", "ERR_PUBSUB_REQUEST_METADATA"
    boolean = "failed deserializing metadata. Error: rawPayload value must be a valid boolean: actual is 'v'"
    rows = [
        Row(
            id=f"pubsub missing: {path}",
            ask=("POST", path),
            json=[entry],
            status=404,
            code="ERR_PUBSUB_NOT_FOUND",
            message="pubsub nothing is not found",
            reason="DAPR_PUBSUB_NOT_FOUND",
            kinds=("ErrorInfo",),
        )
        for path in ("/v1.0/publish/nothing/t", "/v1.0-alpha1/publish/bulk/nothing/t", "/v1.0/publish/bulk/nothing/t")
    ]
    rows += [
        Row(id=f"pubsub name empty: {path}", ask=("POST", path), status=404, code="ERR_PUBSUB_EMPTY", kinds=RESOURCE)
        for path in ("/v1.0/publish", "/v1.0/publish/", "/v1.0-alpha1/publish/bulk/")
    ]
    rows += [
        Row(
            id=f"topic empty: {path}",
            ask=("POST", path),
            status=404,
            code="ERR_TOPIC_NAME_EMPTY",
            message="topic is empty in pubsub bus",
            kinds=RESOURCE,
        )
        for path in ("/v1.0/publish/bus", "/v1.0/publish/bus/", "/v1.0-alpha1/publish/bulk/bus")
    ]
    rows += [
        Row(
            id=f"rawPayload not a bool: {path}",
            ask=("POST", f"{path}?metadata.rawPayload=v"),
            json=[entry],
            status=400,
            code=wrong,
            message=boolean,
            reason="DAPR_PUBSUB_METADATA_DESERIALIZATION",
            kinds=RESOURCE,
        )
        for path in ("/v1.0/publish/bus/t", EVENTS)
    ]
    rows += [
        Row(
            id=f"ttlInSeconds={ttl}",
            ask=("POST", f"/v1.0/publish/bus/t?metadata.ttlInSeconds={ttl}"),
            status=400,
            code=wrong,
            kinds=RESOURCE,
        )
        for ttl in ("0", "-1", "soon")
    ]
    rows += [
        Row(
            id=f"body claims to be an event: {content!r}",
            ask=("POST", "/v1.0/publish/bus/t"),
            content=content,
            headers={"content-type": "application/cloudevents+json; charset=utf-8"},
            status=500,
            code="ERR_PUBSUB_CLOUD_EVENTS_SER",
            kinds=RESOURCE,
        )
        for content in (b"", b"text", b"[]", b"1", b"{")
    ]
    rows += [
        Row(
            id=f"topic forbidden: {path}",
            ask=("POST", path),
            json=[entry],
            status=403,
            code="ERR_PUBSUB_FORBIDDEN",
            message="topic t is not allowed for app id myapp",
            kinds=RESOURCE,
        )
        for path in ("/v1.0/publish/scoped/t", "/v1.0/publish/bulk/scoped/t")
    ]
    rows.append(
        Row(
            id="broker failed",
            ask=("POST", "/v1.0/publish/bus/t"),
            fails=("bus", "publish"),
            status=500,
            code="ERR_PUBSUB_PUBLISH_MESSAGE",
            message=f"error when publishing to topic t in pubsub bus: {AWAY}",
            kinds=RESOURCE,
        )
    )
    rows += [
        Row(id=f"bulk not parseable: {content!r}", ask=("POST", EVENTS), content=content, status=400, code=ser)
        for content in (b"", b"{}", b"[", b'[{"entryId":1}]', b'["x"]', b'[{"entryId":"1","event":"\xff"}]')
    ]
    rows += [
        Row(id=f"bulk entry id: {json}", ask=("POST", EVENTS), json=json, status=400, code=ser, kinds=RESOURCE)
        for json in ([{**entry, "entryId": ""}], [{"event": 1, "contentType": "text/plain"}], [entry, entry])
    ]
    rows += [
        Row(
            id=f"bulk event {json}",
            ask=("POST", EVENTS),
            json=[{**entry, **json}],
            status=400,
            code=ser,
            kinds=RESOURCE,
        )
        for json in (
            {"event": 1, "contentType": "text/plain"},
            {"event": {}, "contentType": "application/xml"},
            {"event": "not base64!", "contentType": "application/octet-stream"},
            {"event": "x", "contentType": "image/png"},
            {"event": "x", "contentType": None},
            {"event": 5, "contentType": "application/cloudevents+json"},
        )
    ]
    return rows
