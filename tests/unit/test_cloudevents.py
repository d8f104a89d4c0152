"""The CloudEvents envelope: exact bytes out, the same data back in."""

import copy
import json
import os
import random
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lapel.errors import InvalidArgumentError, LapelError
from lapel.pubsub.cloudevents import CloudEvent, InvalidEventError, expired, raw_payload, ttl_of, unwrap, wrap
from lapel.testing import row

NOW = 1772600767.0  # 2026-03-04T05:06:07Z
GOLDEN: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("cloudevents_golden.yaml").read_text("utf-8"))


def publish(data: bytes, content_type: str | None = "application/json", **arguments: Any) -> bytes:
    defaults: dict[str, Any] = {"topic": "orders", "pubsub_name": "pubsub", "now": NOW, "new_id": "fixed-id"}
    return wrap(data, content_type=content_type, **(defaults | arguments))


def deliver(body: bytes, **arguments: Any) -> CloudEvent:
    return unwrap(body, topic="orders", pubsub_name="pubsub", **arguments)


def event_with(**attributes: object) -> CloudEvent:
    return deliver(json.dumps(attributes).encode())


@row("stricter-060")
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_envelopes_are_byte_equal(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()
    envelope = publish(data, case.get("content_type"), **case.get("arguments", {}))
    assert envelope.decode() == case["envelope"]
    keys = list(json.loads(envelope))
    assert keys == sorted(keys)


@given(
    data=st.binary() | st.text().map(str.encode),
    content_type=st.sampled_from(
        [None, "text/plain", "TEXT/xml; charset=utf-8", "application/octet-stream", "a/b+json"]
    ),
)
def test_any_bytes_come_back_unchanged(data: bytes, content_type: str | None) -> None:
    event = deliver(publish(data, content_type))
    assert event.data == data
    assert event.datacontenttype == (content_type or "text/plain")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=json_values, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_json_comes_back_as_published(value: object, indent: int | None, ascii_only: bool) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    event = deliver(publish(data))
    assert event.data == data
    assert json.loads(event.to_json())["data"] == value


@given(data=st.binary())
def test_bytes_that_are_not_json_come_back_as_a_json_string_or_unchanged(data: bytes) -> None:
    event = deliver(publish(data))
    if event.data != data and event.data != data.strip(b" \t\r\n"):
        assert event.json() == data.decode()


def test_integers_and_decimals_are_exact_to_the_handler() -> None:
    event = deliver(publish(b'{"i":123456789012345678901234567890,"d":0.10000000000000000555}'))
    assert event.json()["i"] == 123456789012345678901234567890
    assert event.json(dict[str, Decimal])["d"] == Decimal("0.10000000000000000555")


def test_data_without_content_type_or_of_a_json_suffix_is_readable_json() -> None:
    assert event_with(data="a").data == b'"a"'
    assert event_with(data={"n": 1}, datacontenttype="application/vnd.x+json").json() == {"n": 1}
    assert event_with(data="a", datacontenttype="text/plain").text() == "a"
    assert event_with(data=None, datacontenttype="text/plain").data == b""
    assert event_with().data == b""


def test_a_typed_read_checks_the_data() -> None:
    class Order(msgspec.Struct):
        id: int

    assert deliver(publish(b'{"id":7}')).json(Order) == Order(id=7)
    for wrong in (b'{"id":"7"}', b"nonsense", b""):
        with pytest.raises(InvalidEventError, match="fixed-id"):
            deliver(publish(wrong)).json(Order)
    with pytest.raises(InvalidEventError, match="not UTF-8"):
        deliver(publish(b"\xff")).text()


def test_metadata_is_left_as_it_was() -> None:
    metadata = {"TTL": "5", "CloudEvent.Id": "x", "content-type": "application/octet-stream", "ce_id": "y"}
    before = copy.copy(metadata)
    deliver(publish(b"1", metadata=metadata), metadata=metadata)
    assert metadata == before


def test_ids_are_version_4_and_differ_also_after_seeding() -> None:
    seen = set()
    for _ in range(200):
        random.seed(1)
        event = deliver(publish(b"1", new_id=None))
        parsed = uuid.UUID(event.id)
        assert (str(parsed), parsed.version, parsed.variant) == (event.id, 4, uuid.RFC_4122)
        seen.add(event.id)
    assert len(seen) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_repeat_ids() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, deliver(publish(b"1", new_id=None)).id.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    ours = deliver(publish(b"1", new_id=None)).id
    with open(reader, encoding="ascii") as pipe:
        assert pipe.read() not in ("", ours)


@pytest.mark.parametrize("body", [b"[1]", b"1", b"", b"{", b'{"a":1} x', b'{"a":"\xff"}', b"[" * 5000])
def test_data_that_claims_to_be_an_event_must_be_a_json_object(body: bytes) -> None:
    with pytest.raises(InvalidEventError, match="orders"):
        publish(body, "application/cloudevents+json")


def test_attributes_that_are_not_unicode_are_refused() -> None:
    for content_type in (None, "application/cloudevents+json"):
        with pytest.raises(InvalidArgumentError, match="Unicode"):
            publish(b"{}", content_type, topic="\ud800")


@pytest.mark.parametrize("body", [b"[1]", b"plain", b"", b'"x"', b"\xff", b"[" * 5000])
def test_a_message_that_is_no_event_is_a_typed_error_that_names_the_remedy(body: bytes) -> None:
    with pytest.raises(InvalidEventError, match=r"topic 'orders'.*rawPayload") as caught:
        deliver(body)
    assert isinstance(caught.value, LapelError)


def test_a_stored_event_is_handed_on_unchanged() -> None:
    body = b' { "id" : "1", "data":{ "b":1,"a":2 } , "odd": 1.0} '
    event = deliver(body)
    assert event.to_json() == body
    assert event.data == b'{ "b":1,"a":2 }'


def test_missing_attributes_stay_empty_and_the_id_is_not_invented() -> None:
    event = deliver(b"{}")
    assert (event.id, event.source, event.type, event.specversion) == ("", "", "", "")
    assert (event.subject, event.datacontenttype, event.time, event.expiration) == (None, None, None, None)
    assert (event.topic, event.pubsubname) == ("orders", "pubsub")
    assert event_with(topic="first", pubsubname="other").topic == "first"


def test_attributes_of_odd_json_types_do_not_stop_an_event() -> None:
    event = deliver(b'{"id":12345678901234567890,"source":null,"time":true,"subject":{"a": 1},"data":{"x":1}}')
    assert (event.id, event.source, event.time, event.subject) == ("12345678901234567890", "", "true", '{"a": 1}')
    assert event.json() == {"x": 1}


def test_extensions_are_the_attributes_without_a_field() -> None:
    event = event_with(id="1", traceid="t", custom=True, zone=2**70, expiration="x", data=1, data_base64="QQ==")
    assert event.extensions == {"traceid": "t", "custom": True, "zone": 2**70}
    with pytest.raises(InvalidEventError, match="extension"):
        _ = deliver(b'{"x":"\xff"}').extensions


def test_base64_data_wins_tolerates_line_breaks_and_must_be_base64() -> None:
    assert event_with(data="x", data_base64="QUJD").data == b"ABC"
    assert event_with(data_base64="QU\r\nJD").data == b"ABC"
    assert event_with(data_base64=None, data="x").data == b'"x"'
    for wrong in ("QQ", "ü", "Q?==", 7):
        with pytest.raises(InvalidEventError, match="base64"):
            event_with(data_base64=wrong)


def test_missing_trace_attributes_come_from_the_metadata() -> None:
    metadata = {"TraceParent": "00-1-1-01", "tracestate": "k=v"}
    event = deliver(b"{}", metadata=metadata)
    assert (event.traceparent, event.tracestate) == ("00-1-1-01", "k=v")
    event = deliver(b'{"traceparent":"own","tracestate":"o=1"}', metadata=metadata)
    assert (event.traceparent, event.tracestate) == ("own", "o=1")


def test_a_raw_subscription_gets_the_bytes_in_a_new_event() -> None:
    body = publish(b'{"a":1}')
    event = deliver(body, raw=True, new_id="n")
    assert event.data == body
    assert deliver(b"x", raw=True).id != deliver(b"x", raw=True).id
    assert deliver(b"\x00\xff", raw=True, new_id="n").to_json() == (
        b'{"data_base64":"AP8=","datacontenttype":"application/octet-stream","id":"n","pubsubname":"pubsub",'
        b'"source":"Dapr","specversion":"1.0","topic":"orders","type":"com.dapr.event.sent"}'
    )
    traced = deliver(b"x", raw=True, metadata={"traceparent": "00-1-1-01"})
    assert traced.traceparent == traced.extensions["traceid"] == json.loads(traced.to_json())["traceid"] == "00-1-1-01"


def test_binary_mode_takes_attributes_from_the_metadata() -> None:
    metadata = {
        "Content-Type": "Application/Octet-Stream; x=y",
        "ce_id": "7",
        "CE_Source": "shop",
        "ce_type": "order.paid",
        "ce_time": "2026-03-04T05:06:07Z",
        "ce_expiration": "2026-03-04T05:06:08Z",
        "ce_data": "never",
        "ce_zone": "eu",
        "other": "x",
    }
    event = deliver(b"\x00\xff", metadata=metadata)
    assert (event.id, event.source, event.type, event.topic) == ("7", "shop", "order.paid", "orders")
    assert (event.data, event.datacontenttype) == (b"\x00\xff", "application/octet-stream")
    assert event.extensions == {"zone": "eu"}
    assert expired(event, NOW + 2)
    assert json.loads(event.to_json())["data_base64"] == "AP8="
    as_json = deliver(b'{"n":1.0}', metadata=metadata | {"ce_datacontenttype": "application/json"})
    assert as_json.data == b'{"n":1.0}'
    assert b'"data":{"n":1.0},"datacontenttype":"application/json"' in as_json.to_json()


def test_octet_stream_without_attributes_is_data_unless_it_is_an_envelope() -> None:
    metadata = {"content-type": "application/octet-stream"}
    assert deliver(b'{"a":1}', metadata=metadata).data == b'{"a":1}'
    assert deliver(b"\xff", metadata=metadata).data == b"\xff"
    assert deliver(publish(b'{"a":1}'), metadata=metadata).json() == {"a": 1}
    assert deliver(publish(b'{"a":1}'), metadata={"content-type": "application/json"}).json() == {"a": 1}


@pytest.mark.parametrize(
    ("expiration", "late"),
    [
        ("2026-03-04T05:06:06Z", True),
        ("2026-03-04T05:06:06.999999Z", True),
        ("2026-03-04T05:06:06.999999499Z", True),
        ("2026-03-04T05:06:07Z", False),
        ("2026-03-04T05:06:07.000001Z", False),
        ("2026-03-04T06:06:06+01:00", True),
        ("2026-03-04T05:06:06-00:01", False),
        ("0001-01-01T00:00:00Z", True),
        ("9999-12-31T23:59:59-12:00", False),
        ("2020-01-01T00:00:00", False),
        ("2020-01-01", False),
        ("yesterday", False),
        ("", False),
        (None, False),
        (1, False),
    ],
)
def test_an_event_expires_after_its_expiration_and_an_unreadable_one_never(expiration: object, late: bool) -> None:
    assert expired(event_with(expiration=expiration), NOW) is late


def test_an_event_lives_for_its_whole_ttl() -> None:
    event = deliver(publish(b"1", now=NOW + 0.75, metadata={"ttlInSeconds": "1"}))
    assert not expired(event, NOW + 1.74)
    assert expired(event, NOW + 1.76)
    assert expired(deliver(publish(b"1", metadata={"ttl": "-1s"})), NOW + 0.1)


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ({}, None),
        ({"ttl": ""}, None),
        ({"ttlInSeconds": "60"}, 60),
        ({"TTLINSECONDS": "+007"}, 7),
        ({"ttl": "90"}, 90),
        ({"Ttl": "1h30m"}, 5400),
        ({"ttl": "1.5s"}, 1.5),
        ({"ttl": "250ms"}, 0.25),
        ({"ttl": "PT10S"}, 10),
        ({"ttl": " 5 "}, 5),
        ({"ttl": "-5s"}, 0),
        ({"ttl": "0s"}, 0),
        ({"ttlInSeconds": "60", "ttl": "5s"}, 5),
        ({"ttl": "", "ttlInSeconds": "60"}, 60),
        ({"ttlInSeconds": "9" * 5000}, 9223372036),
        ({"tt1": "x", "ttlInMinutes": "y", "ttlInSecondz": "z"}, None),
    ],
)
def test_ttl_values_that_are_accepted(metadata: dict[str, str], seconds: float | None) -> None:
    assert ttl_of(metadata) == seconds
    assert publish(b"1", metadata=metadata)


