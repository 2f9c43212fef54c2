"""Runs that do not end by themselves: time limits, and processes that die. Compared with Celery 5.7 as observed."""

from __future__ import annotations

import os
import signal
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError

from celery import Celery, Task, signals
from celery.worker.request import Request
from tests.flow.engine import DEADLINE, until
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.process


class Told(list[Any]):
    """What hooks and signals in the worker's main process were told."""


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def app(told: Told, tmp_path: Path) -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("endings", broker=name, backend=name, set_as_current=False)

    class Telling(Task):
        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("on_failure", self.name, repr(exc), list(args), kwargs))

        def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("on_retry", self.name, repr(exc), list(args), kwargs))

        def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("after_return", self.name, status))

    app.Task = Telling
    log = tmp_path / "runs"

    def runs(name: str) -> int:
        """Note a run; returns how many there were before."""
        with log.open("a") as file:
            file.write(name + "\n")
        return log.read_text().split().count(name) - 1

    @app.task(name="slow", time_limit=0.3)
    def slow(x: int) -> None:
        time.sleep(60)

    @app.task(name="unlimited")
    def unlimited(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    @app.task(name="late", time_limit=0.5, acks_late=True, acks_on_timeout=False)
    def late() -> str:
        if not runs("late"):
            time.sleep(60)
        return "second"

    @app.task(name="fails_late", acks_late=True, acks_on_failure=False)
    def fails_late() -> None:
        raise ValueError("no")

    @app.task(name="die", acks_late=True, retry_on_worker_lost=True, max_retries=2, default_retry_delay=0.05)
    def die(x: int) -> None:
        runs("die")
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="die_once", retry_on_worker_lost=True, reject_on_worker_lost=True, default_retry_delay=0.05)
    def die_once(x: int) -> int:
        if not runs("die_once"):
            os.kill(os.getpid(), signal.SIGKILL)
        return app.current_worker_task.request.retries if app.current_worker_task else -1

    app.runs = lambda name: log.read_text().split().count(name) if log.exists() else 0  # type: ignore[attr-defined]
    yield app
    app.close()


@pytest.fixture
def failures(told: Told) -> Iterator[None]:
    def failed(sender: Any, exception: BaseException, args: Any, **_: Any) -> None:
        told.append(("task_failure", sender.name, repr(exception), list(args)))

    def retried(sender: Any, request: Any, reason: Any, **_: Any) -> None:
        told.append(("task_retry", sender.name, request.id, str(reason)))

    signals.task_failure.connect(failed, weak=False, dispatch_uid="t")
    signals.task_retry.connect(retried, weak=False, dispatch_uid="t")
    yield
    signals.task_failure.disconnect(dispatch_uid="t")
    signals.task_retry.disconnect(dispatch_uid="t")


@pytest.mark.usefixtures("failures")
def test_a_hard_limit_fails_the_task_and_tells_everybody_once(
    app: Celery, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    with working(app):
        result = app.tasks["slow"].delay(7)
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=DEADLINE)
        until(lambda: len(told) == 3, "the hooks and the signal")
        assert app.tasks["unlimited"].delay(0).get(timeout=DEADLINE) == "done"
    exc = "TimeLimitExceeded(0.3)"
    assert told == [
        ("on_failure", "slow", exc, [7], {}),
        ("after_return", "slow", "FAILURE"),
        ("task_failure", "slow", exc, [7]),
    ]
    assert (result.state, repr(result.result)) == ("FAILURE", exc)
    assert f"Hard time limit (0.3s) exceeded for slow[{result.id}]" in caplog.messages


@pytest.mark.parametrize(
    ("options", "worker", "limit"),
    [
        ({"time_limit": 0.4}, {"time_limit": 9}, 0.4),
        ({}, {"time_limit": 0.2}, 0.2),
        ({"time_limit": 0}, {"time_limit": 0.2}, 0.2),
    ],
    ids=["call", "worker", "call says nothing"],
)
def test_the_call_outranks_the_worker(app: Celery, options: Any, worker: Any, limit: float) -> None:
    with working(app, **worker), pytest.raises(TimeLimitExceeded) as raised:
        app.tasks["unlimited"].apply_async((60,), **options).get(timeout=DEADLINE)
    assert raised.value.args in ((limit,), (f"({limit},)",))


