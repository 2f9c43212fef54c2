"""A worker inside another program: threads and descriptors come and go, nothing else changes."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, signals
from celery.exceptions import ImproperlyConfigured
from celery.worker import WorkController, state
from tests.flow.engine import DEADLINE, until
from tests.running import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("embedded", broker=name, backend=name, set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="where")
    def where() -> str:
        return threading.current_thread().name

    yield app
    app.close()


class Running:
    """A worker made and started in a thread of its own."""

    def __init__(self, app: Celery, cls: type[WorkController] = WorkController, **options: Any) -> None:
        self._made = threading.Event()
        self._make = lambda: cls(app=app, **{"pool": "solo", "concurrency": 1, **options})
        self.thread = threading.Thread(target=self._run, name="embedding")

    def _run(self) -> None:
        self.worker = self._make()
        self._made.set()
        self.worker.start()

    def __enter__(self) -> WorkController:
        self.thread.start()
        assert self._made.wait(DEADLINE)
        return self.worker

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


def test_it_runs_tasks_in_the_thread_that_started_it(app: Celery) -> None:
    with Running(app) as worker:
        assert app.tasks["add"].delay(2, 3).get(timeout=DEADLINE) == 5
        assert app.tasks["where"].delay().get(timeout=DEADLINE) == "embedding"
    assert worker.exitcode == 0


def test_the_program_stays_as_it_was(app: Celery) -> None:
    def surroundings() -> tuple[Any, ...]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)
        root = logging.getLogger()
        return [signal.getsignal(n) for n in numbers], list(root.handlers), root.level, dict(os.environ)

    before = surroundings()
    with Running(app, app.Worker):
        app.tasks["add"].delay(1, 1).get(timeout=DEADLINE)
        assert surroundings() == before
    assert surroundings() == before


@pytest.mark.slow
def test_a_hundred_times(app: Celery) -> None:
    with Running(app):
        app.tasks["add"].delay(0, 0).get(timeout=DEADLINE)
    traces = Traces()
    for n in range(100):
        with Running(app):
            assert app.tasks["add"].delay(n, 1).get(timeout=DEADLINE) == n + 1
    assert not traces.new


def test_signals_of_its_life_are_sent_in_order(app: Celery) -> None:
    heard: list[str] = []
    wanted = ("celeryd_init", "worker_init", "celeryd_after_setup", "worker_ready", "worker_shutdown")
    receivers = {}
    for name in wanted:
        receivers[name] = lambda name=name, **_: heard.append(name)
        getattr(signals, name).connect(receivers[name])
    try:
        with Running(app, app.Worker):
            until(lambda: "worker_ready" in heard, "the worker is ready")
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)
    assert heard == list(wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("switch", "code"), [("should_stop", 0), ("should_stop", 3), ("should_terminate", 4)])
def test_the_switches_in_state_stop_it(app: Celery, monkeypatch: pytest.MonkeyPatch, switch: str, code: int) -> None:
    running = Running(app)
    with running as worker:
        app.tasks["add"].delay(1, 1).get(timeout=DEADLINE)
        monkeypatch.setattr(state, switch, False)  # no request: 0 is one
        app.tasks["add"].delay(1, 1).get(timeout=DEADLINE)
        monkeypatch.setattr(state, switch, code)
        running.thread.join(DEADLINE)
        assert not running.thread.is_alive()
    assert worker.exitcode == code


def test_only_the_chosen_queues_are_taken_from(app: Celery) -> None:
    add = app.tasks["add"]
    with Running(app, queues="hipri,celery", exclude_queues=["celery"]):
        waits = add.delay(1, 1)
        assert add.apply_async((1, 2), queue="hipri").get(timeout=DEADLINE) == 3
    assert waits.state == "PENDING"
    assert app.assembly.broker.depth("celery") == 1


def test_an_unknown_queue_is_refused_with_a_hint(app: Celery) -> None:
    app.conf.task_create_missing_queues = False
    with pytest.raises(ImproperlyConfigured, match="task_create_missing_queues"):
        WorkController(app=app, pool="solo", queues=["missing"])


def test_a_broker_that_will_never_work_ends_it_with_a_failure(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    worker = WorkController(app=app, pool="solo")

    def refuse(queues: object) -> None:
        raise ImproperlyConfigured("no such thing")

    app.assembly.broker_for_read.consume = refuse
    worker.start()
    assert worker.exitcode == 1
    assert "Unrecoverable error: no such thing" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")
def test_the_banner_shows_no_password(app: Celery) -> None:
    app.conf.update(broker_url="memory://u:secret@host", result_backend="memory://u:secret@host")
    shown = app.Worker(app=app, pool="solo", concurrency=1).startup_info()
    assert "memory://u:**@host" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(("given", "expected"), [(3, 3), ("4", 4), (0, os.cpu_count()), ("many", os.cpu_count())])
def test_concurrency(app: Celery, given: Any, expected: int) -> None:
    assert WorkController(app=app, pool="solo", concurrency=given).concurrency == expected


def test_it_can_be_printed(app: Celery) -> None:
    shown = repr(WorkController(app=app, pool="solo", hostname="w1@here"))
    assert re.fullmatch(r"<Worker: w1@here \(Pool, (\w+, )*Events, Consumer\)>", shown)
