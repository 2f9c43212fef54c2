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
