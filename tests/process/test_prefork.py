"""The prefork pool: the contract, and what it does about slow jobs, deaths and forks."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celery.concurrency.prefork import PreforkPool
from tests.contracts.pool import DEADLINE, Bench, PoolContract, Scripted, open_gate
from tests.running import Traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.process


class TestContract(PoolContract):
    concurrency = 2

    def make(self, runner: Scripted) -> PreforkPool:
        return PreforkPool(runner, self.concurrency)


class TestContractOfOneChild(PoolContract):
    def make(self, runner: Scripted) -> PreforkPool:
        return PreforkPool(runner, self.concurrency)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Bench]]:
    benches = []

    def start(concurrency: int) -> Bench:
        bench = Bench(lambda runner: PreforkPool(runner, concurrency), tmp_path)
        benches.append(bench)
        bench.pool.start()
        bench.ready(concurrency)
        return bench

    yield start
    for bench in benches:
        bench.close()


def learn(bench: Bench, gate: Path | None = None, free: int = 100) -> None:
    """Let the pool see that `noop` and `note` (and going through the gate) are short, until it asks for batches."""
    for _ in range(40 if gate else 0):
        (key,) = bench.submit(bench.job("gate", str(gate)))
        open_gate(gate)
        bench.settle(key)
    for task, args in (("note", ("x",)), ("perhaps", (0,)), ("noop", ())):
        bench.settle(*bench.submit(*(bench.job(task, *args) for _ in range(64))))
    while bench.pool.free < free:
        bench.settle(*bench.submit(*(bench.job("noop") for _ in range(bench.pool.free))))


def test_a_job_is_told_as_begun_while_it_runs(start: Callable[[int], Bench]) -> None:
    bench = start(1)
    gate = bench.gate()
    (key,) = bench.submit(bench.job("gate", str(gate)))
    descriptor = bench.pool.descriptors()[0]
    while key not in bench.told.begun:
        assert select.select([descriptor], (), (), DEADLINE)[0]
        bench.look()
    open_gate(gate)
    bench.settle(key)


def test_short_jobs_travel_in_batches_once_they_are_known(start: Callable[[int], Bench]) -> None:
    bench = start(2)
    assert bench.pool.free == 2
    bench.settle(*bench.submit(*(bench.job("noop") for _ in range(16))))
    while bench.pool.free < 500:
        before = bench.pool.free
        bench.settle(*bench.submit(*(bench.job("noop") for _ in range(before))))
        assert bench.pool.free > before


def test_a_slow_job_does_not_delay_short_ones_behind_it(start: Callable[[int], Bench]) -> None:
    """All names are known as short, so the slow one travels in a batch with others behind it."""
    bench = start(2)
    gate = bench.gate()
    learn(bench, gate)
    slow = bench.submit(bench.job("gate", str(gate)))
    short = bench.submit(*(bench.job("noop") for _ in range(100)))
    bench.settle(*short)
    assert not bench.told.returned
    assert slow[0] not in bench.told.finished
    open_gate(gate)
    bench.settle(*slow)


def test_outcomes_of_short_jobs_are_not_held_up_by_a_slow_one_behind_them(start: Callable[[int], Bench]) -> None:
    bench = start(1)
    gate = bench.gate()
    learn(bench, gate)
    *short, slow = bench.submit(*(bench.job("noop") for _ in range(5)), bench.job("gate", str(gate)))
    bench.settle(*short)
    assert slow not in bench.told.finished
    open_gate(gate)
    bench.settle(slow)


def test_unknown_and_redelivered_jobs_go_to_an_idle_child_each(start: Callable[[int], Bench]) -> None:
    bench = start(2)
    learn(bench)
    gates = [bench.gate(), bench.gate()]
    keys = bench.submit(
        bench.job("noop", redelivered=True),
        bench.job("give", "success"),
        *(bench.job("gate", str(gate)) for gate in gates),
        bench.job("note", "behind"),
    )
    bench.until(lambda: set(keys[:2]) <= set(bench.told.finished) and set(keys[2:4]) <= set(bench.told.begun))
    assert bench.pool.free < 0
    bench.pool.take_back()
    bench.until(lambda: keys[4] in bench.told.returned)
    assert "run behind" not in {text for _, text in bench.notes()}
    for gate in gates:
        open_gate(gate)
    bench.settle(*keys)


def test_take_back_empties_the_window_of_a_busy_child(start: Callable[[int], Bench]) -> None:
    bench = start(1)
    gate = bench.gate()
    learn(bench, gate)
    slow, *behind = bench.submit(bench.job("gate", str(gate)), *(bench.job("noop") for _ in range(30)))
    bench.until(lambda: slow in bench.told.begun)
    bench.pool.take_back()
    bench.settle(*behind)
    assert bench.told.returned == behind  # nothing of them waited in the main process
    open_gate(gate)
    bench.settle(slow)
    assert slow in bench.told.finished


class TestDeaths:
    def test_only_the_running_job_is_lost(self, start: Callable[[int], Bench]) -> None:
        """The killer is in the middle of a batch: those before it have ended (their outcomes are still in the child),
        those behind it have not begun."""
        bench = start(1)
        learn(bench)
        before = [bench.job("note", f"a{n}") for n in range(20)]
        killer = bench.job("perhaps", signal.SIGKILL)
        behind = [bench.job("note", f"b{n}") for n in range(20)]
        keys = bench.submit(*before, killer, *behind)
        bench.settle(*keys)
        assert bench.told.lost == {killer.key: "signal 9 (SIGKILL)"}
        assert {job.key for job in before} <= set(bench.told.finished)
        assert bench.told.returned == [job.key for job in behind]
        assert not [text for _, text in bench.notes() if text.startswith("run b")]

    @pytest.mark.parametrize(
        ("task", "arg", "how"),
        [
            ("kill", signal.SIGUSR2, "signal 12 (SIGUSR2)"),
            ("kill", signal.SIGTERM, "exit status 143"),
            ("exit", 3, "exit status 3"),
        ],
    )
    def test_a_dead_child_is_replaced_in_its_place(
        self, start: Callable[[int], Bench], task: str, arg: int, how: str
    ) -> None:
        bench = start(2)
        pids = bench.pool.pids
        (key,) = bench.submit(bench.job(task, arg))
        bench.settle(key)
        assert bench.told.lost == {key: how}
        bench.ready(2)
        assert len(bench.pool.pids) == 2
        assert len(set(pids) & set(bench.pool.pids)) == 1
        starts = [text for _, text in bench.notes() if text.startswith("start")]
        assert len(starts) == 3
        assert set(starts) == {"start 0", "start 1"}
        bench.settle(*bench.submit(*(bench.job("noop") for _ in range(10))))

    def test_an_idle_child_that_is_killed_is_replaced(self, start: Callable[[int], Bench]) -> None:
        bench = start(1)
        (pid,) = bench.pool.pids
        os.kill(pid, signal.SIGKILL)
        bench.until(lambda: bench.pool.pids and bench.pool.pids != [pid])
        bench.settle(*bench.submit(bench.job("noop")))

    def test_the_loss_of_the_zygote_is_survived(self, start: Callable[[int], Bench]) -> None:
        bench = start(2)
        gate = bench.gate()
        (key,) = bench.submit(bench.job("gate", str(gate)))
        bench.until(lambda: key in bench.told.begun)
        pids = bench.pool.pids
        os.kill(bench.pool._zygote.pid, signal.SIGKILL)
        bench.settle(key)
        assert bench.told.lost == {key: "signal 9 (SIGKILL)"}
        bench.ready(2)
        assert not set(pids) & set(bench.pool.pids)
        bench.settle(*bench.submit(*(bench.job("noop") for _ in range(10))))
        bench.until(lambda: not any(map(_alive, pids)))

    def test_a_child_that_dies_at_start_is_retried_more_and_more_slowly(self, tmp_path: Path) -> None:
        class Stillborn(Scripted):
            def start(self, index: int) -> None:
                super().start(index)
                if len(Path(tmp_path / "diary").read_text().splitlines()) < 4:
                    raise RuntimeError("cannot start")

        bench = Bench(lambda runner: PreforkPool(Stillborn(tmp_path / "diary"), 1), tmp_path)
        began = time.monotonic()
        bench.pool.start()
        bench.ready()
        assert time.monotonic() - began > 0.3  # 0, 0.1, 0.2 s
        bench.settle(*bench.submit(bench.job("noop")))
        bench.close()

    def test_terminate_kills_the_run_it_was_meant_for_and_no_other(self, start: Callable[[int], Bench]) -> None:
        bench = start(1)
        gate = bench.gate()
        running, waiting = bench.submit(bench.job("gate", str(gate)), bench.job("note", "next"))
        bench.until(lambda: running in bench.told.begun)
        bench.pool.terminate(waiting, signal.SIGKILL)
        bench.pool.terminate(running, signal.SIGTERM)
        bench.settle(running, waiting)
        assert bench.told.lost == {running: "exit status 143"}
        assert waiting in bench.told.finished

    def test_terminate_leaves_alone_what_has_ended(self, start: Callable[[int], Bench]) -> None:
        """Hundreds of short jobs, each asked to be terminated at about its end."""
        bench = start(2)
        learn(bench)
        for _ in range(60):
            keys = bench.submit(*(bench.job("noop") for _ in range(10)))
            marked = keys[3]
            bench.pool.terminate(marked, signal.SIGKILL)
            bench.settle(*keys)
            assert set(bench.told.lost) & set(keys) <= {marked}
        assert bench.told.finished

    def test_a_child_that_cannot_be_understood_is_replaced(self, start: Callable[[int], Bench]) -> None:
        """One odd outcome must not stop the main process, and with it all the others."""
        bench = start(1)
        (odd,) = bench.submit(bench.job("give", "unreadable"))
        bench.settle(odd)
        assert set(bench.told.lost) == {odd}
        (after,) = bench.submit(bench.job("noop"))
        bench.settle(after)
        assert after in bench.told.finished

    def test_a_task_may_fork(self, start: Callable[[int], Bench]) -> None:
        bench = start(1)
        (key, after) = bench.submit(bench.job("fork"), bench.job("noop"))
        bench.settle(key, after)
        assert bench.told.finished[key].reason == "7"
        bench.stop()
        assert [text for _, text in bench.notes()].count("stop") == 1


class TestStop:
    def test_it_finishes_what_runs(self, start: Callable[[int], Bench]) -> None:
        bench = start(1)
        gate = bench.gate()
        (key,) = bench.submit(bench.job("gate", str(gate)))
        bench.until(lambda: key in bench.told.begun)
        opener = threading.Timer(0.2, open_gate, (gate,))
        opener.start()
        bench.stop()
        opener.join()
        assert key in bench.told.finished

    def test_at_the_deadline_it_ends_what_still_runs(self, start: Callable[[int], Bench]) -> None:
        bench = start(2)
        gate = bench.gate()
        (key,) = bench.submit(bench.job("gate", str(gate)))
        bench.until(lambda: key in bench.told.begun)
        pids = bench.pool.pids
        bench.stop(0.1)  # nobody opens the gate
        assert bench.told.lost == {key: "exit status 143"}
        assert not any(map(_alive, pids))

    def test_a_hundred_times_leaves_nothing(self, tmp_path: Path) -> None:
        """Also off the main thread, with another pool alive in the same process."""
        other = Bench(lambda runner: PreforkPool(runner, 1), tmp_path)
        other.pool.start()
        errors: list[BaseException] = []

        def embedded() -> None:
            try:
                bench = Bench(lambda runner: PreforkPool(runner, 1), tmp_path)
                for _ in range(100):
                    bench.pool.start()
                    bench.settle(*bench.submit(bench.job("noop")))
                    bench.stop()
                bench.close()
            except BaseException as exc:  # noqa: BLE001
                errors.append(exc)

        traces = Traces()
        thread = threading.Thread(target=embedded)
        thread.start()
        thread.join()
        assert not errors
        assert not traces.new
        other.settle(*other.submit(other.job("noop")))
        other.close()

    def test_children_can_be_added_and_removed(self, start: Callable[[int], Bench]) -> None:
        bench = start(1)
        bench.pool.grow(2)
        bench.ready(3)
        bench.pool.shrink(2)
        bench.until(lambda: len(bench.pool.pids) == 1)
        bench.pool.grow(1)
        bench.ready(2)
        bench.settle(*bench.submit(*(bench.job("noop") for _ in range(10))))


def test_it_says_what_it_is(start: Callable[[int], Bench]) -> None:
    bench = start(2)
    info = bench.pool.info()
    assert info["writes"] == {
        "total": 0, "avg": "0.00", "all": "", "raw": "", "strategy": "fair", "inqueues": {"total": 2, "active": 0},
    }  # fmt: skip
    gate = bench.gate()
    keys = bench.submit(bench.job("gate", str(gate)), bench.job("noop"))
    bench.settle(keys[1])
    bench.settle(*bench.submit(bench.job("noop"), bench.job("noop")))
    info = bench.pool.info()
    assert info.pop("writes") == {
        "total": 4, "avg": "0.50", "all": "0.25, 0.75", "raw": "1, 3", "strategy": "fair",
        "inqueues": {"total": 2, "active": 1},
    }  # fmt: skip
    assert info == {
        "implementation": "celery.concurrency.prefork:PreforkPool", "max-concurrency": 2,
        "max-tasks-per-child": "N/A", "processes": bench.pool.pids, "put-guarded-by-semaphore": False,
    }  # fmt: skip
    open_gate(gate)
    bench.settle(*keys)


MAIN = """
import os, sys, threading, time
from pathlib import Path
from celery.concurrency.prefork import PreforkPool
from tests.contracts.pool import Bench

