"""What a worker holds: how much it takes, what can be seen of it, and what it leaves to others."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import ContentDisallowed, OperationalError

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning
from celery.message import Message
from celery.ports import Publication, SystemClock
from celery.routing import Route
from celery.worker import state
from celery.worker.admission import TaskPolicy, limits_of
from celery.worker.consumer.strangers import IN_COMPANY, Strangers
from celery.worker.request import Request
from celery.worker.telling import Telling
from tests.flow.engine import DEADLINE, House, until
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

seconds = st.none() | st.just(0) | st.floats(0.1, 100)


@given(call=st.tuples(seconds, seconds), task=st.tuples(seconds, seconds))
def test_each_limit_is_the_first_that_says_anything(call: Any, task: Any) -> None:
    message = Message({"task": "t", "id": "1", "timelimit": list(call)}, b"")
    limits = limits_of(message, TaskPolicy("t", hard_limit=task[0], soft_limit=task[1]))
    for found, wanted in ((limits.hard, (call[0], task[0])), (limits.soft, (call[1], task[1]))):
        assert found == next((limit for limit in wanted if limit), None)


# ------------------------------------------------------------------------------------------------------------ strangers


class Hands(SystemClock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.now


@given(st.floats(0.01, 1000))
def test_a_stranger_is_looked_at_ever_less_often_and_never_after_its_time(grace: float) -> None:
    clock = Hands()
    strangers = Strangers(grace, clock)
    pauses = []
    while (pause := strangers.pause("id")) is not None:
        assert 0 < pause <= 15
        pauses.append(pause)
        clock.now += pause
    assert sum(pauses) == pytest.approx(grace)
    assert pauses[:-1] == sorted(pauses[:-1])
    assert len(pauses) <= 25 + grace / 15


def test_a_worker_that_was_never_accompanied_waits_for_nobody() -> None:
    clock = Hands()
    alone = Strangers(None, clock)
    others = [0]
    assert alone.pause("id") is None, "the broker does not know"
    alone.others = lambda ask: others[0]
    assert alone.pause("id") is None
    others[0] = 1
    assert alone.pause("id") is not None
    others[0] = 0
    clock.now += IN_COMPANY - 1
    assert alone.pause("other") is not None, "company that has left may come back"
    clock.now += 2
    assert alone.pause("id") is None
    assert alone.pause("third") is None

    def silent(ask: bool) -> int:
        raise OperationalError("away")

    alone.others = silent
    assert alone.pause("id") is not None, "who cannot ask refuses nothing"
    never = Strangers(0, clock)
    never.others = lambda ask: 5
    assert never.pause("id") is None


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.slow
def test_tasks_of_the_next_release_are_left_to_its_worker(house: House) -> None:
    """1,000 messages, one worker that does not know them and one that does: none is refused, each is run once."""
    newer = House(house.url)
    newer.policies["v2"] = TaskPolicy("v2")
    newer.runner.by_name["v2"] = newer.runner.add
    with house.running(), newer.running():
        until(lambda: "ready" in house.notes.told and "ready" in newer.notes.told, "both are there")
        ids = [house.send("v2", n) for n in range(1000)]
        for n, task_id in enumerate(ids):
            assert newer.result(task_id)["result"] == n
    assert sorted(newer.runner.ran) == sorted(ids)
    assert (house.notes.refusals, house.runner.ran) == ([], [])
    assert house.notes.unknown_ids, "it never met one: the test shows nothing"


def test_they_wait_while_that_worker_is_away(house: House) -> None:
    house.parts["unknown_grace"] = 3600.0
    with house.running():
        ids = [house.send("v2", n) for n in range(20)]
        until(lambda: {met for met, _ in house.notes.unknown_ids} == set(ids), "it met them all")
        assert house.result(house.send("add", 1))["result"] == 1, "others are not held up"
    assert house.notes.refusals == []
    newer = House(house.url)
    newer.policies["v2"] = TaskPolicy("v2")
    newer.runner.by_name["v2"] = newer.runner.add
    with newer.running():
        for n, task_id in enumerate(ids):
            assert newer.result(task_id)["result"] == n


def test_a_worker_alone_says_at_once_that_it_does_not_know(house: House) -> None:
    with house.running():
        assert house.result(house.send("v2"))["result"].startswith("NotRegistered")
    assert house.notes.unknown_ids == []


@pytest.mark.slow
def test_after_its_time_a_stranger_is_refused(house: House) -> None:
    house.parts["unknown_grace"] = 0.25
    with house.running():
        task_id = house.send("v2")
        assert house.result(task_id)["result"].startswith("NotRegistered")
    assert {met for met, _ in house.notes.unknown_ids} == {task_id}
    assert 2 <= len(house.notes.unknown_ids) <= 6


# ------------------------------------------------------------------------------------------------------- with real apps


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("holdings", broker=name, backend=name, set_as_current=False)

    @app.task(name="wait")
    def wait(path: str) -> None:
        pipe = os.open(path, os.O_RDONLY)
        os.read(pipe, 1)
        os.close(pipe)

    @app.task(name="wait_late", acks_late=True)
    def wait_late(path: str) -> None:
        pipe = os.open(path, os.O_RDONLY)
        os.read(pipe, 1)
        os.close(pipe)

    yield app
    app.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """A pipe at which tasks wait: its path, and a function that lets one of them through."""
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    yield path, lambda: os.write(pipe, b"!")
    os.write(pipe, b"!" * 100)  # for those that a failed test left there
    os.close(pipe)


@pytest.mark.process
@pytest.mark.parametrize(
    ("task", "options", "held"),
    [
        ("wait_late", {"prefetch_multiplier": 3}, 3),
        ("wait_late", {"prefetch_multiplier": 1}, 1),
        ("wait_late", {"disable_prefetch": True}, 1),
        ("wait", {"disable_prefetch": True}, 1),
    ],
)
def test_no_more_is_held_than_is_asked_for(
    app: Celery, gate: Any, task: str, options: dict[str, Any], held: int
) -> None:
    path, release = gate
    with working(app, **options) as worker:
        for _ in range(6):
            app.tasks[task].delay(path)
        until(lambda: any(one.begun for one in worker.consumer.reserved()), "one runs")
        assert len(worker.consumer.reserved()) <= held
        done = 0
        while done < 6:
            release()
            done += 1
            assert len(worker.consumer.reserved()) <= held
        until(lambda: not worker.consumer.reserved(), "all are done")


@pytest.mark.parametrize(("multiplier", "most"), [(None, None), (0, None), (2, 6)])
def test_the_setting_counts_only_if_it_is_set(app: Celery, multiplier: int | None, most: int | None) -> None:
    if multiplier is not None:
        app.conf.worker_prefetch_multiplier = multiplier
    assert app.WorkController(app=app, pool="solo", concurrency=3).max_prefetch_count == most


@pytest.mark.process
def test_what_a_worker_holds_can_be_seen(app: Celery, gate: Any) -> None:
    path, release = gate
    heard: list[Any] = []

    def received(request: Any, sender: Any, **_: Any) -> None:
        heard.append((type(request), request.id, request.name, sender))

    signals.task_received.connect(received, weak=False, dispatch_uid="t")
    before = state.all_total_count[0]
    try:
        with working(app, hostname="h@x") as worker:
            result = app.tasks["wait"].apply_async((path,), shadow="shown", countdown=0)
            (request,) = until(lambda: list(state.active_requests), "it runs")
            assert list(state.reserved_requests) == [request]
            assert request in state.active_requests
            assert state.requests[result.id] is request
            assert (request.id, request.name, request.type) == (result.id, "shown", "wait")
            assert repr(request) == f"<Request: shown[{result.id}] ({path!r},) {{}}>"
            info = request.info()
            assert info["worker_pid"] == worker.pool.pids[0]  # type: ignore[union-attr]
            assert info["acknowledged"] is True
            assert info["delivery_info"] == {
                "exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False,
            }  # fmt: skip
            assert (info["args"], info["hostname"]) == ([path], "h@x")
            assert request.info(safe=True)["args"] == f"({path!r},)"
            release()
            result.get(timeout=DEADLINE)
            until(lambda: not state.reserved_requests, "it is gone")
            assert heard == [(Request, result.id, "shown", worker.consumer)]
            assert state.all_total_count[0] == before + 1
    finally:
        signals.task_received.disconnect(dispatch_uid="t")


@pytest.mark.process
def test_revoked_tasks_are_not_run(app: Celery) -> None:
    told: list[Any] = []

    def revoked(request: Any, terminated: Any, signum: Any, expired: Any, **_: Any) -> None:
        told.append((request.id, terminated, signum, expired))

    signals.task_revoked.connect(revoked, weak=False, dispatch_uid="t")
    try:
        state.revoked.add("not-this")
        with working(app):
            result = app.tasks["wait"].apply_async(("/nowhere",), task_id="not-this")
            with pytest.raises(Exception, match="revoked"):
                result.get(timeout=DEADLINE)
            assert result.state == "REVOKED"
    finally:
        signals.task_revoked.disconnect(dispatch_uid="t")
        state.revoked.clear()
    assert told == [("not-this", False, None, False)]


@pytest.mark.process
def test_signals_of_refused_messages(app: Celery) -> None:
    told: list[Any] = []

    def unknown(sender: Any, message: Any, exc: Any, name: str, id: str, **_: Any) -> None:
        told.append(
            (name, id, isinstance(exc, KeyError), message.properties["correlation_id"], message.headers["task"])
        )

    signals.task_unknown.connect(unknown, weak=False, dispatch_uid="t")
    try:
        with working(app), pytest.raises(Exception, match="nope"):
            app.send_task("nope", task_id="x").get(timeout=DEADLINE)
    finally:
        signals.task_unknown.disconnect(dispatch_uid="t")
    assert told == [("nope", "x", True, "x", "nope")]


@pytest.mark.process
def test_receivers_of_life_signals_hear_what_celery_tells_them(app: Celery) -> None:
    heard: dict[str, Any] = {}

    def hear(name: str) -> Any:
        def receiver(sender: Any, signal: Any, **told: Any) -> None:
            heard.setdefault(name, (sender, told))

        return receiver

    names = (
        "celeryd_init", "celeryd_after_setup", "worker_init", "worker_before_create_process", "worker_ready",
        "worker_shutdown",
    )  # fmt: skip
    for name in names:
        getattr(signals, name).connect(hear(name), weak=False, dispatch_uid="t")
    try:
        with working(app, app.Worker, hostname="h@x", quiet=True) as worker:
            pool = worker.pool
    finally:
        for name in names:
            getattr(signals, name).disconnect(dispatch_uid="t")
    sender, told = heard["celeryd_init"]
    assert (sender, told["instance"], told["conf"]) == ("h@x", worker, app.conf)
    assert told["options"]["concurrency"] == 1
    assert heard["celeryd_after_setup"] == ("h@x", {"instance": worker, "conf": app.conf})
    assert heard["worker_init"] == heard["worker_shutdown"] == (worker, {})
    assert heard["worker_before_create_process"] == (pool, {})
    assert heard["worker_ready"] == (worker.consumer, {})


@pytest.mark.process
def test_children_tell_of_their_life(app: Celery, tmp_path: Path) -> None:
    note = tmp_path / "note"

    def write(*words: object) -> None:
        with note.open("a") as file:
            print(*words, file=file)

    signals.worker_process_init.connect(lambda **_: write("init", os.getpid()), weak=False, dispatch_uid="t")
    signals.worker_process_shutdown.connect(
        lambda pid, exitcode, **_: write("shutdown", pid, exitcode), weak=False, dispatch_uid="t"
    )
    try:
        with working(app, concurrency=2) as worker:
            until(lambda: note.exists() and len(note.read_text().splitlines()) == 2, "both children are there")
            until(lambda: len(worker.pool.pids) == 2, "it knows both")  # type: ignore[union-attr]
            pids = worker.pool.pids  # type: ignore[union-attr]
    finally:
        signals.worker_process_init.disconnect(dispatch_uid="t")
        signals.worker_process_shutdown.disconnect(dispatch_uid="t")
    wanted = [f"init {pid}" for pid in pids] + [f"shutdown {pid} 0" for pid in pids]
    assert sorted(note.read_text().splitlines()) == sorted(wanted)


@pytest.mark.process
def test_what_is_no_task_message_is_told_as_rejected(app: Celery) -> None:
    told: list[Any] = []
    signals.task_rejected.connect(
        lambda sender, message, exc, **_: told.append((sender, exc)), weak=False, dispatch_uid="t"
    )
    try:
        with working(app) as worker:
            message = Message(
                {"task": "wait", "id": "1"}, b"", content_type="application/x-strange", routing_key="celery"
            )
            app.assembly.broker.publish([Publication(message, Route("", "celery"))])
            until(lambda: told, "it was refused")
    finally:
        signals.task_rejected.disconnect(dispatch_uid="t")
    assert [(sender, type(exc)) for sender, exc in told] == [(worker.consumer, ContentDisallowed)]


def test_who_leaves_the_first_connection_to_the_old_setting_is_told(app: Celery) -> None:
    telling = Telling(app, "redis://there", lambda: None)
    with pytest.warns(CPendingDeprecationWarning, match="broker_connection_retry_on_startup"):
        telling.connecting_failed(OperationalError("away"), 1, 100, 2.0)
    telling.connecting_failed(OperationalError("away"), 2, 100, 4.0)
    app.conf.broker_connection_retry_on_startup = True
    telling.connecting_failed(OperationalError("away"), 1, 100, 2.0)
