"""Sixty cases of policy and behaviour: attempts, delays, final state and traceback, here and in a worker's run."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery import Celery, Task
from celery.worker import WorkController
from tests.compat.apps import state
from tests.compat.attempts import Reasons, attempts, taken
from tests.flow.engine import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["state"]

STEADY = {"retry_jitter": False}
#: Name → options of the task.
POLICIES: dict[str, dict[str, Any]] = {
    "none": {},
    "auto": {"autoretry_for": (ValueError,)},
    "once": {"autoretry_for": (ValueError,), "max_retries": 1},
    "countdown": {"autoretry_for": (ValueError,), "retry_kwargs": {"countdown": 7}},
    "arguments": {"autoretry_for": (ValueError,), "retry_kwargs": {"max_retries": 2, "countdown": 5}},
    "back-off": {"autoretry_for": (ValueError,), "retry_backoff": True, "max_retries": 5, **STEADY},
    "capped": {"autoretry_for": (ValueError,), "retry_backoff": 3, "retry_backoff_max": 10, "max_retries": 5, **STEADY},
    "jitter": {"autoretry_for": (ValueError,), "retry_backoff": 40},
    "back-off wins": {
        "autoretry_for": (ValueError,), "retry_backoff": 2, "retry_kwargs": {"countdown": 99}, **STEADY,
    },
    "exempt": {"autoretry_for": (Exception,), "dont_autoretry_for": (ValueError,)},
    "never": {"autoretry_for": (Exception,), "max_retries": 0},
    "class": {"autoretry_for": (Exception,), "retry_backoff": 2, "max_retries": 2, **STEADY},
}  # fmt: skip
RAISES, RETRIES, STATES_ALL, TIMES_OUT, RECOVERS = "raises", "retries", "retries as it says", "times out", "recovers"
BEHAVIOURS = [RAISES, RETRIES, STATES_ALL, TIMES_OUT, RECOVERS]

DEFAULT = [180, 180, 180]
#: Policy → seconds before each further attempt, for each behaviour. What it states itself always holds.
EXPECTED: dict[str, tuple[list[int], ...]] = {
    "none": ([], DEFAULT, [4, 4], [], []),
    "auto": (DEFAULT, DEFAULT, [4, 4], [], [180, 180]),
    "once": ([180], [180], [4, 4], [], [180]),
    "countdown": ([7, 7, 7], DEFAULT, [4, 4], [], [7, 7]),
    "arguments": ([5, 5], DEFAULT, [4, 4], [], [5, 5]),
    "back-off": ([1, 2, 4, 8, 16], [1, 2, 4, 8, 16], [4, 4], [], [1, 2]),
    "capped": ([3, 6, 10, 10, 10], [3, 6, 10, 10, 10], [4, 4], [], [3, 6]),
    "jitter": ([40, 80, 160], [40, 80, 160], [4, 4], [], [40, 80]),  # at most
    "back-off wins": ([2, 4, 8], [2, 4, 8], [4, 4], [], [2, 4]),
    "exempt": ([], DEFAULT, [4, 4], DEFAULT, []),
    "never": ([], [], [4, 4], [], []),
    "class": ([2, 4], [2, 4], [4, 4], [2, 4], [2, 4]),
}
CASES = [(policy, behaviour) for policy in POLICIES for behaviour in BEHAVIOURS]


def misbehave(task: Task, behaviour: str) -> str:
    if behaviour == TIMES_OUT:
        raise SoftTimeLimitExceeded()
    if behaviour == RECOVERS and task.request.retries == 2:
        return "recovered"
    try:
        raise ValueError(f"attempt {task.request.retries}")
    except ValueError as exc:
        if behaviour == RETRIES:
            task.retry(exc=exc)
        if behaviour == STATES_ALL:
            task.retry(exc=exc, countdown=4, max_retries=2)
        raise


def task_of(app: Celery, policy: str) -> Task:
    if policy != "class":
        return app.task(bind=True, name=policy, **POLICIES[policy])(misbehave)

    class Misbehaving(Task):
        name = policy

        def run(self, behaviour: str) -> str:
            return misbehave(self, behaviour)

    for name, value in POLICIES[policy].items():
        setattr(Misbehaving, name, value)
    return app.register_task(Misbehaving())


@pytest.fixture
def app(state: None) -> Iterator[Celery]:
    name = f"memory://{uuid4()}"
    app = Celery("table", broker=name, backend=name)
    yield app
    app.close()


def check_delays(policy: str, delays: list[float], wanted: list[int]) -> None:
    assert len(delays) == len(wanted)
    if policy == "jitter" and wanted != [4, 4]:
        assert all(-0.5 <= delay <= most for delay, most in zip(delays, wanted, strict=True))
    else:
        assert delays == pytest.approx(wanted, rel=0.05, abs=0.05)


def check_end(policy: str, behaviour: str, wanted: list[int], result: Any) -> None:
    if behaviour == RECOVERS and len(wanted) == 2:
        assert (result.state, result.result, result.traceback) == ("SUCCESS", "recovered", None)
        return
    assert result.state == "FAILURE"
    kind = SoftTimeLimitExceeded if behaviour == TIMES_OUT else ValueError
    assert type(result.result) is kind
    if kind is ValueError:
        assert result.result.args == (f"attempt {len(wanted)}",)
    # Where it was raised, not where it was raised again.
    raising = f"raise {kind.__name__}("
    assert re.search(rf'test_retry_table\.py", line \d+, in misbehave\n +{re.escape(raising)}', result.traceback)
    assert "MaxRetriesExceeded" not in result.traceback


@pytest.mark.parametrize(("policy", "behaviour"), CASES)
def test_run_here(app: Celery, policy: str, behaviour: str) -> None:
    wanted = EXPECTED[policy][BEHAVIOURS.index(behaviour)]
    with Reasons() as reasons:
        result = task_of(app, policy).apply((behaviour,))
    check_delays(policy, reasons.delays, wanted)
    check_end(policy, behaviour, wanted, result)


@pytest.mark.parametrize(("policy", "behaviour"), CASES)
def test_run_by_a_worker(app: Celery, policy: str, behaviour: str) -> None:
    wanted = EXPECTED[policy][BEHAVIOURS.index(behaviour)]
    result = task_of(app, policy).delay(behaviour)
    seen = attempts(app, taken(app))
    check_delays(policy, seen.delays, wanted)
    assert [message.retries for message in seen.messages] == list(range(len(wanted) + 1))
    assert {message.id for message in seen.messages} == {result.id}
    check_end(policy, behaviour, wanted, result)


@pytest.mark.parametrize("behaviour", [RAISES, RETRIES, RECOVERS])
@pytest.mark.parametrize("options", [{"acks_late": True}, {}])
@pytest.mark.parametrize("url", ["memory://{uuid}", "sqlite:///{folder}/queue.sqlite3"])
def test_in_a_whole_worker(state: None, url: str, options: dict[str, Any], behaviour: str, tmp_path: Any) -> None:
    url = url.format(uuid=uuid4(), folder=tmp_path)
    app = Celery("table", broker=url, backend=url)
    ran: list[int] = []
    policy = {"autoretry_for": (ValueError,), "retry_kwargs": {"countdown": 0.01}, "default_retry_delay": 0.01}

    @app.task(bind=True, name="t", **policy, **options)
    def t(self: Task, behaviour: str) -> str:
        ran.append(self.request.retries)
        return misbehave(self, behaviour)

    worker = WorkController(app=app, pool="solo", concurrency=1)
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        result = t.delay(behaviour)
        result.get(timeout=DEADLINE, propagate=False)
    finally:
        worker.stop()
        thread.join(DEADLINE)
    wanted = [180, 180] if behaviour == RECOVERS else DEFAULT
    assert ran == list(range(len(wanted) + 1))
    check_end("whole", behaviour, wanted, result)
    assert app.assembly.broker.depth("celery") == 0
    app.close()
