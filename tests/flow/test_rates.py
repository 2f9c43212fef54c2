"""Rates: no task begins more often than it may, none keeps another from anything, and nothing is lost (PAINS 18)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.exceptions import ImproperlyConfigured
from celery.message import Message
from celery.ports import Delivery, SystemClock
from celery.worker import WorkController
from celery.worker.admission import TaskPolicy
from celery.worker.consumer.deliveries import Held
from celery.worker.consumer.rates import HELD, NOW, PARKED, Rates
from celery.worker.consumer.waiting import WaitingRoom
from tests.flow.commanding import Commanded, reset
from tests.flow.engine import DEADLINE, until
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hands(SystemClock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.now

    def time(self) -> float:  # type: ignore[override]
        return self.now


class Parking:
    """A broker that parks: (delivery, until)."""

    def __init__(self) -> None:
        self.parked: list[tuple[Any, float]] = []

    def defer(self, deliveries: Any) -> None:
        self.parked += deliveries


def job(key: int, rate: float, name: str = "t") -> Held:
    message = Message({"task": name, "id": str(key)}, b"")
    return Held(key, message, Delivery(key, "q", message), TaskPolicy(name, rate=rate))


@given(rate=st.sampled_from([0.5, 3.0, 10.0, 200.0]), late=st.floats(0, 0.4), count=st.integers(1, 60))
def test_a_window_of_time_never_sees_more_than_the_rate(rate: float, late: float, count: int) -> None:
    """However late the engine comes round. It comes in time: then none of the rate is lost."""
    clock = Hands()
    rates = Rates(clock)
    begun: list[float] = []
    waiting = 0
    for key in range(count):
        kept = rates.admit(job(key, rate))
        assert (kept == NOW) == (key == 0)
        waiting += kept == HELD
        begun += [clock.now] * (kept == NOW)
    while waiting:
        clock.now += rates.patience + late
        found = rates.due()
        waiting -= len(found)
        begun += [clock.now] * len(found)
    assert not rates.busy
    assert len(begun) == count
    for start in begun:
        within = sum(start <= moment < start + 1.0 for moment in begun)
        assert within <= rate * 1.05 + 1
    if late == 0.0:
        assert begun[-1] - begun[0] == pytest.approx((count - 1) / rate)


def test_only_a_few_wait_in_memory_and_the_others_in_the_broker() -> None:
    clock, broker = Hands(), Parking()
    rates, room = Rates(clock), WaitingRoom(broker)  # type: ignore[arg-type]
    rates.attach(room)
    kept = [rates.admit(job(key, 10.0)) for key in range(2000)]
    assert (kept.count(NOW), kept.count(HELD), kept.count(PARKED)) == (1, 20, 1979)
    assert room.held_back(Message({"task": "t", "id": "n"}, b""))
    assert not room.held_back(Message({"task": "other", "id": "n"}, b""))
    assert rates.admit(job(5000, 10.0, "other")) == NOW, "nobody waits for another's rate"
    room.park()
    pauses = [until - clock.now for _, until in broker.parked]
    assert min(pauses) == 1.0
    assert max(pauses) < 5.0, "whoever could run them gets at all of them soon"
    assert sum(pause < 2.0 for pause in pauses) <= 510, "and they are not looked at all the time"


def test_without_parking_all_wait_in_memory() -> None:
    rates, room = Rates(Hands()), WaitingRoom(object())  # type: ignore[arg-type]
    rates.attach(room)
    assert [rates.admit(job(key, 1.0)) for key in range(100)].count(HELD) == 99


def test_a_new_rate_counts_for_what_waits() -> None:
    clock = Hands()
    rates = Rates(clock)
    jobs = [job(key, 0.001) for key in range(4)]
    for one in jobs:
        rates.admit(one)
    assert rates.patience == pytest.approx(1000)
    for one in rates.reset("t"):
        one.policy = TaskPolicy("t", rate=10.0)
        rates.keep(one)
    assert [one.key for one in rates.due()] == [1]
    clock.now += 0.1
    assert [one.key for one in rates.due()] == [2]
    rates.remove({3})
    assert rates.waiting == []
    assert not rates.due()


def test_what_others_have_taken_over_is_dropped() -> None:
    clock = Hands()
    rates = Rates(clock)
    jobs = [job(key, 1.0) for key in range(3)]
    for one in jobs:
        rates.admit(one)
    jobs[1].delivery.lost = True
    clock.now += 1.0
    assert [one.key for one in rates.due()] == [2], "and costs no token"


# ------------------------------------------------------------------------------------------------------- in a worker


@pytest.fixture
def house() -> Iterator[Commanded]:
    house = Commanded()
    yield house
    reset()
    house.app.close()


@pytest.mark.slow
def test_the_others_do_not_wait(house: Commanded) -> None:
    """200 tasks that may not begin stand before one that may; all of them go back when the worker stops."""
    house.app.conf.task_annotations = {"quick": {"rate_limit": "1/h"}}
    free = house.app.task(name="free")(lambda n: n)
    with house.running():
        limited = [house.quick.delay(n) for n in range(200)]
        assert free.delay(7).get(timeout=DEADLINE) == 7
        until(lambda: len(house.tell("reserved")) == 2, "few wait in memory")
        assert free.delay(8).get(timeout=DEADLINE) == 8
    assert len(house.ran) == 1
    consumer = house.app.assembly.broker.consume([house.app.amqp.queues.spec("celery")])
    back: list[Any] = []
    until(lambda: back.extend(consumer.fetch(500, 0.05)) or len(back) == 199, "all are back")
    consumer.close()
    assert not any(one.message.redelivered for one in back), "as if they had never been taken"
    assert {one.message.id for one in back} == {one.id for one in limited[1:]}


@pytest.mark.slow
def test_all_run_in_the_end_at_their_rate(house: Commanded) -> None:
    house.app.conf.task_annotations = {"quick": {"rate_limit": "40/s"}}
    with house.running():
        began = time.monotonic()
        results = [house.quick.delay(n) for n in range(100)]  # more than wait in memory
        assert [one.get(timeout=30) for one in results] == list(range(100))
        assert time.monotonic() - began > 98 / 42
    assert sorted(house.ran) == list(range(100))


@pytest.mark.slow
def test_each_worker_has_the_whole_rate(house: Commanded) -> None:
    """What one worker has put off, another gets at."""
    house.app.conf.task_annotations = {"quick": {"rate_limit": "1/h"}}
    with house.running():
        for n in range(10):
            house.quick.delay(n)
        until(lambda: len(house.ran) == 1 and len(house.tell("reserved")) == 2, "the first has done what it may")
        with working(house.app, pool="threads", concurrency=1):
            until(lambda: len(house.ran) == 2, "so does the second", 30.0)


def test_rates_change_while_it_works(house: Commanded) -> None:
    house.app.conf.task_annotations = {"quick": {"rate_limit": "1/h"}}
    with house.running():
        results = [house.quick.delay(n) for n in range(3)]
        results[0].get(timeout=DEADLINE)
        until(lambda: len(house.tell("reserved")) == 2, "the others wait")
        assert house.tell("rate_limit", task_name="quick", rate_limit="100/s") == {
            "ok": "new rate limit set successfully"
        }
        assert [one.get(timeout=DEADLINE) for one in results[1:]] == [1, 2]
        assert "quick [rate_limit=100/s]" in house.tell("registered")
        assert house.tell("rate_limit", task_name="quick", rate_limit="1/h")["ok"]
        slow = [house.quick.delay(n) for n in range(2)]
        slow[0].get(timeout=DEADLINE)
        until(lambda: len(house.tell("reserved")) == 1, "it waits")
        assert house.tell("rate_limit", task_name="quick", rate_limit=0) == {"ok": "rate limit disabled successfully"}
        slow[1].get(timeout=DEADLINE)
        for wrong in ("fast", "5/d", "-5/m", [1]):
            assert house.tell("rate_limit", task_name="quick", rate_limit=wrong)["error"].startswith(
                "Invalid rate limit"
            )
        assert house.tell("rate_limit", task_name="nothing", rate_limit="1/s") == {"error": "unknown task"}


def test_rates_can_be_disabled(house: Commanded) -> None:
    house.app.conf.update(task_default_rate_limit="1/h", worker_disable_rate_limits=True)
    with house.running():
        assert [house.quick.delay(n).get(timeout=DEADLINE) for n in range(3)] == [0, 1, 2]


def test_a_default_rate_is_every_tasks(house: Commanded) -> None:
    house.app.conf.update(task_default_rate_limit="1/h")
    with house.running():
        house.quick.delay(0).get(timeout=DEADLINE)
        house.quick.delay(1)
        until(lambda: len(house.tell("reserved")) == 1, "it waits")


@pytest.mark.parametrize("wrong", ["fast", "1/d", "-3/s", object()])
def test_a_rate_that_is_none_is_refused_at_start(house: Commanded, wrong: Any) -> None:
    house.quick.rate_limit = wrong
    with pytest.raises(ImproperlyConfigured, match="rate_limit of the task quick"):
        WorkController(app=house.app, pool="solo")


@pytest.mark.slow
def test_what_expires_while_it_waits_for_its_rate_is_not_run(house: Commanded) -> None:
    house.app.conf.task_annotations = {"quick": {"rate_limit": "1/h"}}
    with house.running():
        house.quick.delay(0).get(timeout=DEADLINE)
        late = house.quick.apply_async((1,), expires=0.2)
        until(lambda: len(house.tell("reserved")) == 1, "it waits")
        threading.Event().wait(0.25)
        house.tell("rate_limit", task_name="quick", rate_limit=0)
        until(lambda: late.state == "REVOKED", "it is too late")
    assert house.ran == [0]


@pytest.mark.slow
def test_time_limits_change_for_the_next_run(house: Commanded) -> None:
    with house.running(concurrency=2):
        assert house.tell("time_limit", task_name="spin", soft=None, hard=0.2) == {"ok": "time limits set successfully"}
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            house.spin.delay("limited").get(timeout=DEADLINE)
        assert house.tell("time_limit", task_name="spin", hard=None)["ok"]
        free = house.spin.delay("free")
        until(lambda: "free" in house.ran, "it runs")
        assert next(iter(house.worker.consumer.held.values())).hard_limit is None
        house.gate.set()
        free.get(timeout=DEADLINE)
        assert house.tell("time_limit", task_name="nothing", hard=1) == {"error": "unknown task"}
        assert "expected soft as a number" in house.tell("time_limit", task_name="quick", soft="x")["error"]
