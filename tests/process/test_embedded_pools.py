"""Workers in the test's own process with each pool: their tasks, their log records, and nothing left behind."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, signals
from celery.concurrency import get_available_pool_names
from celery.contrib.testing.records import RecordHandler, RecordQueue
from celery.contrib.testing.worker import start_worker
from celery.utils.log import get_task_logger
from tests.running import Traces, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

DEADLINE = 30.0
FORKING = ("prefork",)
EMBEDDED = [name for name in ("solo", "prefork", "threads") if name in get_available_pool_names()]

log = logging.getLogger("project")
task_log = get_task_logger("project.tasks")


def children() -> set[str]:
    """Living processes that threads of this one have started."""
    found = {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}
    return {pid for pid in found if ") Z " not in Path(f"/proc/{pid}/stat").read_text()}


def occupy(worker: Any, task: Any) -> None:
    task.delay()
    wait_until(lambda: worker.consumer.held, "the task runs")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("no")

    def __repr__(self) -> str:
        return "<unpicklable>"


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("embedded", broker=name, backend=name, set_as_current=False)

    @app.task(name="log", shared=False)
    def log_something(text: str, size: int = 0) -> int:
        log.info("%s: %s", text, "x" * size, extra={"odd": Unpicklable()})
        task_log.info("of the task")
        return os.getpid()

    @app.task(name="fail", shared=False)
    def fail() -> None:
        raise KeyError("reason")

    @app.task(name="sub", shared=False)
    def sub() -> str:
        return "linked"

    yield app
    app.close()


@pytest.mark.parametrize("pool", EMBEDDED)
def test_log_records_of_tasks_are_the_tests(app: Celery, pool: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are there when the result is: no need to wait for them."""
    with start_worker(app, pool=pool, concurrency=2):
        caplog.set_level(logging.INFO)
        for n in range(20):
            caplog.clear()
            result = app.tasks["log"].delay(f"call {n}")
            pid = result.get(timeout=DEADLINE)
            assert (pid != os.getpid()) == (pool in FORKING)
            assert f"call {n}: " in caplog.messages
            assert "of the task" in caplog.messages
            assert f"Task log[{result.id}] received" == caplog.messages[0]
            (record,) = [r for r in caplog.records if r.name == "project"]
            assert (record.process, repr(record.odd).strip("'")) == (pid, "<unpicklable>")  # type: ignore[attr-defined]
        caplog.clear()
        with pytest.raises(KeyError):
            app.tasks["fail"].delay().get(timeout=DEADLINE)
        (failed,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "KeyError: 'reason'" in (failed.exc_text or logging.Formatter().formatException(failed.exc_info))  # type: ignore[arg-type]
        caplog.set_level(logging.WARNING)
        caplog.clear()
        app.tasks["log"].delay("not seen").get(timeout=DEADLINE)
        assert not caplog.records


@pytest.mark.parametrize("pool", FORKING)
def test_records_of_any_size(app: Celery, pool: str, caplog: pytest.LogCaptureFixture) -> None:
    with start_worker(app, pool=pool, concurrency=1, loglevel="info"):
        app.tasks["log"].delay("big", 1 << 20).get(timeout=DEADLINE)
        (record,) = [r for r in caplog.records if r.name == "project"]
        assert record.getMessage().startswith("big: xxx")
        results = [app.tasks["log"].delay("many", 4000) for _ in range(500)]
        assert all(result.get(timeout=DEADLINE) for result in results)
    assert sum(record.getMessage().startswith("many") for record in caplog.records) == 500


@pytest.mark.parametrize("pool", EMBEDDED)
def test_ten_times(app: Celery, pool: str) -> None:
    root = list(logging.getLogger().handlers)
    with start_worker(app, pool=pool, concurrency=2):
        pass
    traces = Traces()
    for _ in range(10):
        with start_worker(app, pool=pool, concurrency=2):
            app.tasks["log"].delay("again").get(timeout=DEADLINE)
    traces.wait()
    assert logging.getLogger().handlers == root
    assert not signals.worker_process_init.receivers


def test_links_of_forked_tasks_stay_in_this_process(app: Celery) -> None:
    """`memory://` and prefork: what a task's end sends is sent by the main process."""
    with start_worker(app, pool="prefork", concurrency=1):
        linked = app.tasks["sub"].si()
        following = linked.freeze()
        app.tasks["log"].apply_async(("first",), link=linked).get(timeout=DEADLINE)
        assert following.get(timeout=DEADLINE) == "linked"


@pytest.mark.parametrize("pool", FORKING)
def test_forked_tasks_that_do_not_end_are_killed(app: Celery, pool: str) -> None:
    @app.task(shared=False)
    def stuck() -> None:
        threading.Event().wait(10 * DEADLINE)

    before = children()
    with (
        pytest.raises(RuntimeError, match="shutdown_timeout"),
        start_worker(app, pool=pool, shutdown_timeout=0.2) as worker,
    ):
        occupy(worker, stuck)
    assert children() == before


def test_a_queue_whose_reader_is_gone_drops_records() -> None:
    queue = RecordQueue()
    handler = RecordHandler(queue)
    record = logging.makeLogRecord({"msg": "%d", "args": (1,)})
    handler.emit(record)
    queue._reader.close()
    handler.emit(record)
    queue.close()
    queue.deliver()
    assert record.args == (1,)