def main():
    folder = Path(sys.argv[1])
    benches = [Bench(lambda runner: PreforkPool(runner, 2), folder) for _ in range(2)]
    gates = []
    for bench in benches:
        bench.pool.start()
    for n, bench in enumerate(benches):
        bench.ready(2)
        gate = folder / f"main{n}"
        os.mkfifo(gate)
        (key,) = bench.submit(bench.job("gate", str(gate)))
        bench.until(lambda: key in bench.told.begun)
    print(*(pid for bench in benches for pid in (*bench.pool.pids, bench.pool._zygote.pid)), flush=True)
    time.sleep(1000)

if sys.argv[2] == "main":
    main()
else:
    threading.Thread(target=main).start()
"""


@pytest.mark.parametrize("thread", ["main", "other"])
def test_children_die_with_their_parent(tmp_path: Path, thread: str) -> None:
    """Two pools in one process, so that each zygote inherits descriptors of the other's."""
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(tmp_path), thread], stdout=subprocess.PIPE, text=True, env=environ
    )
    with process:
        try:
            pids = [int(pid) for pid in process.stdout.readline().split()]
            assert len(pids) == 6
            assert all(map(_alive, pids))
        finally:
            process.kill()
    deadline = time.monotonic() + DEADLINE
    while alive := [pid for pid in pids if _alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.01)


def test_signals_to_the_whole_group_leave_the_pool_working(start: Callable[[int], Bench]) -> None:
    bench = start(1)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        os.kill(bench.pool._zygote.pid, signum)
    os.kill(bench.pool.pids[0], signal.SIGINT)
    bench.settle(*bench.submit(bench.job("noop")))
    assert not bench.told.lost


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
