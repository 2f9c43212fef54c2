"""Tasks whose time has not come: parked in the broker, or in memory where it cannot park."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest

from celery.brokers.memory import MemoryBroker
from celery.ports import BrokerConfig, Publication
from celery.routing import Route
from tests.flow.engine import House, spec, until


@pytest.fixture
def house() -> House:
    return House()


def iso(offset: float) -> str:
    return dt.datetime.fromtimestamp(time.time() + offset, dt.UTC).isoformat()


@pytest.mark.parametrize("delay", [0.15, 1.3])
def test_an_eta_is_kept_and_told_once(house: House, delay: float) -> None:
    due = time.time() + delay
    task_id = house.send("add", 1, eta=iso(delay))
    quick = house.send("add", 7)
    with house.running():
        house.result(quick)
        assert house.runner.ran == [quick]
        house.result(task_id)
        assert 0.0 <= time.time() - due < 0.5
    assert sorted(house.notes.received_ids) == sorted([task_id, quick])


def test_what_expires_while_it_waits_is_not_run(house: House) -> None:
    task_id = house.send("add", 1, eta=iso(0.3), expires=iso(0.2))
    with house.running():
        assert house.result(task_id)["status"] == "REVOKED"
    assert house.runner.ran == []


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


def test_waiting_in_memory_ends_on_time(house: House) -> None:
    house.broker = UnparkedBroker(house.broker)
    late, soon = house.send("add", 1, eta=iso(0.5)), house.send("add", 2, eta=iso(0.3))
    with house.running():
        assert house.result(late)["result"] == 1
    assert house.runner.ran == [soon, late]
