"""The engine: from a message on a queue to its settled outcome."""

from __future__ import annotations

import threading
import time
from itertools import islice

import pytest
from kombu.exceptions import OperationalError

from celery.brokers.memory import MemoryBroker
from celery.exceptions import WorkerShutdown
from celery.outcome import Ignored, Rejected, Success
from celery.ports import BrokerConfig
from celery.worker.consumer.delays import trouble_delays
from tests.flow.engine import DEADLINE, House, spec, until
from tests.running import Traces


@pytest.fixture
def house() -> House:
    return House()


def test_a_task_runs_and_its_record_is_kept(house: House) -> None:
    task_id = house.send("add", 2, 3)
    with house.running() as engine:
        assert house.result(task_id) == {"status": "SUCCESS", "result": 5}
    assert house.notes.received_ids == [task_id]
    assert house.notes.told == ["connected", "ready"]
    assert house.runner.calls == ["start 0", "stop"]
    assert (house.depth(), engine.held, house.error) == (0, {}, None)


def test_many_tasks_each_once(house: House) -> None:
    ids = [house.send("add", n, 1) for n in range(200)]
    with house.running():
        assert [house.result(task_id)["result"] for task_id in ids] == list(range(1, 201))
    assert house.runner.ran == ids
    assert house.depth() == 0


def test_a_task_sent_while_the_worker_waits_ends_the_wait(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery.worker.consumer.engine._LONGEST_WAIT", 10 * DEADLINE)
    with house.running():
        until(lambda: "ready" in house.notes.told, "the worker is ready")
        assert house.result(house.send("add", 1, 1))["result"] == 2


def test_what_is_no_task_message_is_refused_and_the_loop_goes_on(house: House) -> None:
    MemoryBroker(BrokerConfig(house.url)).declare([spec("q")])
    server = MemoryBroker(BrokerConfig(house.url)).server
    with server.changed:
        server.put("q", b"{broken")
    good = house.send("add", 1, 1)
    with house.running():
        assert house.result(good)["result"] == 2
    [(delivery, refusal)] = house.notes.refusals
    assert (refusal.kind, delivery.message) == ("message", None)


def test_an_unknown_task_fails_for_whoever_waits(house: House) -> None:
    unknown, good = house.send("no.such"), house.send("add", 1, 1)
    with house.running():
        assert house.result(unknown) == {"status": "FAILURE", "result": "NotRegistered: 'no.such'"}
        assert house.result(good)["result"] == 2
    [(delivery, refusal)] = house.notes.refusals
    assert (refusal.kind, delivery.message and delivery.message.task) == ("unknown", "no.such")
    assert (house.depth(), house.runner.ran) == (0, [good])


def test_a_task_registered_later_is_found(house: House) -> None:
    with house.running():
        house.result(house.send("later"))
        house.policies["later"] = house.policies["add"]
        house.runner.by_name["later"] = house.runner.add
        assert house.result(house.send("later", 4))["result"] == 4


@pytest.mark.parametrize(
    ("headers", "content_type", "kind", "says"),
    [
        ({}, "application/x-python-serialize", "content", "untrusted content of type pickle (application/x-python-"),
        ({"eta": "nonsense"}, "application/json", "invalid", "invalid ETA value 'nonsense'"),
        ({"expires": "soon"}, "application/json", "invalid", "invalid expires value 'soon'"),
    ],
)
def test_refused_messages_fail_and_are_not_run(
    house: House, headers: dict[str, str], content_type: str, kind: str, says: str
) -> None:
    task_id = house.send("add", content_type=content_type, **headers)
    with house.running():
        result = house.result(task_id)
    assert result["status"] == "FAILURE"
    assert says in result["result"]
    assert [refusal.kind for _, refusal in house.notes.refusals] == [kind]
    assert (house.runner.ran, house.depth()) == ([], 0)


def test_an_expired_task_is_revoked_unrun(house: House) -> None:
    task_id = house.send("add", 1, expires="2001-01-01T00:00:00+00:00")
    with house.running():
        assert house.result(task_id) == {"status": "REVOKED", "result": "TaskRevokedError: expired"}
    assert (house.notes.expired_ids, house.runner.ran, house.depth()) == ([task_id], [], 0)


def iso(offset: float) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(time.time() + offset, dt.UTC).isoformat()


def test_stopping_lets_the_running_task_finish_and_takes_no_other(house: House) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(message: object) -> Success:
        begun.set()
        assert go.wait(DEADLINE)
        return house.runner.add(message)  # type: ignore[arg-type, return-value]

    house.runner.by_name["late"] = slow
    first, second = house.send("late", 1), house.send("late", 2)
    with house.running() as engine:
        assert begun.wait(DEADLINE)
        engine.stop()
        go.set()
        assert house.result(first)["result"] == 1
    assert (house.runner.ran, house.depth()) == ([first], 1)
    assert house.store.load([second]) == [None]


def test_early_tasks_cannot_give_their_message_back(house: House) -> None:
    house.runner.by_name["add"] = lambda message: Rejected(requeue=True)
    task_id = house.send("add")
    with house.running():
        until(lambda: house.runner.ran, "it ran")
        house.result(house.send("fail"))
    assert house.runner.ran.count(task_id) == 1
    assert house.depth() == 0


def test_late_tasks_can_and_run_again(house: House) -> None:
    outcomes = [Rejected(requeue=True), Ignored()]
    house.runner.by_name["late"] = lambda message: outcomes.pop(0)
    task_id = house.send("late")
    with house.running():
        until(lambda: len(house.runner.ran) == 2, "it ran twice")
    assert (house.runner.ran, house.depth()) == ([task_id] * 2, 0)


def test_follow_ups_are_published(house: House) -> None:
    envelope = house.message("add", 40, 2, id="follow").to_envelope()
    house.runner.by_name["fail"] = lambda message: Success(follow=[("", "q", envelope)])
    house.send("fail")
    with house.running():
        assert house.result("follow")["result"] == 42


class Moody:
    """The real store, but for the times when it is away."""

    def __init__(self, store: object, failures: int) -> None:
        self._store = store
        self.failures = failures
        self.saves = 0

    def save(self, records: object) -> None:
        self.saves += 1
        if self.failures:
            self.failures -= 1
            raise OperationalError("the store is away")
        self._store.save(records)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.mark.slow
def test_outcomes_wait_while_the_store_is_away(house: House) -> None:
    house.store = Moody(house.store, 2)
    house.parts["delays"] = lambda: iter([0.05, 0.1])
    task_id = house.send("late", 3)
    house.runner.by_name["late"] = house.runner.add
    with house.running():
        assert house.result(task_id)["result"] == 3
        until(lambda: "recovered" in house.notes.told, "it is told that all is well")
    assert [seconds for _, seconds in house.notes.troubles] == [0.05, 0.1]
    assert (house.runner.ran, house.depth(), house.store.saves) == ([task_id], 0, 3)


def test_delays_grow_to_half_a_minute() -> None:
    assert list(islice(trouble_delays(), 8)) == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0]


