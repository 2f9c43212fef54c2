"""Children of the prefork pool that are replaced: after so many runs, with too much memory, too slow to start."""

from __future__ import annotations

import logging
import random
import signal
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from celery.concurrency.prefork import PreforkPool
from celery.concurrency.retirement import resident_memory
from tests.contracts.pool import Bench, Scripted
from tests.process.test_prefork_limits import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from celery.message import Message

pytestmark = pytest.mark.process


class Hoarder(Scripted):
    """Keeps memory; may be slow to start; starts processes."""

    kept: bytearray
    #: Children that were started before this many hang at start.
    hanging = 0

    def start(self, index: int) -> None:
        super().start(index)
        with open(self.path) as diary:
            if sum("start" in line for line in diary) <= self.hanging:
                signal.pause()

    def do_keep(self, message: Message, mebibytes: int) -> None:
        self._note(f"run keep {mebibytes}")
        self.kept = bytearray(b"x") * (mebibytes << 20)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches = []

    def make(concurrency: int, hanging: int = 0, **options: Any) -> Bench:
        runner = Hoarder(tmp_path / "diary")
        runner.path, runner.hanging = tmp_path / "diary", hanging
        bench = Bench(lambda _: PreforkPool(runner, concurrency, **options), tmp_path)
        benches.append(bench)
        bench.pool.start()
        return bench

    yield make
    for bench in benches:
        bench.close()


def lives(bench: Bench) -> dict[int, list[str]]:
    """What each child noted."""
    notes = defaultdict(list)
    for pid, text in bench.notes():
        notes[pid].append(text)
    return notes


@pytest.mark.parametrize("most", [1, 7, 200])
def test_no_child_runs_more_than_it_may_and_nothing_is_lost(make: Callable[..., Bench], most: int) -> None:
    bench = make(2, max_tasks=most)
    bench.ready(2)
    random_ = random.Random(most)
    count = 40 * most if most < 10 else 1500
    keys: list[int] = []
    while len(keys) < count:
        room = max(1, min(bench.pool.free, 300))
        keys += bench.submit(*(bench.job("note", str(len(keys) + n)) for n in range(room)))
        if random_.random() < 0.05:
            bench.pool.take_back()
        enough = len(bench.told.accounted()) + 1
        bench.until(lambda enough=enough: len(bench.told.accounted()) >= enough)
    bench.settle(*keys)
    bench.stop()
    assert not bench.told.lost
    assert len(bench.told.finished) + len(bench.told.returned) == len(keys)
    runs = [[text for text in life if text.startswith("run")] for life in lives(bench).values()]
    assert sum(map(len, runs)) == len(bench.told.finished)
    assert max(map(len, runs)) == most
    assert sum(len(each) == most for each in runs) >= len(bench.told.finished) // most - 2
    for life in lives(bench).values():
        assert life[-1] == "stop"


def test_a_child_with_too_much_memory_finishes_its_task_and_is_replaced(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make(1, max_memory=resident_memory() + (40 << 10))
    bench.ready()
    pids = bench.pool.pids
    bench.settle(*bench.submit(bench.job("keep", 1)))
    assert bench.pool.pids == pids
    with caplog.at_level(logging.ERROR):
        (key,) = bench.submit(bench.job("keep", 100))
        bench.settle(key)
        assert key in bench.told.finished
        bench.settle(*bench.submit(*(bench.job("note", "after") for _ in range(5))))
    assert not caplog.records
    assert bench.pool.pids != pids
    first, second = lives(bench).values()
    assert first == ["start 0", "run keep 1", "run keep 100", "stop"]
    assert second == ["start 0", *["run after"] * 5]


def test_a_child_that_is_not_ready_in_time_is_replaced(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make(1, hanging=2, proc_alive_timeout=0.3)
    bench.ready()
    bench.settle(*bench.submit(bench.job("noop")))
    assert len(lives(bench)) == 3
    assert [record.message.partition(" (pid")[0] for record in caplog.records] == ["Pool child 0"] * 2
    assert "was not ready after 0.3 s (worker_proc_alive_timeout)" in caplog.text


def test_a_child_that_is_ready_stays(make: Callable[..., Bench]) -> None:
    bench = make(1, proc_alive_timeout=0.3)
    bench.ready()
    pids = bench.pool.pids
    time.sleep(0.5)
    bench.settle(*bench.submit(bench.job("noop")))
    assert bench.pool.pids == pids


def test_children_are_recycled_while_the_pool_shrinks_and_stops(make: Callable[..., Bench]) -> None:
    bench = make(3, max_tasks=1)
    bench.ready(3)
    pids = bench.pool.pids
    keys = bench.submit(*(bench.job("noop") for _ in range(3)))
    bench.pool.shrink(2)
    bench.settle(*keys)
    bench.until(lambda: len(bench.pool.pids) == 1 and bench.pool.free == 1)
    bench.submit(bench.job("noop"))
    bench.stop()
    assert not bench.told.lost
    wait_until_gone(*pids)


@pytest.mark.parametrize("options", [{"max_tasks": -1}, {"max_memory": -5}, {"start_method": "osmosis"}])
def test_terms_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PreforkPool(Scripted, 1, **options)
