"""Time limits of real tasks in the prefork pool: where the soft limit is raised, and how it is told."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, signals
from celery.concurrency.prefork import PreforkPool
from celery.exceptions import SoftTimeLimitExceeded
from celery.message import Message
from tests.contracts.pool import Bench
from tests.process.test_prefork_limits import limited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

app = Celery("limits", broker="memory://", backend="cache+memory://", set_as_current=False)
logger = logging.getLogger("limits")


@app.task(name="limits.wait")
def wait(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


@app.task(name="limits.catch")
def catch(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded as exc:
        return f"caught {exc!r} {exc.args}"
    return "done"


@app.task(name="limits.log")
def log() -> None:
    """The limit passes inside a log handler, which swallows what is raised in it."""
    logger.warning("slow")
    time.sleep(1000)


class SlowHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            time.sleep(0.2)
        except Exception:  # noqa: BLE001 - as handlers do
            self.handleError(record)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    handler = SlowHandler()
    logger.addHandler(handler)
    bench = Bench(lambda _: PreforkPool(app.assembly.runner("w@here"), 1), tmp_path)
    bench.pool.start()
    bench.ready()
    yield bench
    bench.close()
    logger.removeHandler(handler)


def run(bench: Bench, task: str, *args: Any, soft: float | None = None, hard: float | None = None) -> Any:
    """Run one task in the pool; its state document, or None if it timed out."""
    job = limited(bench.job("noop"), soft, hard)
    job.message = Message({"task": f"limits.{task}", "id": f"i{job.key}"}, json.dumps([args, {}, {}]).encode())
    bench.settle(*bench.submit(job))
    outcome = bench.told.finished.get(job.key)
    return outcome and json.loads(outcome.record.meta)


def test_a_soft_limit_is_a_failure_of_the_task(bench: Bench) -> None:
    document = run(bench, "wait", 1000, soft=0.1)
    assert document["status"] == "FAILURE"
    # As Celery 5.7 stores it: no arguments.
    assert document["result"] == {
        "exc_type": "SoftTimeLimitExceeded", "exc_message": [], "exc_module": "billiard.exceptions",
    }  # fmt: skip


def test_a_task_may_catch_it(bench: Bench) -> None:
    assert run(bench, "catch", 1000, soft=0.1)["result"] == "caught SoftTimeLimitExceeded() ()"
    assert run(bench, "catch", 0, soft=0.1)["result"] == "done"


def test_it_waits_for_the_end_of_a_log_handler(bench: Bench) -> None:
    assert run(bench, "log", soft=0.1)["result"]["exc_type"] == "SoftTimeLimitExceeded"


def test_it_is_never_raised_outside_the_task(bench: Bench) -> None:
    """The limit passes in a receiver of a signal, after the task has ended well."""

    def slow(**_: Any) -> None:
        time.sleep(0.3)

    signals.task_postrun.connect(slow, weak=False)
    other = Bench(lambda _: PreforkPool(app.assembly.runner("w@here"), 1), bench.folder)
    try:
        other.pool.start()
        other.ready()
        assert run(other, "wait", 0, soft=0.1)["result"] == "done"
        assert run(other, "wait", 0, soft=0.1)["result"] == "done"
    finally:
        other.close()
        signals.task_postrun.disconnect(slow)


def test_a_hard_limit_leaves_the_outcome_to_the_main_process(bench: Bench) -> None:
    assert run(bench, "wait", 1000, hard=0.1) is None
    assert list(bench.told.timed_out.values()) == [0.1]
    assert run(bench, "wait", 0)["result"] == "done"