def test_the_task_outranks_the_worker(app: Celery) -> None:
    with working(app, time_limit=50), pytest.raises(TimeLimitExceeded, match=r"0\.3"):
        app.send_task("slow", (1,)).get(timeout=DEADLINE)


def test_a_soft_limit_is_told_in_the_log(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    with working(app, soft_time_limit=0.2):
        result = app.tasks["unlimited"].delay(60)
        with pytest.raises(SoftTimeLimitExceeded):
            result.get(timeout=DEADLINE)
    assert f"Soft time limit (0.2s) exceeded for unlimited[{result.id}]" in caplog.messages


def test_a_late_task_goes_back_to_its_queue_if_limits_do_not_acknowledge(app: Celery) -> None:
    with working(app):
        result = app.tasks["late"].delay()
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=DEADLINE)
        until(lambda: app.AsyncResult(result.id).state == "SUCCESS", "the second run")
    assert app.runs("late") == 2  # type: ignore[attr-defined]


def test_a_late_failure_is_refused_if_failures_do_not_acknowledge(app: Celery) -> None:
    with working(app) as worker:
        result = app.tasks["fails_late"].delay()
        with pytest.raises(ValueError, match="no"):
            result.get(timeout=DEADLINE)
        until(lambda: not worker.consumer.held, "it is settled")
    assert app.assembly.broker.depth("celery") == 0  # type: ignore[attr-defined]


@pytest.mark.usefixtures("failures")
def test_a_lost_task_is_retried_until_its_retries_are_used_up(
    app: Celery, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with working(app):
        result = app.tasks["die"].delay(3)
        with pytest.raises(WorkerLostError, match=r"signal 9 \(SIGKILL\)"):
            result.get(timeout=DEADLINE)
    assert app.runs("die") == 3  # type: ignore[attr-defined]
    kinds = [what[0] for what in told]
    assert kinds == ["on_retry", "task_retry", "on_retry", "task_retry", "task_failure"]
    assert told[0][3:] == ([3], {})
    assert told[1][2] == result.id
    assert told[1][3].startswith("Retry in 0.05s: WorkerLostError(")
    assert any(m.startswith(f"Task die[{result.id}] retry: Retry in 0.05s: WorkerLostError(") for m in caplog.messages)


def test_a_task_that_acknowledges_early_is_retried_too(app: Celery) -> None:
    with working(app):
        result = app.tasks["die_once"].delay(3)
        assert result.get(timeout=DEADLINE) == 1
    assert app.runs("die_once") == 2  # type: ignore[attr-defined]


def test_a_request_class_takes_part(app: Celery) -> None:
    calls: list[tuple[Any, ...]] = []

    class Watching(Request):
        def on_accepted(self, pid: Any, time_accepted: float) -> None:
            super().on_accepted(pid, time_accepted)
            calls.append(("accepted", self.name, self.acknowledged, isinstance(time_accepted, float)))

        def on_timeout(self, soft: bool, timeout: float) -> None:
            calls.append(("timeout", soft, timeout))
            super().on_timeout(soft, timeout)

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
            calls.append(("failure", exc_info.type.__name__, send_failed_event, return_ok))
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    class Watched(Task):
        Request = Watching

    @app.task(base=Watched, name="bad")
    def bad() -> None:
        raise KeyError("x")

    @app.task(base=Watched, name="good", acks_late=True)
    def good() -> int:
        return 1

    @app.task(base=Watched, name="endless", time_limit=0.4, soft_time_limit=0.1)
    def endless() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(SoftTimeLimitExceeded):
                time.sleep(60)

    with working(app) as worker:
        assert good.delay().get(timeout=DEADLINE) == 1
        with pytest.raises(KeyError):
            bad.delay().get(timeout=DEADLINE)
        with pytest.raises(TimeLimitExceeded):
            endless.delay().get(timeout=DEADLINE)
        until(lambda: not worker.consumer.held, "all is settled")
    assert calls == [
        ("accepted", "good", False, True),
        ("accepted", "bad", True, True),
        ("failure", "KeyError", True, True),
        ("accepted", "endless", True, True),
        ("timeout", True, 0.1),
        ("failure", "TimeLimitExceeded", True, False),
        ("timeout", False, 0.4),
    ]
    assert app.assembly.broker.depth("celery") == 0  # type: ignore[attr-defined]