@pytest.mark.parametrize(
    "value", ["0", "-1", "-0", "+0", "1.5", "x", "5d", " -5 ", "1_0", "٣", "1e3", "1h 2m", "NaN", "s"]
)
@pytest.mark.parametrize("name", ["ttl", "TtlInSeconds"])
def test_a_bad_ttl_refuses_the_publish_and_names_the_key(name: str, value: str) -> None:
    for broker_has_ttl in (False, True):
        with pytest.raises(InvalidArgumentError, match=name):
            publish(b"1", metadata={name: value}, broker_has_ttl=broker_has_ttl)


def test_raw_payload_follows_go() -> None:
    assert all(raw_payload({"rawPayload": text}) for text in ("1", "t", "T", "TRUE", "true", "True"))
    assert not any(raw_payload({"RAWPAYLOAD": text}) for text in ("0", "f", "F", "FALSE", "false", "False", ""))
    assert raw_payload({"other": "true", "rawpayload": "true"})
    assert not raw_payload({})
    with pytest.raises(InvalidArgumentError) as caught:
        raw_payload({"rawPayload": "yes"})
    assert str(caught.value) == "rawPayload value must be a valid boolean: actual is 'yes'"


def test_an_event_built_by_hand_for_a_test_is_complete() -> None:
    event = CloudEvent(
        id="1", source="s", type="t", topic="o", pubsubname="p", data=b"secret", datacontenttype="text/a"
    )
    assert "secret" not in repr(event)
    assert deliver(event.to_json()).data == b"secret"
    assert not expired(event)
