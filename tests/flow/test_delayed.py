"""Tasks whose time has not come: parked in the broker, or in memory where it cannot park."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery.brokers.memory import MemoryBroker
from celery.ports import BrokerConfig, Publication
from celery.routing import Route
from celery.worker.admission import TaskPolicy
from tests.flow.engine import House, spec, until

if TYPE_CHECKING:
    from celery.message import Message
    from celery.outcome import Outcome


@pytest.fixture
def house() -> House:
    return House()


def iso(offset: float) -> str:
    return dt.datetime.fromtimestamp(time.time() + offset, dt.UTC).isoformat()


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.15, 1.3])
def test_an_eta_is_kept_and_told_once(house: House, delay: float) -> None:
    due = time.time() + delay
    task_id = house.send("add", 1, eta=iso(delay))
    quick = house.send("add", 7)
    with house.running():
        house.result(quick)
        assert house.runner.ran == [quick]
        house.result(task_id)
        assert time.time() >= due
    assert sorted(house.notes.received_ids) == sorted([task_id, quick])


@pytest.mark.slow
def test_what_expires_while_it_waits_is_not_run(house: House) -> None:
    task_id = house.send("add", 1, eta=iso(0.3), expires=iso(0.2))
    with house.running():
        assert house.result(task_id)["status"] == "REVOKED"
    assert house.runner.ran == []


@pytest.mark.slow
def test_what_is_parked_outlives_the_worker_and_runs_on_time_elsewhere(house: House) -> None:
    due = time.time() + 0.6
    task_id = house.send("add", 1, eta=iso(0.6))
    with house.running() as engine:
        until(lambda: task_id in house.notes.received_ids, "it is taken on")
        assert (engine.scheduled(), engine.reserved()) == ([], [])
    assert (house.depth(), house.runner.ran) == (0, [])
    with house.running():
        assert house.result(task_id)["result"] == 1
    assert time.time() >= due


def test_the_next_attempt_is_parked_too_though_its_first_was(house: House) -> None:
    """It bears the same id. It came to another worker in between, say: this one was not told of its return."""
    first = house.message("add", 1, eta=iso(3600))
    second = house.message("add", 1, id=first.id, eta=iso(7200))
    with house.running() as engine:
        for message in (first, second, first):
            MemoryBroker(BrokerConfig(house.url)).publish([Publication(message, Route("", "q", spec("q")))])
        until(lambda: len(house.notes.received_ids) == 2, "both are taken on")
        until(lambda: len(engine.scheduled()) == 1, "what came twice before its time waits here: the clocks differ")
    assert house.notes.received_ids == [first.id] * 2
    assert house.depth() == 1, "what waits in memory is given back"


class Unparked:
    """A consumer that cannot park."""

    def __init__(self, consumer: Any) -> None:
        self.fetch, self.ack, self.reject, self.flush = consumer.fetch, consumer.ack, consumer.reject, consumer.flush
        self.close = consumer.close


class UnparkedBroker:
    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self.publish, self.close = broker.publish, broker.close

    def consume(self, queues: Any) -> Unparked:
        return Unparked(self._broker.consume(queues))


@pytest.mark.parametrize(("limit", "held"), [(None, 5), (2, 2)])
def test_where_nothing_can_be_parked_it_waits_in_memory(house: House, limit: int | None, held: int) -> None:
    """[settings.185]: at most so many; what is held comes back at the end."""
    house.broker = UnparkedBroker(house.broker)
    house.parts["waiting_limit"] = limit
    for _ in range(5):
        house.send("add", 1, eta=iso(3600))
    with house.running() as engine:
        until(lambda: len(engine.scheduled()) == held, "they wait here")
        quick = house.send("add", 2)
        if limit is None:
            assert house.result(quick)["result"] == 2
        else:
            until(lambda: house.depth() == 4, "nothing more is taken")
    assert house.depth() == (5 if limit is None else 6)


@pytest.mark.slow
def test_waiting_in_memory_ends_on_time(house: House) -> None:
    house.broker = UnparkedBroker(house.broker)
    late, soon = house.send("add", 1, eta=iso(0.5)), house.send("add", 2, eta=iso(0.3))
    with house.running():
        assert house.result(late)["result"] == 1
    assert house.runner.ran == [soon, late]


class Recorded:
    """A consumer whose fetches are written down: how many were asked for, and how many came."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.fetches: list[tuple[int, int]] = []

    def fetch(self, limit: int, *more: Any) -> Any:
        found = self._consumer.fetch(limit, *more)
        self.fetches.append((limit, len(found)))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def recorded(house: House) -> Recorded:
    """The consumer of the house's next engine."""
    consumer = Recorded(house.broker.consume([spec("q")]))
    house.broker = type("Recording", (), {"consume": lambda self, queues: consumer, "close": lambda self: None})()
    return consumer


def test_parking_takes_more_and_more_while_all_that_comes_is_to_be_parked(house: House) -> None:
    for _ in range(2100):
        house.send("add", 1, eta=iso(3600))
    consumer = recorded(house)
    with house.running():
        until(lambda: len(house.notes.received_ids) == 2100, "all are parked")
        quick = [house.send("add", n) for n in range(3)]
        house.result(quick[-1])
    came = [found for _, found in consumer.fetches if found]
    assert came[:12] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500, 500]
    assert house.runner.ran == quick
    assert len(house.notes.received_ids) == 2103, "each is told once"


def test_what_can_run_is_not_hoarded_by_a_worker_that_parks(house: House) -> None:
    """PAINS 12. A fetch of many brings tasks after all: those beyond the worker's room run elsewhere, in their order,
    while it is busy with one."""
    for _ in range(200):
        house.send("add", 1, eta=iso(3600))
    long, *others = [house.send("long" if not n else "add", n) for n in range(40)]
    began, go_on = threading.Event(), threading.Event()

    def last(message: Message) -> Outcome:
        began.set()
        assert go_on.wait(10)
        return house.runner.add(message)

    house.policies["long"] = TaskPolicy("long", acks_late=True)
    house.runner.by_name["long"] = last
    elsewhere = House(house.url)
    consumer = recorded(house)
    with house.running() as busy:
        assert began.wait(10)
        assert max(consumer.fetches)[1] > 40, "they came in one fetch"
        assert [one.message.id for one in busy.reserved()] == [long]
        with elsewhere.running():
            elsewhere.result(others[-1])
        go_on.set()
        house.result(long)
    assert elsewhere.runner.ran == others
    assert house.runner.ran == [long]
    assert sorted(house.notes.received_ids + elsewhere.notes.received_ids).count(others[0]) == 1
