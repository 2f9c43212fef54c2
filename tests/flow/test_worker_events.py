"""What a worker tells monitors: its tasks, its heart; on and off while it runs; while the broker is away."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from celery import Celery, signals
from celery.events.ways import NoticeProducer
from celery.exceptions import Reject
from celery.message import Message
from celery.outcome import Success
from celery.ports import Report
from celery.worker import state
from celery.worker.consumer.consumer import state_for
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle
from celery.worker.control import Panel
from celery.worker.course import Course
from celery.worker.heartbeat import Heart
from celery.worker.telling import Telling
from celery.worker.watched import shared_gate
from tests.flow.engine import DEADLINE, until
from tests.flow.running import working
from tests.hearing import Ear

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMON = {"type", "hostname", "timestamp", "utcoffset", "pid", "clock", "local_received"}
#: Seen of the real Celery 5.7: what each event has beyond what all have.
FIELDS = {
    "task-sent": {
        "uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires", "queue", "exchange",
        "routing_key",
    },
    "task-received": {"uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires"},
    "task-started": {"uuid"},
    "task-succeeded": {"uuid", "result", "runtime"},
    "task-failed": {"uuid", "exception", "traceback"},
    "task-retried": {"uuid", "exception", "traceback"},
    "task-rejected": {"uuid", "requeue"},
    "task-revoked": {"uuid", "terminated", "signum", "expired"},
    "worker-online": {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"},
    "worker-heartbeat": {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"},
    "worker-offline": {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"},
}  # fmt: skip


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    state.reset_state()  # which is the process's, whoever had a worker in it
    app = Celery("told", broker=name, backend=name, set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="fail")
    def fail() -> None:
        raise KeyError("a")

    @app.task(name="again", bind=True)
    def again(self: Any) -> str:
        if not self.request.retries:
            raise self.retry(exc=ValueError("why"), countdown=0)
        return "x" * 3000

    @app.task(name="reject", acks_late=True)
    def reject() -> None:
        raise Reject("no", requeue=False)

    @app.task(name="silent", send_events=False)
    def silent() -> None: ...

    yield app
    app.close()
    state.reset_state()


def telling(app: Celery, **options: Any) -> Any:
    return working(app, hostname="w@h", **{"pool": "solo", "task_events": True, "without_heartbeat": True, **options})


def ended(ear: Ear, uuid: str, type: str) -> list[str]:
    until(lambda: type in ear.types(uuid), f"{type} of {uuid}; heard {ear.types()}")
    return ear.types(uuid)


# ----------------------------------------------------------------------------------------------------- of each task


@pytest.mark.parametrize("pool", ["solo", "threads", pytest.param("prefork", marks=pytest.mark.process)])
def test_the_course_of_each_task(app: Celery, pool: str) -> None:
    with Ear(app) as ear, telling(app, pool=pool):
        tasks = app.tasks
        fine, failed, again, rejected = (tasks[n].delay(*a) for n, a in
                                         (("add", (1, 2)), ("fail", ()), ("again", ()), ("reject", ())))  # fmt: skip
        stale = tasks["add"].apply_async((1, 1), expires=-1)
        begun = ["task-received", "task-started"]
        assert ended(ear, fine.id, "task-succeeded") == [*begun, "task-succeeded"]
        assert ended(ear, failed.id, "task-failed") == [*begun, "task-failed"]
        assert ended(ear, again.id, "task-succeeded") == [*begun, "task-retried", *begun, "task-succeeded"]
        assert ended(ear, rejected.id, "task-rejected") == [*begun, "task-failed", "task-rejected"]
        assert ended(ear, stale.id, "task-revoked")[-1] == "task-revoked"
    events = {(event["type"], event.get("uuid")): event for event in ear.events}
    for (type, _), event in events.items():
        assert set(event) == COMMON | FIELDS[type], type
        assert event["hostname"] == "w@h"
    received = events["task-received", fine.id]
    assert {name: received[name] for name in FIELDS["task-received"]} == {
        "uuid": fine.id, "name": "add", "args": "(1, 2)", "kwargs": "{}", "root_id": fine.id, "parent_id": None,
        "retries": 0, "eta": None, "expires": None,
    }  # fmt: skip
    success = events["task-succeeded", fine.id]
    assert (success["result"], 0 <= success["runtime"] < 10) == ("3", True)
    assert len(events["task-succeeded", again.id]["result"]) < 1100  # cut as in Celery
    assert events["task-failed", failed.id]["exception"] == "KeyError('a')"
    assert "raise KeyError" in events["task-failed", failed.id]["traceback"]
    assert events["task-retried", again.id]["exception"] == "ValueError('why')"
    assert "Retry in 0s" in events["task-retried", again.id]["traceback"]
    assert events["task-rejected", rejected.id]["requeue"] is False
    revoked = events["task-revoked", stale.id]
    assert (revoked["terminated"], revoked["signum"], revoked["expired"]) == (False, None, True)
    for one in (fine, failed, again, rejected):
        clocks = [event["clock"] for event in ear.events if event.get("uuid") == one.id]
        assert clocks == sorted(clocks)
        times = [event["timestamp"] for event in ear.events if event.get("uuid") == one.id]
        assert times == sorted(times)


def test_a_revoked_one_and_an_unknown_one(app: Celery) -> None:
    app.conf.worker_unknown_task_grace = 0
    with Ear(app) as ear, telling(app):
        state.revoked.add("unwanted")
        app.tasks["add"].apply_async((1, 2), task_id="unwanted")
        unknown = app.send_task("nobody.knows")
        (revoked,) = ear.wait_for("task-revoked")
        (failed,) = ear.wait_for("task-failed")
    assert (revoked["uuid"], revoked["expired"], revoked["terminated"]) == ("unwanted", False, False)
    assert failed["uuid"] == unknown.id
    assert failed["exception"] == "NotRegistered('nobody.knows')"
    assert "traceback" not in failed


def test_what_is_sent_is_told_with_what_follows(app: Celery) -> None:
    app.conf.task_send_sent_event = True
    add = app.tasks["add"]
    with Ear(app) as ear, telling(app):
        result = (add.s(1, 2) | add.s(4)).apply_async()
        assert result.get(timeout=DEADLINE) == 7
        first, second = ear.wait_for("task-sent", 2)
    assert (first["uuid"], second["uuid"]) == (result.parent.id, result.id)
    assert set(first) == COMMON | FIELDS["task-sent"]
    assert (second["parent_id"], second["root_id"], second["args"]) == (first["uuid"], first["uuid"], "(3, 4)")


def test_tasks_that_do_not_want_to(app: Celery) -> None:
    with Ear(app) as ear, telling(app):
        app.tasks["silent"].delay().get(timeout=DEADLINE)
        last = app.tasks["add"].delay(1, 2)
        ended(ear, last.id, "task-succeeded")
    assert {event["uuid"] for event in ear.events} == {last.id}


def test_the_last_ones_are_told_at_the_end(app: Celery) -> None:
    with Ear(app) as ear:
        with telling(app):
            results = [app.tasks["add"].delay(n, n) for n in range(50)]
            results[-1].get(timeout=DEADLINE)
        ear.wait_for("task-succeeded", 50)


def test_they_come_in_lists(app: Celery) -> None:
    heard: list[Any] = []
    results = [app.tasks["add"].delay(n, n) for n in range(20)]
    carrier: Any = app.assembly.broker
    tell = carrier.tell

    def listening(notices: Any) -> None:
        heard.extend(notices)
        tell(notices)

    carrier.tell = listening
    with telling(app):
        results[-1].get(timeout=DEADLINE)
    assert {one.routing_key for one in heard} == {"task.multi"}
    assert len(heard) < 20
    assert sum(len(json.loads(one.body)) for one in heard) == 60


def test_nothing_is_told_unless_it_is_asked_for(app: Celery) -> None:
    with Ear(app) as ear, telling(app, task_events=False) as worker:
        assert app.tasks["add"].delay(1, 2).get(timeout=DEADLINE) == 3
        assert not worker._events.watched.receivers
    assert ear.types() == []


@pytest.mark.parametrize("pool", ["solo", pytest.param("prefork", marks=pytest.mark.process)])
def test_they_are_enabled_and_disabled_while_it_runs(app: Celery, pool: str) -> None:
    add = app.tasks["add"]
    with Ear(app) as ear, telling(app, task_events=False, pool=pool) as worker:
        consumer = state_for(worker)
        add.delay(0, 0).get(timeout=DEADLINE)
        assert Panel.data["enable_events"](consumer) == {"ok": "task events enabled"}
        heard = add.delay(1, 2)
        ended(ear, heard.id, "task-succeeded")
        assert Panel.data["disable_events"](consumer) == {"ok": "task events disabled"}
        add.delay(0, 0).get(timeout=DEADLINE)
    assert {event["uuid"] for event in ear.events if "uuid" in event} == {heard.id}
    assert ear.of("task-succeeded")[0]["result"] == "3"


def test_the_setting_asks_for_it(app: Celery) -> None:
    app.conf.worker_send_task_events = True
    with Ear(app) as ear, telling(app, task_events=None):
        app.tasks["add"].delay(1, 2)
        ear.wait_for("task-succeeded")


# --------------------------------------------------------------------------------------------- while it cannot be sent


class Line:
    """A carrier that is away for as long as `away` says so; it keeps what it was told."""

    def __init__(self) -> None:
        self.away = True
        self.tries = threading.Semaphore(0)
        self.told: list[Any] = []
        self.hearers: int | None = None

    def tell(self, notices: Any) -> int | None:
        self.tries.release()
        if self.away:
            raise OperationalError("away")
        self.told += [event for one in notices for event in json.loads(one.body)]
        return self.hearers

    def listen(self, mailboxes: Any) -> Any:
        raise OperationalError("away")


def course(app: Celery, line: Line, taken: Any = lambda: 0, **options: Any) -> Course:
    dispatcher = app.events.Dispatcher(None, "w@h", buffer_while_offline=False, **options)
    dispatcher.producer = NoticeProducer(line, "celeryev")
    return Course(dispatcher, shared_gate(), lambda name: name != "silent", taken)


def held_of(*names: str) -> Any:
    return {key: SimpleNamespace(message=message(name), begun=False) for key, name in enumerate(names, 1)}


def message(name: str, task: str = "add") -> Message:
    return Message({"task": task, "id": name, "argsrepr": "(1,)", "kwargsrepr": "{}"}, b"[]")


def test_events_wait_for_a_broker_that_is_away(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery.worker.course._AGAIN", 0.01)
    line = Line()
    told = course(app, line)
    told.received([message("a"), message("b")])
    assert line.tries.acquire(timeout=DEADLINE)
    told.received([message("c")])
    assert line.tries.acquire(timeout=DEADLINE)
    line.away = False
    told.stop(None)
    assert [event["uuid"] for event in line.told] == ["a", "b", "c"]
    assert [event["clock"] for event in line.told] == sorted({event["clock"] for event in line.told})


@pytest.mark.slow
def test_what_nobody_hears_is_not_made(app: Celery) -> None:
    """A few ask whether somebody does; from the first that is heard on, none is missing."""
    line = Line()
    line.away, line.hearers = False, 0
    told = course(app, line)
    try:
        told.received([message("first")])
        until(lambda: len(line.told) == 1, "nobody has heard the first")
        told.received([message(f"lost-{n}") for n in range(5000)])
        until(lambda: len(line.told) > 1 and not told._notes, "they are forgotten")
        assert len(line.told) <= 1 + 10
        line.hearers = 1
        told.received([message(f"heard-{n}") for n in range(1500)])
        until(lambda: line.told[-1]["uuid"] == "heard-1499", "the last is told")
    finally:
        told.stop(None)
    assert [event["uuid"] for event in line.told[-1500:]] == [f"heard-{n}" for n in range(1500)]
    assert told.dropped == 0


@pytest.fixture
def deaf(app: Celery) -> Iterator[tuple[Line, Course]]:
    """A busy worker's course that has found out that nobody hears it, and is about to ask again."""
    line, busy = Line(), itertools.count(step=1_000_000)
    line.away, line.hearers = False, 0
    told = course(app, line, lambda: next(busy))
    told.received([message("first")])
    until(lambda: told.entry.receivers and not told.gate.receivers, "a few are asked with")
    yield line, told
    told.stop(None)


