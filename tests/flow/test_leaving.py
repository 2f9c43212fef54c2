"""How an engine is asked to end: deadlines, repeated requests, runs that are cut short."""

from __future__ import annotations

import json
import threading
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from celery.brokers.memory import MemoryConsumer
from celery.concurrency.thread import ThreadPool
from celery.outcome import Retrying, Success
from celery.worker.consumer.leaving import Leave
from tests.flow.engine import DEADLINE, House, until

if TYPE_CHECKING:
    from celery.message import Message


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_without_a_deadline_it_waits_for_ever(clock: FakeClock) -> None:
    leave = Leave(clock, None)
    assert (leave.asked, leave.left) == (False, inf)
    leave.ask(None, linger=False)
    clock.now += 1e9
    assert (leave.asked, leave.terminating, leave.left, leave.overdue) == (True, False, inf, False)
    assert leave.pool_deadline == clock.now + 5.0


def test_the_grace_is_a_deadline(clock: FakeClock) -> None:
    leave = Leave(clock, 3.0)
    leave.ask(None, linger=False)
    clock.now += 2.0
    leave.ask(None, linger=False)  # asked again, it does not begin anew
    assert leave.left == 1.0
    assert leave.pool_deadline == clock.now + 1.0
    clock.now += 5.9
    assert not leave.overdue
    clock.now += 0.2
    assert leave.overdue


def test_a_named_deadline_replaces_the_grace(clock: FakeClock) -> None:
    leave = Leave(clock, 3.0)
    leave.ask(None, linger=False)
    leave.ask(clock.now + 60.0, linger=True)
    assert (leave.left, leave.linger) == (60.0, True)


@pytest.mark.parametrize("deadline", [None, 107.0])
def test_nothing_softens_an_end_that_was_to_be_quick(clock: FakeClock, deadline: float | None) -> None:
    leave = Leave(clock, None)
    leave.ask(150.0, linger=False)
    clock.now = 101.0
    leave.terminate()
    clock.now = 102.0
    leave.terminate()
    leave.ask(deadline, linger=True)
    assert (leave.left, leave.linger, leave.pool_deadline) == (-1.0, False, 102.0)
    clock.now = 106.1
    assert leave.overdue


@pytest.mark.slow
def test_what_outlasts_the_grace_is_cut_short() -> None:
    """Late messages go back; of the others a record remains."""
    house = House(grace=0.2, cancelled=lambda message: Retrying(record=house.verdict(message, "RETRY", ValueError())))
    begun, go = threading.Semaphore(0), threading.Event()

    def hold(message: Message) -> Success:
        begun.release()
        go.wait(DEADLINE)
        return Success()

    house.runner.by_name |= {"add": hold, "late": hold}
    house.parts["pool"] = ThreadPool(house.runner, 2)
    engine = house.engine()
    with house.running(engine):
        early, late = house.send("add"), house.send("late")
        for _ in range(2):
            assert begun.acquire(timeout=DEADLINE)
        until(lambda: any(one.acknowledged for one in list(engine.held.values())), "the early one is acknowledged")
        engine.stop()
        until(lambda: len(house.notes.cuts) == 2, "both are cut short")
        go.set()
    assert sorted(house.notes.cuts) == sorted([(early, False), (late, True)])
    assert (engine.cut_short, house.depth(), house.error) == (2, 1, None)
    [record, nothing] = house.store.load([early, late])
    assert json.loads(record)["status"] == "RETRY"
    assert nothing is None


def test_what_comes_while_a_stop_is_asked_for_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a thread of the pool has nothing to do, and would begin it at once."""
    house = House()
    house.parts["pool"] = ThreadPool(house.runner, 1)
    engine = house.engine()
    fetch = MemoryConsumer.fetch

    def fetch_and_stop(self: MemoryConsumer, *args: Any) -> Any:
        came = fetch(self, *args)
        if came:
            engine.stop()
        return came

    monkeypatch.setattr(MemoryConsumer, "fetch", fetch_and_stop)
    monkeypatch.setattr(ThreadPool, "take_back", lambda self: None)  # as if it were too late for that
    with house.running(engine):
        until(lambda: "ready" in house.notes.told, "it is ready")
        house.send("add", 1)
        until(lambda: engine.leaving, "it leaves")
    assert (house.runner.ran, house.depth(), house.error) == ([], 1, None)


@pytest.mark.slow
def test_an_idle_engine_lingers_if_it_is_told_to() -> None:
    house = House()
    engine = house.engine()
    with house.running(engine):
        until(lambda: "ready" in house.notes.told, "it is ready")
        engine.stop(engine._clock.monotonic() + 0.3, linger=True)
        until(lambda: engine.leaving, "it leaves")
        assert engine.exit.left <= 0.0
    assert (engine.cut_short, house.error) == (0, None)
