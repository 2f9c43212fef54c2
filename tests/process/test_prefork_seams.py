"""Libraries that replace methods of `billiard.pool.Worker` see every child of ours pass through them."""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import billiard.pool
import pytest

from celery.concurrency.billiard_worker import replaced_worker
from celery.concurrency.prefork import PreforkPool
from tests.contracts.pool import Bench
from tests.process.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.process


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    bench = Bench(lambda runner: PreforkPool(runner, 1, max_tasks=3), tmp_path)
    yield bench
    bench.close()


def noting(bench: Bench, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """The method, wrapped as such libraries do; notes how it was called."""

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        pid = os.getpid()
        shown = [value if value != pid else "pid" for value in args[1:]]
        bench.runner._note(f"{name} {shown} { {key: value == pid for key, value in kwargs.items()} }")
        try:
            return original(*args, **kwargs)
        finally:
            bench.runner._note(f"{name} ends")

    return wrapper


def test_by_default_nothing_of_billiards_is_called() -> None:
    assert replaced_worker() is None


def test_the_loop_of_each_child_runs_inside_a_replaced_workloop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billiard.pool.Worker, "workloop", noting(bench, "loop", billiard.pool.Worker.workloop))
    bench.pool.start()
    bench.settle(*bench.submit(*(bench.job("note", "x") for _ in range(4))))
    bench.stop()
    life = ["start 0", "loop [] {'pid': True}", *["run x"] * 3, "loop ends", "stop"]
    assert [text for _, text in bench.notes()] == [*life, *life[:2], "run x", *life[-2:]]
    assert not bench.told.lost


def test_each_child_exits_through_a_replaced_do_exit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billiard.pool.Worker, "_do_exit", noting(bench, "exit", billiard.pool.Worker._do_exit))
    bench.pool.start()
    bench.ready()
    (key,) = bench.submit(bench.job("exit", 3))
    bench.settle(key)
    assert bench.told.lost == {key: "exit status 3"}
    bench.settle(*bench.submit(bench.job("note", "x")))
    bench.stop()
    texts = [text for _, text in bench.notes()]
    assert texts == [
        "start 0",
        "stop",
        "exit ['pid', 3, None] {}",
        "start 0",
        "run x",
        "stop",
        "exit ['pid', 0, None] {}",
    ]


def test_what_a_task_raises_passes_through(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billiard.pool.Worker, "workloop", noting(bench, "loop", billiard.pool.Worker.workloop))
    bench.pool.start()
    (key,) = bench.submit(bench.job("kill", signal.SIGTERM))
    bench.settle(key)
    assert bench.told.lost == {key: "exit status 143"}
    assert "loop ends" in {text for _, text in bench.notes()}


def test_a_replacement_that_never_calls_the_original_does_not_stop_the_pool(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billiard.pool.Worker, "workloop", lambda self, **_: None)
    bench.pool.start()
    (key,) = bench.submit(bench.job("noop"))
    bench.settle(key)
    assert key in bench.told.finished


def test_billiards_pool_is_not_loaded_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "billiard.pool")
    assert replaced_worker() is None
    assert "billiard.pool" not in sys.modules


WRAPPED = """
from celery import Celery
from celery.concurrency import prefork
from celery.signals import worker_process_init, worker_process_shutdown

app = Celery("proj", broker=URL, backend=URL)


@app.task
def add(x, y):
    return x + y


def wrap(name):
    original = getattr(prefork, name)

    def wrapper(*args, **kwargs):
        note(name, *[getattr(arg, "main", arg) for arg in args], kwargs)
        return original(*args, **kwargs)

    setattr(prefork, name, wrapper)


def note(*words):
    with open("note", "a") as file:
        print(*words, file=file)


wrap("process_initializer")
wrap("process_destructor")


@worker_process_init.connect
def init(**kwargs):
    note("init")


@worker_process_shutdown.connect
def shutdown(exitcode, **kwargs):
    note("shutdown", exitcode)
"""


@pytest.mark.parametrize("options", ["", "--pool-start-method spawn"])
def test_each_child_calls_a_replaced_initializer_and_destructor(tmp_path: Path, options: str) -> None:
    """As newrelic replaces them: the module's names, before the worker starts."""
    project = Project(tmp_path, WRAPPED, PYTHONWARNINGS="ignore")
    with project.ready(f"-c 1 -n w1@here {options}") as worker:
        assert project.send("add", 1, 2).get(timeout=30) == 3
        assert worker.stop(signal.SIGTERM) == 0
    project.app.close()
    said = project.note().read_text().splitlines()
    assert said[:2] == ["process_initializer proj w1@here {}", "init"]
    assert said[2].startswith("process_destructor ")
    assert said[2].endswith(" 0 {}")
    assert said[3:] == ["shutdown 0"]


def test_pools_without_processes_call_neither(tmp_path: Path) -> None:
    project = Project(tmp_path, WRAPPED, PYTHONWARNINGS="ignore")
    with project.ready("-P solo") as worker:
        assert project.send("add", 1, 2).get(timeout=30) == 3
        assert worker.stop(signal.SIGTERM) == 0
    project.app.close()
    assert project.note().read_text().splitlines() == ["init", "shutdown 0"]