@pytest.mark.slow
def test_a_busy_worker_that_nobody_hears_notes_a_few(deaf: tuple[Line, Course]) -> None:
    """Its pool's processes need not describe what they do; from the few that are heard on, all is told."""
    line, told = deaf
    told.received([*(message(f"silent-{n}", "silent") for n in range(50)), *(message(f"a-{n}") for n in range(50))])
    assert (told.gate.receivers, told.entry.receivers, told.enabled.receivers) == (False, False, True)
    until(lambda: told.entry.receivers, "it asks again")
    assert [event["uuid"] for event in line.told] == ["first", *(f"a-{n}" for n in range(10))]
    line.hearers = 1
    told.received([message(f"b-{n}") for n in range(50)])
    until(lambda: told.gate.receivers, "it was heard")
    told.received([message(f"c-{n}") for n in range(50)])
    until(lambda: line.told[-1]["uuid"] == "c-49", "all are told")
    assert [event["uuid"] for event in line.told[11:]] == [
        *(f"b-{n}" for n in range(10)), *(f"c-{n}" for n in range(50))
    ]  # fmt: skip
    assert told.entry.receivers


def test_what_may_be_the_last_is_told_in_full(deaf: tuple[Line, Course]) -> None:
    line, told = deaf
    line.hearers = 1
    told.received([message("a"), message("b")])
    assert told.gate.receivers
    told.reported(Report(finished=[(1, Success(runtime=0.5, told=("v", "")))]), held_of("a"))
    until(lambda: line.told[-1]["type"] == "task-succeeded", "the end of the first is told")
    assert [event["uuid"] for event in line.told] == ["first", "a", "b", "a", "a"]


