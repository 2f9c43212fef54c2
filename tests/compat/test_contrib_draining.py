"""`celery.contrib.testing.draining`: everything that waits is run by a worker's engine, and nobody waits (PAINS 31)."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chain, chord, group
from celery.contrib.testing.draining import drain
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("draining", broker=name, backend=name, set_as_current=False)
    app.conf.worker_redirect_stdouts = False

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="third_time", bind=True, max_retries=5, default_retry_delay=3600)
    def third_time(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry()
        return int(self.request.retries)

    yield app
    app.close()


def test_nothing_waits(app: Celery) -> None:
    assert drain(app) == {}


@pytest.mark.slow
def test_a_thousand_tasks_of_an_hour_are_run_in_the_order_of_their_times(app: Celery) -> None:
    ran: list[int] = []
    note = app.task(ran.append, name="note")
    for n in range(1000):
        note.apply_async((n,), countdown=3600 - n, ignore_result=True)
    assert drain(app) == {"note": 1000}
    assert ran == sorted(ran, reverse=True)


def test_retries_are_a_workers(app: Celery) -> None:
    result = app.tasks["third_time"].delay()
    assert drain(app) == {"third_time": 3}
    assert result.get(timeout=0) == 2


def test_flows_end(app: Celery) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    flows = [
        chain(add.s(1, 2), add.s(3).set(countdown=600), add.s(4)),
        chord([add.s(n, n) for n in range(10)], total.s()),
        group(add.s(n, 1) for n in range(3)),
    ]
    results = [flow.apply_async() for flow in flows]
    assert drain(app).total() == 3 + 11 + 3
    assert [result.get(timeout=0) for result in results] == [10, 90, [1, 2, 3]]


def test_what_expires_does_so_by_the_time_that_was_leaped_to(app: Celery) -> None:
    sent: list[Any] = []

    @app.task(name="later")
    def later() -> None:
        sent.append(app.tasks["add"].apply_async((1, 1), expires=60))
        sent.append(app.tasks["add"].apply_async((2, 2), expires=60, countdown=120))

    stale = app.tasks["add"].apply_async((3, 3), countdown=7200, expires=3600)
    later.apply_async(countdown=1800)
    drain(app)
    assert sent[0].get(timeout=0) == 2
    assert sent[1].state == stale.state == "REVOKED"


def test_failures_are_results(app: Celery) -> None:
    result = app.tasks["add"].delay(1, None)
    drain(app)
    assert result.state == "FAILURE"
    assert "TypeError" in result.traceback


def test_only_the_queues_that_are_named(app: Celery) -> None:
    here = app.tasks["add"].apply_async((1, 1), queue="here")
    there = app.tasks["add"].apply_async((1, 1), queue="there")
    assert drain(app, ["here"]) == {"add": 1}
    assert (here.state, there.state) == ("SUCCESS", "PENDING")


@pytest.mark.slow
def test_what_never_ends_is_told(app: Celery) -> None:
    @app.task(name="again")
    def again() -> None:
        again.apply_async(countdown=60)

    again.delay()
    with pytest.raises(TimeoutError, match=r"tasks are left after 0\.2 s; run so far: \{'again': \d+\}"):
        drain(app, timeout=0.2)


def test_other_brokers_are_refused(tmp_path: Path) -> None:
    app = Celery("x", broker=f"sqlite:///{tmp_path}/x.sqlite3", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="expected an app whose broker is memory://"):
        drain(app)


def test_everything_is_as_before(app: Celery) -> None:
    threads = set(threading.enumerate())
    app.tasks["add"].apply_async((1, 1), countdown=86400)
    drain(app)
    assert set(threading.enumerate()) == threads
    app.tasks["add"].apply_async((1, 1), countdown=60)
    consumer = app.assembly.broker.consume([app.amqp.queues.spec("celery")])
    (delivery,) = consumer.fetch(1, 0.0)
    assert delivery.message is not None
    due = dt.datetime.fromisoformat(delivery.message.headers["eta"])
    assert 0 < (due - dt.datetime.now(dt.UTC)).total_seconds() <= 60
    consumer.close()
