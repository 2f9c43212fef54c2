"""`celery.worker.request`, `.strategy` and `.state` by themselves, as Celery 5.7 was observed to do."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

import pytest

from celery import Celery
from celery.exceptions import InvalidTaskError
from celery.message import Message
from celery.utils.collections import LimitedSet
from celery.worker import state
from celery.worker.request import Received, Request, create_request_cls
from celery.worker.strategy import hybrid_to_proto2, proto1_to_proto2


@pytest.fixture
def app():
    app = Celery("requests", broker="memory://requests", set_as_current=False)

    @app.task(name="add", acks_late=True)
    def add(x, y=1):
        return x + y

    yield app
    app.close()


def received(**headers: Any) -> Received:
    headers = {"task": "add", "id": "1", "argsrepr": "(1,)", "kwargsrepr": "{}", **headers}
    properties = {"reply_to": "r", "correlation_id": "1", "priority": 3}
    return Received(Message(headers, b'[[1], {"y": 2}, {"errbacks": ["e"]}]', properties=properties, routing_key="q"))


def test_what_the_message_says(app):
    request = Request(
        received(shadow="sh", eta="2030-01-01T00:00:00+00:00", expires="2031-01-01T00:00:00", timelimit=[5, 3]),
        app=app,
        hostname="h",
    )
    assert (request.name, request.type, request.task_name) == ("sh", "add", "sh")
    assert (request.args, request.kwargs, request.errbacks, request.chord) == ([1], {"y": 2}, ["e"], None)
    assert list(request.time_limits) == [5, 3]
    assert request.eta == dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    assert (request.reply_to, request.correlation_id, request.groups, request.stamps) == ("r", "1", [], {})
    assert request.delivery_info == {"exchange": "", "routing_key": "q", "priority": 3, "redelivered": False}
    assert request.task is app.tasks["add"]
    assert repr(request) == "<Request: sh[1] (1,) {}>"
    assert str(request) == "sh[1]  ETA:[2030-01-01 00:00:00+00:00]  expires:[2031-01-01 00:00:00+00:00]"
    assert request.info() == {
        "id": "1", "name": "sh", "args": [1], "kwargs": {"y": 2}, "type": "add", "hostname": "h", "time_start": None,
        "acknowledged": False, "delivery_info": request.delivery_info, "worker_pid": None,
    }  # fmt: skip
    assert not request.revoked()


def test_revoked_and_expired(app):
    assert Request(received(expires="2001-01-01T00:00:00"), app=app).revoked()
    state.revoked.add("1")
    try:
        assert Request(received(), app=app).revoked()
    finally:
        state.revoked.clear()


@pytest.mark.parametrize("headers", [{"eta": "soon"}, {"expires": "later"}])
def test_wrong_dates_are_refused(app, headers):
    with pytest.raises(InvalidTaskError, match=r"invalid (eta|expires) value"):
        Request(received(**headers), app=app)


def test_a_message_is_settled_once(app):
    settled = []
    request = Request(
        received(),
        app=app,
        on_ack=lambda log, errors: settled.append("ack"),
        on_reject=lambda log, errors, requeue: settled.append(requeue),
    )
    request.reject(requeue=True)
    request.acknowledge()
    request.reject()
    assert settled == [True]
    assert request.acknowledged


def test_made_by_hand_as_batches_do(app):
    body = ((1,), {"y": 2}, {})
    cls = create_request_cls(Request, app.tasks["add"], None, "h", None)
    request = cls(received(), body=body, headers={"task": "add", "id": "2"}, decoded=True, utc=True)
    assert (request.id, request.args, request._payload, request.hostname) == ("2", (1,), body, "h")
    state.task_reserved(request)
    assert request in state.reserved_requests
    assert state.requests["2"] is request
    state.task_accepted(request)
    assert request in state.active_requests
    state.task_ready(request, successful=True)
    assert "2" in state.successful_requests
    assert not state.active_requests
    assert not state.reserved_requests
    state.reset_state()


class Old:
    headers: ClassVar[dict[str, Any]] = {}


def test_protocol_1_in_terms_of_protocol_2():
    body = {"task": "add", "id": "1", "args": [1], "kwargs": {"y": 1}, "taskset": "g", "retries": 2, "callbacks": None}
    embed = {"callbacks": None, "errbacks": None, "chord": None, "chain": None}
    assert proto1_to_proto2(Old(), dict(body)) == (
        ([1], {"y": 1}, embed),
        {**body, "argsrepr": "[1]", "kwargsrepr": "{'y': 1}", "headers": {}, "group": "g"},
        True,
        True,
    )
    payload, headers, decoded, utc = hybrid_to_proto2(Old(), dict(body))
    assert (payload, decoded, utc) == (([1], {"y": 1}, embed), True, True)
    assert (headers["task"], headers["retries"], headers["timelimit"], headers["meth"]) == (
        "add",
        2,
        (None, None),
        None,
    )
    for convert in (proto1_to_proto2, hybrid_to_proto2):
        assert convert(Old(), {"task": "add", "id": "1"})[0][:2] == ((), {})
        with pytest.raises(InvalidTaskError, match="must be a mapping"):
            convert(Old(), {"task": "add", "id": "1", "kwargs": 5})


def test_a_limited_set_forgets():
    known = LimitedSet(3, 10)
    for n in range(5):
        known.add(n, now=100 + n)
    assert list(known) == [2, 3, 4]
    assert known.view() == {2, 3, 4}
    known.add(2, now=112)
    assert list(known) == [3, 4, 2]
    known.add(9, now=105)
    assert list(known) == [4, 9, 2]
    known.purge(now=115)
    assert known.as_dict() == {2: 112}
    assert (known.pop(), known.pop("none"), bool(known)) == (2, "none", False)
    kept = LimitedSet(5, 10, minlen=2)
    kept.update({"a": 1.0, "b": 2.0, "c": 3.0})
    kept.purge(now=1000)
    assert list(kept) == ["b", "c"]
    for wrong in ({"maxlen": 2, "minlen": 5}, {"expires": -1}):
        with pytest.raises(ValueError, match=r"minlen|expires"):
            LimitedSet(**wrong)