@pytest.mark.slow
def test_a_worker_that_is_not_busy_any_more_notes_all(app: Celery) -> None:
    line, busy, taken = Line(), True, itertools.count(step=1_000_000)
    line.away, line.hearers = False, 0
    told = course(app, line, lambda: next(taken) if busy else 0)
    told.received([message("first")])
    until(lambda: not told.gate.receivers, "nobody hears it")
    busy = False
    until(lambda: told.gate.receivers, "it has been quiet for a while")
    told.stop(None)
    assert len(line.told) == 1


@pytest.mark.slow
def test_it_is_not_known_who_hears_a_broker_that_comes_back(deaf: tuple[Line, Course]) -> None:
    line, told = deaf
    line.away = True
    told.received([message(f"a-{n}") for n in range(50)])
    until(lambda: told.gate.receivers, "all is noted while the broker is away")
    told.received([message("b")])
    line.away, line.hearers = False, 1
    told.stop(None)
    assert [event["uuid"] for event in line.told] == ["first", *(f"a-{n}" for n in range(10)), "b"]


def test_what_happens_rarely_is_always_told(deaf: tuple[Line, Course], app: Celery) -> None:
    """It is as good to ask with as any other."""
    line, told = deaf
    line.hearers = 1
    telling = Telling(app, "memory://", lambda: None, "w@h", told)
    telling.dropped(message("a"), "expired")
    until(lambda: told.gate.receivers, "it was heard")
    assert [event["type"] for event in line.told] == ["task-received", "task-revoked"]


