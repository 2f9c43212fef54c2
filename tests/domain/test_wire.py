"""Protocols 1 and 2 (`[wire.2]`, `[wire.9]`, `[wire.13]`, `[wire.14]`)."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from celery import wire
from celery.codecs import read_protocol_1
from celery.message import MalformedMessage, headers_v2, read_body

CELERY_5_7_HEADERS = (
    "lang task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr origin "
    "ignore_result replaced_task_nesting stamped_headers stamps"
).split()


def headers(**options: Any) -> dict[str, Any]:
    return headers_v2(
        "proj.add", "ID", options=options, root_id="ID", parent_id=None, argsrepr="(1,)", kwargsrepr="{}", origin="me"
    )


def test_all_headers_are_always_there_in_celerys_order() -> None:
    assert list(headers()) == CELERY_5_7_HEADERS
    assert headers()["timelimit"] == [None, None]
    assert headers()["stamps"] == {}
    assert headers()["retries"] == 0
    assert headers()["ignore_result"] is None, "the task decides, where the sender knows it (seen with send_task)"


def test_limits_are_hard_then_soft() -> None:
    assert headers(time_limit=9, soft_time_limit=5)["timelimit"] == [9, 5]


def test_stamps_are_taken_from_the_options_that_they_name() -> None:
    found = headers(stamped_headers=["mon"], mon="x")
    assert (found["stamped_headers"], found["stamps"]) == (["mon"], {"mon": "x"})


def test_reads_a_body() -> None:
    assert read_body([[1], {"a": 2}, {"chain": None}]) == ([1], {"a": 2}, {"chain": None})


@pytest.mark.parametrize("payload", [None, 5, "abc", [], [[1], {}], [[1], 5, {}], [5, {}, {}], {"task": "x"}])
def test_refuses_any_other_body(payload: Any) -> None:
    with pytest.raises(MalformedMessage, match="expected a body of"):
        read_body(payload)


def protocol_1(body: Any, **headers: Any) -> bytes:
    return json.dumps(
        {
            "body": b64encode(json.dumps(body).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "body_encoding": "base64",
                "reply_to": "R",
                "delivery_tag": "T",
                "delivery_info": {"exchange": "", "routing_key": "q"},
            },
        }
    ).encode()


def read(raw: bytes) -> Any:
    return read_protocol_1(raw)


def test_reads_protocol_1_as_protocol_2() -> None:
    message = read(
        protocol_1(
            {
                "task": "proj.add", "id": "ID", "args": [1], "kwargs": {"y": 2}, "retries": 3, "utc": True,
                "eta": "2030-01-01T00:00:00", "expires": None, "timelimit": [4, None], "taskset": "G",
                "callbacks": [{"task": "x"}], "errbacks": None, "chord": None,
            },
            foo="bar",
        )
    )  # fmt: skip
    assert (message.task, message.id, message.retries, message.timelimit) == ("proj.add", "ID", 3, (4, None))
    assert message.eta == "2030-01-01T00:00:00+00:00"
    assert message.headers["group"] == "G"
    assert message.headers["foo"] == "bar"
    assert message.properties["reply_to"] == "R"
    args, kwargs, embed = read_body(json.loads(message.body))
    assert (args, kwargs, embed["callbacks"], embed["chain"]) == ([1], {"y": 2}, [{"task": "x"}], None)


def test_missing_arguments_are_empty() -> None:
    message = read(protocol_1({"task": "t", "id": "i"}))
    assert json.loads(message.body)[:2] == [[], {}]


@pytest.mark.parametrize("body", [{"task": "t"}, {"id": "i"}, [1], "x", None, 4])
def test_refuses_what_is_neither(body: Any) -> None:
    with pytest.raises(MalformedMessage, match="expected a task message"):
        read(protocol_1(body))


@pytest.mark.parametrize("noise", [b"", b"[]", b"5", b"{}", b"\xff", b'{"body": 5}'])
def test_noise_is_named(noise: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read(noise)


def test_protocol_1_is_written_with_celerys_keys() -> None:
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    keys = "task id args kwargs group group_index retries eta expires utc callbacks errbacks timelimit taskset chord"
    assert list(wire.body_v1(headers(), [1], {}, embed, True)) == keys.split()
