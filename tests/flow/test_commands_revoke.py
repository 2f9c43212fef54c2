"""Revoked tasks are not run, wherever they wait; with terminate, no further either (`[limit.9]` to `[limit.14]`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import chord, signals
from celery.exceptions import TaskRevokedError
from celery.message import Message
from celery.ports import Publication
from celery.routing import Route
from celery.worker import state
from celery.worker.consumer.revocations import Revocations, stamp_values
from tests.flow.commanding import Commanded, reset
from tests.flow.engine import DEADLINE, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def house() -> Iterator[Commanded]:
    house = Commanded()
    yield house
    reset()
    house.app.close()


@pytest.fixture
def told() -> Iterator[list[Any]]:
    told: list[Any] = []

    def revoked(request: Any = None, sender: Any = None, **what: Any) -> None:
        told.append((request.id, sender.name, what["terminated"], what["signum"], what["expired"]))

    signals.task_revoked.connect(revoked)
    yield told
    signals.task_revoked.disconnect(revoked)


values = st.one_of(st.text(max_size=3), st.integers(0, 3), st.booleans(), st.none(), st.lists(st.integers(0, 3)))


@given(st.dictionaries(st.sampled_from("abc"), values), st.dictionaries(st.sampled_from("abc"), values, max_size=2))
def test_any_value_of_any_stamp_will_do(borne: dict[str, Any], wanted: dict[str, Any]) -> None:
    def several(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value]

    message = Message({"task": "t", "id": "1", "stamps": borne, "stamped_headers": list(borne)}, b"")
    revocations = Revocations((), {header: stamp_values(value) for header, value in wanted.items()})
    expected = any(
        one == other for header in borne.keys() & wanted.keys() for one in several(borne[header])
        for other in several(wanted[header])
    )  # fmt: skip
    assert revocations.concern(message) == expected


def test_stamps_of_strangers_do_no_harm() -> None:
    revocations = Revocations({"1"}, {"mon": stamp_values({"a": []})})
    for stamps in (None, 5, [], {"mon": None}, {"mon": {"a": []}}):
        message = Message({"task": "t", "id": "2", "stamps": stamps}, b"")
        assert revocations.concern(message) == (stamps == {"mon": {"a": []}})
    assert revocations.concern(Message({"task": "t", "id": "1"}, b""))


def test_what_waits_in_the_broker_is_dropped_in_its_turn(house: Commanded, told: list[Any]) -> None:
    with house.running():
        house.held("first")
        behind = [house.quick.delay(n) for n in range(3)]
        later = house.quick.apply_async(("later",), countdown=0.3)
        ids = {behind[1].id, later.id}
        assert house.tell("revoke", task_id=list(ids))["ok"].startswith("tasks {")
        assert behind[1].state == later.state == "REVOKED", "whoever waits is told at once"
        with pytest.raises(TaskRevokedError, match="revoked"):
            behind[1].get(timeout=DEADLINE)
        house.gate.set()
        assert [behind[0].get(timeout=DEADLINE), behind[2].get(timeout=DEADLINE)] == [0, 2]
        until(lambda: {one[0] for one in told} == ids, "both were dropped")
    assert told == [(each, "quick", False, None, False) for each in (behind[1].id, later.id)]
    assert house.ran == ["first", 0, 2]


def test_what_the_pool_holds_and_has_not_begun_is_dropped(house: Commanded, told: list[Any]) -> None:
    with house.running() as worker:
        warm = [house.quick.delay(n) for n in range(50)]  # short by experience, so handed over in batches
        [one.get(timeout=DEADLINE) for one in warm]
        first = house.held("first")
        worker.consumer.commands.ask(lambda: None, DEADLINE)
        held = house.quick.delay("held")
        until(lambda: worker.consumer.load >= 1, "it is here or waits")
        house.tell("revoke", task_id=held.id)
        house.gate.set()
        assert first.get(timeout=DEADLINE) == "first"
        until(lambda: [one[0] for one in told] == [held.id], "it was dropped")
    assert "held" not in house.ran


def test_what_runs_goes_on(house: Commanded, told: list[Any]) -> None:
    with house.running():
        first = house.held("first")
        house.tell("revoke", task_id=first.id)
        assert first.state != "REVOKED"
        house.gate.set()
        assert first.get(timeout=DEADLINE) == "first"
    assert told == []


def test_what_has_ended_keeps_its_result(house: Commanded) -> None:
    with house.running():
        ended = house.quick.delay(1)
        ended.get(timeout=DEADLINE)
        house.tell("revoke", task_id=ended.id)
        assert (ended.state, house.app.AsyncResult(ended.id).result) == ("SUCCESS", 1)
        house.tell("revoke", task_id="never heard of")
        assert house.app.AsyncResult("never heard of").state == "REVOKED"


def test_a_chord_with_a_revoked_member_fails_instead_of_hanging(house: Commanded) -> None:
    with house.running():
        house.held("first")
        members = [house.quick.s(n).set(task_id=f"member-{n}") for n in range(2)]
        body = chord(members)(house.quick.s())
        house.tell("revoke", task_id="member-1")
        house.gate.set()
        with pytest.raises(Exception, match=r"member-1|revoked"):
            body.get(timeout=DEADLINE)


def test_a_redelivered_task_stays_revoked(house: Commanded, told: list[Any]) -> None:
    message = Message({"task": "quick", "id": "again"}, json.dumps([[1], {}, {}]).encode(), routing_key="celery")
    state.merge_revoked(["again"])
    broker = house.app.assembly.broker
    broker.publish([Publication(message, Route("", "celery", house.app.amqp.queues.spec("celery")))])
    consumer = broker.consume([house.app.amqp.queues.spec("celery")])
    consumer.reject(consumer.fetch(1, DEADLINE), requeue=True)
    consumer.close()
    with house.running():
        until(lambda: told, "it was dropped")
    assert (told[0][0], house.ran) == ("again", [])


def test_a_run_is_ended_and_its_neighbours_are_not(house: Commanded, told: list[Any]) -> None:
    with house.running(concurrency=3):
        doomed, spared = house.spin.delay("doomed"), house.spin.delay("spared")
        until(lambda: {info["id"] for info in house.tell("active")} == {doomed.id, spared.id}, "both run")
        assert house.tell("revoke", task_id=doomed.id, terminate=True) == {"ok": f"terminate: {doomed.id}"}
        with pytest.raises(TaskRevokedError, match="terminated"):
            doomed.get(timeout=DEADLINE)
        assert [info["id"] for info in house.tell("active")] == [spared.id]
        assert told == [(doomed.id, "spin", True, signal.SIGTERM, False)]
        house.gate.set()
        spared.get(timeout=DEADLINE)
        assert house.quick.delay(1).get(timeout=DEADLINE) == 1


def test_terminate_names_what_it_found(house: Commanded) -> None:
    with house.running():
        assert house.tell("terminate", signal="KILL", task_id=["x", "y"]) == {"ok": "terminate: tasks unknown"}
        assert house.tell("terminate", signal="9", task_id="x") == {"ok": "terminate: tasks unknown"}
        for wrong in ("FOO", "sigterm", 1.5):
            with pytest.raises(ValueError, match="expected a signal"):
                house.tell("revoke", task_id="z", terminate=True, signal=wrong)
        assert "z" not in state.revoked
        assert "expected ids" in house.tell("revoke", task_id=5)["error"]
        assert "x" in state.revoked


def test_terminating_what_has_not_begun_drops_it(house: Commanded, told: list[Any]) -> None:
    house.app.conf.task_annotations = {"quick": {"rate_limit": "1/h"}}
    with house.running():
        house.quick.delay(1).get(timeout=DEADLINE)
        second = house.quick.delay(2)
        until(lambda: house.tell("reserved"), "it waits for its rate")
        assert house.tell("revoke", task_id=second.id, terminate=True) == {"ok": f"terminate: {second.id}"}
        until(lambda: told == [(second.id, "quick", False, None, False)], "it was dropped")
        assert house.tell("reserved") == []
    assert house.ran == [1]


def test_a_pool_that_cannot_end_runs_says_so(house: Commanded) -> None:
    with house.running(pool="solo") as worker:
        doomed = house.hold.delay("solo")
        until(lambda: house.ran, "it runs")
        reply = house.tell("revoke", task_id=doomed.id, terminate=True)
        assert "SoloPool cannot end what runs" in reply["error"]
        assert doomed.id in state.revoked
        assert house.tell("revoke", task_id="x", terminate=True) == {"ok": "terminate: tasks unknown"}
        house.gate.set()
        assert doomed.get(timeout=DEADLINE) == "solo"
        worker.consumer.commands.ask(lambda: None, DEADLINE)


def test_stamped_tasks(house: Commanded, told: list[Any]) -> None:
    with house.running(concurrency=2):
        running = house.spin.s("running")
        running.stamp(mon="a")
        running = running.apply_async()
        until(lambda: house.tell("active"), "it runs")
        reply = house.tell("revoke_by_stamped_headers", headers={"mon": ["a"]})
        assert reply == {"ok": "headers {'mon': ['a']} flagged as revoked, but not terminated"}
        for mark, stamps in (("dropped", {"mon": ["z", "a"]}), ("run", {"mon": "b"}), ("plain", {})):
            call = house.quick.s(mark)
            if stamps:
                call.stamp(**stamps)
            result = call.apply_async()
            if mark == "dropped":
                with pytest.raises(TaskRevokedError):
                    result.get(timeout=DEADLINE)
            else:
                assert result.get(timeout=DEADLINE) == mark
        reply = house.tell("revoke_by_stamped_headers", headers={"mon": "a"}, terminate=True)
        assert reply == {"ok": "headers {'mon': 'a'} revoked"}
        with pytest.raises(TaskRevokedError, match="terminated"):
            running.get(timeout=DEADLINE)
        reply = house.tell("revoke_by_stamped_headers", headers=["k=v"], terminate=True, signal="KILL")
        assert reply == {"ok": "headers {'k': 'v'} were not terminated"}
        with pytest.raises(ValueError, match="name=value"):
            house.tell("revoke_by_stamped_headers", headers="k")
    assert "dropped" not in house.ran


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "REVOKES_MAX", 3)
    for n in range(10):
        state.revoke_stamps(f"h{n}", range(10))
    assert list(state.revoked_stamps) == ["h7", "h8", "h9"]
    assert all(list(values) == [7, 8, 9] for values in state.revoked_stamps.values())
    monkeypatch.setattr(state.revoked_stamps["h9"], "expires", 1e-9)
    state.forget_old_revocations()
    assert list(state.revoked_stamps) == ["h7", "h8"]
    reset()
    assert state.revoked_stamps == {}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CELERY_WORKER_REVOKES_MAX", "7", "(7, 10800.0, 1000, 10800.0)"),
        ("CELERY_WORKER_REVOKE_EXPIRES", "0.5", "(50000, 0.5, 1000, 10800.0)"),
        ("CELERY_WORKER_SUCCESSFUL_MAX", "x", "ImproperlyConfigured"),
    ],
)
def test_the_bounds_come_from_the_environment(name: str, value: str, expected: str) -> None:
    names = "REVOKES_MAX REVOKE_EXPIRES SUCCESSFUL_MAX SUCCESSFUL_EXPIRES"
    code = f"from celery.worker import state; print(tuple(getattr(state, name) for name in {names!r}.split()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: value}, capture_output=True, text=True, timeout=60
    )
    assert expected in done.stdout + done.stderr
    assert name in done.stderr or not done.stderr


@pytest.mark.slow
def test_revoked_ids_are_written_at_once(house: Commanded, tmp_path: Any) -> None:
    path = tmp_path / "state"
    with house.running(statedb=str(path)):
        house.tell("revoke", task_id="for ever")
        until(lambda: path.exists() and "for ever" in json.loads(path.read_bytes())["revoked"], "it is written")
