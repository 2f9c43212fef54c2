"""Children of the prefork pool that are fresh interpreters."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.concurrency.prefork import PreforkPool
from celery.message import Message
from celery.outcome import Outcome, Record, Success
from tests.contracts.pool import Bench, PoolContract, Scripted
from tests.process.test_prefork_limits import Limited, limited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process


class Travelling(Limited):
    """A runner that is made anew in each child."""

    def __init__(self, diary: Path) -> None:
        super().__init__(diary)
        self.path = diary

    def __reduce__(self) -> Any:
        return Travelling, (self.path,)

    def do_where(self, message: Message) -> Outcome:
        """Which process this is, and how many threads it has, and whether it knows a module of ours."""
        text = f"{os.getpid()} {threading.active_count()} {'only_here' in sys.modules}"
        text += f" {os.environ.get('FORKED_BY_MULTIPROCESSING')}"
        return Success(record=Record("id", "SUCCESS", text.encode()))


class TestContract(PoolContract):
    def make(self, runner: Scripted) -> PreforkPool:
        diary = os.readlink(f"/proc/self/fd/{runner._diary}")
        return PreforkPool(Travelling(Path(diary)), 1, start_method="spawn")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches = []

    def start(**options: Any) -> Bench:
        runner = Travelling(tmp_path / "diary")
        bench = Bench(lambda _: PreforkPool(runner, 1, start_method="spawn", **options), tmp_path)
        benches.append(bench)
        bench.pool.start()
        bench.ready()
        return bench

    yield start
    for bench in benches:
        bench.close()


def test_a_child_is_an_interpreter_of_its_own(start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "only_here", sys)  # a fork would have it
    bench = start()
    (key,) = bench.submit(bench.job("where"))
    bench.settle(key)
    assert bench.told.finished[key].record.meta.split() == [str(bench.pool.pids[0]).encode(), b"2", b"False", b"1"]


def test_limits_hold_and_children_are_replaced(start: Callable[..., Bench]) -> None:
    bench = start(max_tasks=2)
    hard, soft, *others = bench.submit(
        limited(bench.job("spin"), hard=0.3),
        limited(bench.job("sleep", 1000), soft=0.1),
        *(bench.job("noop") for _ in range(3)),
    )
    bench.settle(hard, soft, *others)
    assert bench.told.timed_out == {hard: 0.3}
    assert bench.told.finished[soft].reason == "soft"
    assert set(others) <= set(bench.told.finished)
    assert [text for _, text in bench.notes()].count("start 0") >= 3


def test_what_cannot_travel_is_refused_at_start(tmp_path: Path) -> None:
    pool = PreforkPool(Scripted(tmp_path / "diary"), 1, start_method="spawn")
    pool._runner.odd = lambda: None
    with pytest.raises(ValueError, match="importable or picklable"):
        pool.start()


app = Celery("spawned", broker="memory://", backend="cache+memory://", set_as_current=False)


@app.task(name="spawned.add")
def add(x: int, y: int) -> int:
    return x + y


def test_an_app_travels_by_its_import_path_with_its_settings(tmp_path: Path) -> None:
    app.conf.update(task_serializer="json", result_extended=True)
    pool = PreforkPool(app.assembly.runner("w@here"), 1, start_method="spawn")
    bench = Bench(lambda _: pool, tmp_path)
    pool.start()
    bench.ready()
    job = bench.job("note")
    job.message = Message({"task": "spawned.add", "id": "i"}, b"[[2, 3], {}, {}]")
    bench.settle(*bench.submit(job))
    outcome = bench.told.finished[job.key]
    assert b'"result":5' in outcome.record.meta
    assert b'"worker":"w@here"' in outcome.record.meta
    bench.close()
