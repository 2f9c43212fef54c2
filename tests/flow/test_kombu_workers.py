"""Workers on brokers that kombu reaches: tasks, delays, flows and, where there is fanout, remote control."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from kombu.transport import memory

from celery import Celery, chain, chord
from celery.apps.worker import Worker
from tests.adapters.kombu_transports import Channel, Transport
from tests.embedded import DEADLINE, working
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOW = "tests.adapters.kombu_transports:Transport://"


def made(broker: str, options: dict[str, Any]) -> Celery:
    app = Celery("kombus", broker=broker, backend=f"cache+memory://{uuid.uuid4()}", set_as_current=False)
    app.conf.broker_transport_options = options
    app.conf.accept_content = ["json", "yaml"]
    tries: list[float] = []

    @app.task(name="add", acks_late=True)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="again", bind=True, max_retries=1)
    def again(self: Any) -> int:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise self.retry(countdown=0.1)
        return len(tries)

    return app


@pytest.fixture(params=["kombu+memory://", "filesystem://", SLOW])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    Transport.begin()
    options: dict[str, Any] = {}
    if request.param == "filesystem://":
        for name in ("queues", "control"):
            (tmp_path / name).mkdir()
        options = dict.fromkeys(("data_folder_in", "data_folder_out"), f"{tmp_path}/queues")
        options["control_folder"] = f"{tmp_path}/control"
    yield made(request.param, options)
    memory.Channel.queues.clear()
    memory.Transport.global_state.clear()


@pytest.mark.slow
def test_tasks_delays_retries_and_flows(app: Celery) -> None:
    with working(app):
        tasks = app.tasks
        assert [tasks["add"].delay(i, 1) for i in range(9)][-1].get(timeout=DEADLINE) == 9
        later = tasks["add"].apply_async((1, 1), countdown=0.4)
        began = time.monotonic()
        assert later.get(timeout=DEADLINE) == 2
        assert time.monotonic() - began > 0.3
        packed = tasks["add"].apply_async((1, 2), compression="zlib", serializer="yaml")
        assert packed.get(timeout=DEADLINE) == 3
        assert tasks["again"].delay().get(timeout=DEADLINE) == 2
        add = tasks["add"]
        assert chain(add.s(1, 1), add.s(1))().get(timeout=DEADLINE) == 3
        assert chord([add.s(i, i) for i in range(3)], tasks["total"].s())().get(timeout=DEADLINE) == 6


def test_what_waits_for_its_time_goes_back_with_the_worker(app: Celery) -> None:
    with working(app) as worker:
        app.tasks["add"].apply_async((1, 1), countdown=3600)
        until(lambda: bool(worker.consumer.scheduled()), "it waits")
    assert app.assembly.broker.depth("celery") == 1  # type: ignore[attr-defined]


@pytest.mark.slow
def test_remote_control_where_there_is_fanout(app: Celery) -> None:
    fanout = not str(app.conf.broker_url).startswith("tests")
    with working(app) as worker:
        assert app.tasks["add"].delay(1, 1).get(timeout=DEADLINE) == 2
        answer = [{worker.hostname: {"ok": "pong"}}]
        if fanout:
            until(lambda: app.control.ping(timeout=1.0, limit=1) == answer, "it answers")
        else:
            assert app.control.ping(timeout=0.3) == []


@pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")
def test_the_banner_says_where_there_is_none(app: Celery) -> None:
    shown = Worker(app=app, pool="solo", concurrency=1, quiet=True).startup_info()
    fanout = not str(app.conf.broker_url).startswith("tests")
    assert ("no remote control (this broker has no fanout)" in shown) is not fanout
    app.close()


@pytest.mark.slow
def test_a_server_that_goes_away_while_a_worker_runs() -> None:
    Transport.begin()
    app = made(SLOW, {})
    with working(app):
        assert app.tasks["add"].delay(1, 1).get(timeout=DEADLINE) == 2
        Channel.away.set()
        time_out = time.monotonic() + 0.3
        until(lambda: time.monotonic() > time_out, "the worker has noticed")
        Channel.away.clear()
        assert app.tasks["add"].delay(1, 2).get(timeout=DEADLINE) == 3
