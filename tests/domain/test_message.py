"""A message and its envelope: what one writes the other reads, and bad bytes are named, not lost."""

from __future__ import annotations

import json
import tracemalloc
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.message import MalformedMessage, Message

HEADERS = {"lang": "py", "task": "proj.add", "id": "abc", "retries": 2, "timelimit": [9, 5], "eta": None, "foo": "bar"}


def envelope(**changes: Any) -> bytes:
    whole = {
        "body": b64encode(b"[[1], {}, {}]").decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": HEADERS,
        "properties": {
            "body_encoding": "base64",
            "priority": 3,
            "delivery_info": {"exchange": "", "routing_key": "celery", "redelivered": True},
            "correlation_id": "abc",
        },
    }
    return json.dumps({**whole, **changes}).encode()


def test_reads_what_decides() -> None:
    message = Message.from_envelope(envelope())
    assert (message.task, message.id, message.retries, message.timelimit) == ("proj.add", "abc", 2, (9, 5))
    assert (message.priority, message.redelivered, message.routing_key) == (3, True, "celery")
    assert message.headers["foo"] == "bar"
    assert message.properties["correlation_id"] == "abc"
    assert message.body == b"[[1], {}, {}]"


def test_forwards_the_bytes_that_came() -> None:
    raw = envelope()
    assert Message.from_envelope(raw).to_envelope() is raw


def test_body_may_be_plain_text() -> None:
    message = Message.from_envelope(envelope(body="[[], {}, {}]", properties={}))
    assert message.body == b"[[], {}, {}]"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "envelope"),
        (b"{", "envelope"),
        (b"[]", "envelope"),
        (b"\xff\xfe", "envelope"),
        (b'{"body": "x"}', "'task'"),
        (envelope(headers={"task": "a"}), "'id'"),
        (envelope(headers={"task": 5, "id": "x"}), "task"),
        (envelope(body=[1, 2]), "body"),
        (envelope(headers="nonsense"), "envelope"),
        (envelope(properties=7), "envelope"),
    ],
)
def test_names_what_is_wrong(raw: bytes, says: str) -> None:
    with pytest.raises(MalformedMessage, match=says):
        Message.from_envelope(raw)


def test_broken_base64_is_found_when_the_body_is_read() -> None:
    message = Message.from_envelope(envelope(body="a"))
    with pytest.raises(MalformedMessage, match="base64"):
        _ = message.body


@given(
    body=st.binary(max_size=200),
    custom=st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text()), max_size=4),
    priority=st.integers(0, 255),
    redelivered=st.booleans(),
    routing_key=st.text(max_size=20),
)
def test_round_trip(body: bytes, custom: dict[str, Any], priority: int, redelivered: bool, routing_key: str) -> None:
    message = Message(
        {**custom, "task": "t", "id": "i"},
        body,
        properties={"priority": priority, "reply_to": "me"},
        routing_key=routing_key,
        redelivered=redelivered,
    )
    again = Message.from_envelope(message.to_envelope())
    assert again.body == body
    assert again.headers == message.headers
    assert (again.priority, again.redelivered, again.routing_key) == (priority, redelivered, routing_key)
    assert again.properties["reply_to"] == "me"


@given(st.binary(max_size=300))
def test_any_noise_is_named(noise: bytes) -> None:
    with pytest.raises(MalformedMessage, match="expected"):
        Message.from_envelope(noise)


def test_a_large_body_is_copied_twice_on_its_way_into_the_envelope() -> None:
    """As base64 and as a part of the envelope: at no time is there a third copy beside it."""
    message = Message({"task": "t", "id": "1"}, bytes(6 << 20), properties={})
    tracemalloc.start()
    try:
        envelope = message.to_envelope()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert b64decode(json.loads(envelope)["body"]) == bytes(6 << 20)
    assert held < 1.05 * len(envelope)
    assert peak < 2.1 * len(envelope)