def test_disabled_events_are_not_asked_with(deaf: tuple[Line, Course]) -> None:
    told = deaf[1]
    gates = told.gate, told.entry, told.enabled
    told._dispatcher.disable()
    assert [gate.receivers for gate in gates] == [False, False, False]
    told._dispatcher.enable()
    assert [gate.receivers for gate in gates] == [False, True, True]


def test_not_too_many_wait(app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The oldest are left out, and that is said once."""
    monkeypatch.setattr("celery.worker.course._AGAIN", 0.01)
    monkeypatch.setattr("celery.worker.course._LIMIT", 10)
    line = Line()
    told = course(app, line)
    for n in range(30):
        told.received([message(f"{n}a"), message(f"{n}b")])
    line.tries.acquire(timeout=DEADLINE)
    line.away = False
    told.stop(None)
    assert len(line.told) <= 12
    assert line.told[-1]["uuid"] == "29b"
    (said,) = [record.getMessage() for record in caplog.records if "not sent" in record.getMessage()]
    assert said.split()[0] == str(60 - len(line.told))


def test_the_engine_waits_while_they_are_sent(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out as long as the broker takes them."""
    monkeypatch.setattr("celery.worker.course._LIMIT", 10)
    monkeypatch.setattr("celery.worker.course._CATCH_UP", DEADLINE)
    line = Line()
    line.away = False
    told = course(app, line)
    for n in range(200):
        told.received([message(f"{n}")])
    told.stop(None)
    assert [event["uuid"] for event in line.told] == [str(n) for n in range(200)]


def test_a_stop_does_not_wait_for_a_broker_that_is_away(app: Celery) -> None:
    told = course(app, Line())
    told.received([message("a")])
    told.stop(None)
    assert told._thread is None


def test_beginning_and_end_in_one_report_are_told_once_each(app: Celery) -> None:
    line = Line()
    line.away = False
    told = course(app, line)
    held: Any = {key: SimpleNamespace(message=message(str(key)), begun=key == 2) for key in (1, 2, 3)}
    ends = [(key, Success(runtime=0.5, told=("v\ud800", ""))) for key in (1, 2)]
    told.reported(Report(begun=[1, 3], finished=ends), held)
    told.stop(None)
    assert sorted((event["uuid"], event["type"].partition("-")[2]) for event in line.told) == [
        ("1", "started"), ("1", "succeeded"), ("2", "succeeded"), ("3", "started"),
    ]  # fmt: skip
    assert line.told[-1]["result"] == "v\ud800"


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_another_serializer(app: Celery, serializer: str) -> None:
    app.conf.update(event_serializer=serializer)
    receiver_accepts = [serializer, "json"]
    assert app.events.Receiver(None).accept == set(receiver_accepts)
    app.conf.accept_content = receiver_accepts
    with Ear(app) as ear, telling(app):
        app.tasks["add"].delay(1, 2)
        (event,) = ear.wait_for("task-received")
        ear.wait_for("task-succeeded")
    assert (event["name"], event["args"], event["parent_id"]) == ("add", "(1, 2)", None)


# ------------------------------------------------------------------------------------------------------------- heart


@pytest.mark.slow
def test_it_beats(app: Celery) -> None:
    sent: list[Any] = []

    def note(sender: Any, **_: Any) -> None:
        sent.append(sender)

    signals.heartbeat_sent.connect(note)
    try:
        with Ear(app) as ear:
            with telling(app, task_events=False, without_heartbeat=False, heartbeat_interval=0.05) as worker:
                app.tasks["add"].delay(1, 2).get(timeout=DEADLINE)
                (online,) = ear.wait_for("worker-online")
                beats = ear.wait_for("worker-heartbeat", 3)
                assert isinstance(worker.heart, Heart)
            ear.wait_for("worker-offline")
    finally:
        signals.heartbeat_sent.disconnect(note)
    for event in (online, *beats):
        assert set(event) == COMMON | FIELDS[event["type"]]
    assert (online["freq"], online["sw_ident"], len(online["loadavg"])) == (0.05, "py-celery", 3)
    assert ear.of("worker-offline")[0]["processed"] == 1
    assert set(sent) == {worker.heart}


@pytest.mark.slow
def test_it_beats_while_a_task_of_the_engines_own_thread_runs(app: Celery) -> None:
    go = threading.Event()

    @app.task(name="long")
    def long() -> None:
        assert go.wait(DEADLINE)

    with Ear(app) as ear, telling(app, without_heartbeat=False, heartbeat_interval=0.05):
        app.tasks["long"].delay()
        ear.wait_for("task-received")
        before = len(ear.of("worker-heartbeat"))
        ear.wait_for("worker-heartbeat", before + 3)
        go.set()
        ear.wait_for("task-succeeded")


def test_a_heart_by_hand() -> None:
    """`Heart(timer, eventer, interval)`, as others make it."""

    class Timer:
        def call_repeatedly(self, seconds: float, function: Any, args: Any) -> Any:
            self.entry = (seconds, function, args)
            return self.entry

        def cancel(self, entry: Any) -> None:
            assert entry is self.entry

    class Eventer:
        enabled = True

        def __init__(self) -> None:
            self.on_enabled: set[Any] = set()
            self.on_disabled: set[Any] = set()
            self.sent: list[str] = []

        def send(self, event: str, **_: Any) -> None:
            if len(self.sent) == 1:
                self.sent.append("lost")
                raise OperationalError("away")
            self.sent.append(event)

    timer, eventer = Timer(), Eventer()
    heart = Heart(timer, eventer, 3)
    assert heart.start in eventer.on_enabled
    assert heart.stop in eventer.on_disabled
    heart.start()
    heart.start()
    seconds, beat, args = timer.entry
    assert seconds == 3.0
    beat(*args)  # the broker is away: it is left out
    beat(*args)
    heart.stop()
    heart.stop()
    assert eventer.sent == ["worker-online", "lost", "worker-heartbeat", "worker-offline"]


# -------------------------------------------------------------------------------------------------- gossip and mingle


def test_they_are_for_brokers_that_reach_other_machines(app: Celery) -> None:
    with telling(app) as worker:
        assert worker.gossip is None
    for url, expected in [("redis://", True), ("rediss://", True), ("sentinel://", True), ("amqp://", True),
                          ("pyamqp://", True), ("sqlite:///x", False), ("memory://", False)]:  # fmt: skip
        other = Celery("other", broker=url, set_as_current=False)
        assert Mingle.compatible_transport(Mingle.__new__(Mingle), other) is expected
        assert Gossip.compatible_transport(Gossip.__new__(Gossip), other) is expected


class Asked:
    """What an app's control says to `hello`."""

    def __init__(self, replies: Any) -> None:
        self.replies = replies

    def inspect(self, timeout: float) -> Any:
        return self

    def hello(self, node: str, revoked: Any) -> Any:
        self.asked = (node, revoked)
        if isinstance(self.replies, Exception):
            raise self.replies
        return self.replies


def mingled(app: Celery, replies: Any) -> Any:
    from types import SimpleNamespace

    control = Asked(replies)
    bare = SimpleNamespace(control=control, clock=app.clock, conf=app.conf)
    worker = SimpleNamespace(app=bare, hostname="w@h")
    mingle = Mingle(worker)
    mingle.enabled = True
    mingle.start(worker)
    return control


def test_what_was_revoked_elsewhere_is_learned(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state.revoked.add("mine")
    replies = {
        "w@h": {"clock": 1, "revoked": ["own"]}, "a@h": {"clock": 70, "revoked": ["x", "y"]}, "b@h": {"revoked": None},
        "c@h": {"error": "no"}, "d@h": ["nonsense"],
    }  # fmt: skip
    control = mingled(app, replies)
    assert control.asked == ("w@h", ["mine"])
    assert set(state.revoked) == {"mine", "x", "y"}
    assert app.clock.value >= 71
    assert [r.getMessage() for r in caplog.records if r.levelname == "INFO"] == [
        "mingle: searching for neighbors", "mingle: sync with 4 nodes", "mingle: sync complete",
    ]  # fmt: skip


@pytest.mark.parametrize(("replies", "said"), [(None, "all alone"), (OperationalError("away"), "cannot be asked")])
def test_who_is_alone_starts_all_the_same(
    app: Celery, caplog: pytest.LogCaptureFixture, replies: Any, said: str
) -> None:
    caplog.set_level("INFO")
    mingled(app, replies)
    assert said in caplog.text


@pytest.mark.process
def test_what_is_cut_short_is_told(app: Celery) -> None:
    import time

    @app.task(name="early")
    def early() -> None:
        time.sleep(2 * DEADLINE)

    @app.task(name="late", acks_late=True)
    def late() -> None:
        time.sleep(2 * DEADLINE)

    with Ear(app) as ear:
        with telling(app, pool="prefork", concurrency=2) as worker:
            ids = {app.tasks[name].delay().id for name in ("early", "late")}
            ear.wait_for("task-started", 2)
            worker.terminate()
        cut = ear.wait_for("task-cancelled", 2)
    assert {event["uuid"] for event in cut} == ids
    assert {frozenset(event) for event in cut} == {frozenset(COMMON | {"uuid"})}


@pytest.mark.process
def test_processes_that_die_and_runs_that_last_too_long(app: Celery) -> None:
    import os
    import signal
    import time

    @app.task(name="die")
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="last", time_limit=0.2)
    def last() -> None:
        time.sleep(2 * DEADLINE)

    with Ear(app) as ear, telling(app, pool="prefork"):
        for name, text in (("die", "WorkerLostError("), ("last", "TimeLimitExceeded(0.2)")):
            sent = app.tasks[name].delay()
            assert ended(ear, sent.id, "task-failed") == ["task-received", "task-started", "task-failed"]
            event = next(one for one in ear.of("task-failed") if one["uuid"] == sent.id)
            assert event["exception"].startswith(text)
            assert text.partition("(")[0] in event["traceback"]


def test_a_monitor_of_failures(app: Celery) -> None:
    """A receiver that feeds a state, and looks tasks up in it, as the documentation of Celery shows it."""
    state_of_all, failures = app.events.State(), []
    done = threading.Event()

    def on_failure(event: Any) -> None:
        state_of_all.event(event)
        task = state_of_all.tasks.get(event["uuid"])
        failures.append((task.name, task.uuid, task.info()["exception"]))
        done.set()
        receiver.should_stop = True

    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-failed": on_failure, "*": state_of_all.event})
        capturing = threading.Thread(target=receiver.capture, kwargs={"limit": None, "timeout": None, "wakeup": True})
        with telling(app, without_heartbeat=False) as worker:
            capturing.start()
            until(lambda: "w@h" in state_of_all.workers, "the worker is woken up, or beats")
            failed = app.tasks["fail"].delay()
            assert done.wait(DEADLINE)
            assert state_of_all.workers["w@h"].alive
            assert worker.event_dispatcher.enabled
        capturing.join(DEADLINE)
    assert failures == [("fail", failed.id, "KeyError('a')")]