class Away:
    """A broker that does not answer the first times."""

    def __init__(self, broker: object, failures: int) -> None:
        self._broker = broker
        self.failures = failures

    def consume(self, queues: object) -> object:
        if self.failures:
            self.failures -= 1
            raise OperationalError("connection refused")
        return self._broker.consume(queues)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)


def test_stopping_while_the_broker_is_away_at_start(house: House) -> None:
    house.broker = Away(house.broker, 1000)
    with house.running():
        until(lambda: house.notes.told, "it was tried")
    assert house.notes.told == ["connecting failed 1/100, again in 2.0"]
    assert house.error is None


def test_the_first_connection_is_not_tried_for_ever(house: House) -> None:
    house.broker = Away(house.broker, 1000)
    house.parts["connect_retries"] = 0
    with house.running():
        until(lambda: house.error, "it gave up")
    assert isinstance(house.error, OperationalError)
    assert house.runner.calls == ["start 0", "stop"]


@pytest.mark.slow
def test_check_stops_it(house: House) -> None:
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise WorkerShutdown(7)

    house.parts["check"] = check
    with house.running():
        house.result(house.send("add", 1))
        stop.set()
        until(lambda: house.error, "it stopped")
    assert isinstance(house.error, WorkerShutdown)
    assert house.error.code == 7
    assert house.runner.calls == ["start 0", "stop"]


def test_a_task_that_exits_a_solo_worker_is_lost_and_the_worker_stops(house: House) -> None:
    def leave(message: object) -> Success:
        raise SystemExit(3)

    house.runner.by_name["add"] = leave
    task_id = house.send("add")
    with house.running():
        result = house.result(task_id)
    assert result["result"].startswith("WorkerLostError: Worker exited prematurely: SystemExit in the task")
    assert isinstance(house.error, SystemExit)
    assert house.depth() == 0


def test_nothing_is_left_behind_after_many_starts(house: House) -> None:
    with house.running():
        house.result(house.send("add", 1))
    traces = Traces()
    for n in range(100):
        with house.running():
            house.result(house.send("add", n))
    assert not traces.new
