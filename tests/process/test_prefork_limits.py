"""Time limits of the prefork pool: whatever a task does, its own limit ends it, and no other task's."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from celery.concurrency.prefork import PreforkPool
from celery.exceptions import SoftTimeLimitExceeded
from celery.outcome import Failure, Outcome, Success
from tests.contracts.pool import DEADLINE, Bench, Scripted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.message import Message
    from celery.ports import Job

pytestmark = pytest.mark.process
#: Seconds by which a busy machine may be late with what has a limit.
PATIENCE = 5.0


class Limited(Scripted):
    """Runs tasks that know how to take too long; a soft limit that nobody catches is a failure."""

    @property
    def interruptible(self) -> Any:
        return {Limited._call.__code__: True}

    def run(self, message: Message) -> Outcome:
        args = json.loads(message.body)
        try:
            outcome = self._call(message, args)
        except SoftTimeLimitExceeded:
            return Failure(reason="soft")
        return outcome if outcome is not None else Success(runtime=1e-5)

    def _call(self, message: Message, args: list[Any]) -> Outcome | None:
        return getattr(self, f"do_{message.task}")(message, *args)

    def do_spin(self, message: Message) -> None:
        while True:
            pass

    def do_sleep(self, message: Message, seconds: float) -> None:
        time.sleep(seconds)

    def do_laden(self, message: Message, cargo: str) -> None:
        """Takes long to be read, and waits for ever."""
        time.sleep(1000)

    def do_power(self, message: Message) -> None:
        """One C call that holds the GIL for minutes."""
        pow(3, 10**9)

    def do_family(self, message: Message) -> None:
        """Start a process, which starts one of its own session, and wait for it."""
        code = (
            "import os, subprocess, sys;"
            "child = subprocess.Popen(['sleep', '1000'], start_new_session=True, stdout=subprocess.DEVNULL);"
            "os.write(1, f'{os.getpid()} {child.pid}'.encode()); os.close(1); child.wait()"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        self._note(f"family {process.stdout.read()}")
        process.wait()

    def do_stubborn(self, message: Message) -> Outcome:
        """Catch the soft limit as often as it comes."""
        caught = 0
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            try:
                while time.monotonic() < end:
                    time.sleep(0.01)
            except SoftTimeLimitExceeded:
                caught += 1
        return Failure(reason=str(caught))

    def do_finalizer(self, message: Message) -> None:
        """The limit passes in a finalizer, which swallows exceptions; then it waits for ever."""

        class Slow:
            def __del__(self) -> None:
                time.sleep(0.2)

        Slow()
        time.sleep(1000)

    def do_timed(self, message: Message, name: str, seconds: float, catch: bool) -> Outcome:
        """Take about so long; say how long it took, and when the soft limit came, if it did."""
        self._note(f"run {name}")
        began = time.monotonic()
        told = None
        try:
            while (left := began + seconds - time.monotonic()) > 0:
                time.sleep(min(left, 0.001))
        except SoftTimeLimitExceeded:
            if not catch:
                raise
            told = time.monotonic() - began
        took = time.monotonic() - began
        return Failure(reason=json.dumps([took, told]), runtime=1e-4)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches = []

    def start(concurrency: int, **options: Any) -> Bench:
        bench = Bench(lambda _: PreforkPool(Limited(tmp_path / "diary"), concurrency, **options), tmp_path)
        benches.append(bench)
        bench.pool.start()
        bench.ready(concurrency)
        return bench

    yield start
    for bench in benches:
        bench.close()


def limited(job: Job, soft: float | None = None, hard: float | None = None) -> Job:
    job.soft_limit, job.hard_limit = soft, hard
    return job


class TestHardLimits:
    @pytest.mark.parametrize(("task", "args"), [("spin", ()), ("sleep", (1e6,)), ("power", ())])
    def test_whatever_a_task_does_it_is_ended(
        self, start: Callable[..., Bench], task: str, args: tuple[Any, ...]
    ) -> None:
        bench = start(1)
        began = time.monotonic()
        (key,) = bench.submit(limited(bench.job(task, *args), hard=0.5))
        bench.settle(key)
        assert time.monotonic() - began >= 0.5
        assert bench.told.timed_out == {key: 0.5}
        assert not bench.told.lost
        bench.ready()
        bench.settle(*bench.submit(bench.job("noop")))

    def test_what_it_has_started_is_ended_with_it(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        (key,) = bench.submit(limited(bench.job("family"), hard=1.0))
        bench.settle(key)
        assert bench.told.timed_out == {key: 1.0}
        ((child, text),) = [note for note in bench.notes() if note[1].startswith("family")]
        wait_until_gone(child, *map(int, text.split()[1:]))

    def test_so_is_what_a_terminated_task_has_started(self, start: Callable[..., Bench]) -> None:
        """Killed, it cannot do that itself."""
        bench = start(1)
        (key,) = bench.submit(bench.job("family"))
        bench.until(lambda: any(text.startswith("family") for _, text in bench.notes()))
        bench.pool.terminate(key, signal.SIGKILL)
        bench.settle(key)
        assert bench.told.lost == {key: "signal 9 (SIGKILL)"}
        ((child, text),) = [note for note in bench.notes() if note[1].startswith("family")]
        wait_until_gone(child, *map(int, text.split()[1:]))

    def test_it_holds_while_the_main_process_is_busy_elsewhere(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        (pid,) = bench.pool.pids
        bench.submit(limited(bench.job("spin"), hard=0.2))
        wait_until_gone(pid)

    def test_what_waits_behind_it_comes_back_unharmed(self, start: Callable[..., Bench]) -> None:
        """All are known as short, so they travel together; the third takes longer than it may."""
        bench = start(1)
        learn(bench)
        jobs = [limited(bench.job("sleep", 1000 if n == 2 else 0), hard=0.3) for n in range(20)]
        keys = bench.submit(*jobs)
        bench.settle(*keys)
        assert bench.told.timed_out == {keys[2]: 0.3}
        assert bench.told.returned == keys[3:]
        assert set(keys[:2]) <= set(bench.told.finished)

    def test_of_several_limits_each_job_has_its_own(self, start: Callable[..., Bench]) -> None:
        bench = start(3)
        limits = (0.6, 0.2, None)
        keys = bench.submit(*(limited(bench.job("sleep", 1.0), hard=limit) for limit in limits))
        bench.settle(keys[1])
        bench.settle(*keys)
        assert bench.told.timed_out == {keys[0]: 0.6, keys[1]: 0.2}
        assert set(bench.told.finished) == {keys[2]}

    def test_a_later_job_with_a_shorter_limit_is_seen_in_time(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        bench.settle(*bench.submit(limited(bench.job("noop"), hard=1000)))
        (key,) = bench.submit(limited(bench.job("spin"), hard=0.1))
        bench.settle(key)
        assert bench.told.timed_out == {key: 0.1}


class TestSoftLimits:
    @pytest.mark.parametrize(("task", "args"), [("spin", ()), ("sleep", (1000,)), ("finalizer", ())])
    def test_it_is_raised_in_the_task(self, start: Callable[..., Bench], task: str, args: tuple[Any, ...]) -> None:
        bench = start(1)
        pids = bench.pool.pids
        (key,) = bench.submit(limited(bench.job(task, *args), soft=0.1, hard=10))
        began = time.monotonic()
        bench.settle(key)
        assert time.monotonic() - began >= 0.1
        assert bench.told.finished[key] == Failure(reason="soft")
        assert bench.told.warned == {key: 0.1}
        assert bench.pool.pids == pids

    def test_it_holds_for_a_message_that_takes_long_to_read(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        keys = bench.submit(*(limited(bench.job("laden", "x" * (1 << 24)), soft=0.2, hard=10) for _ in range(2)))
        bench.settle(*keys)
        assert [bench.told.finished.get(key) for key in keys] == [Failure(reason="soft")] * 2

    def test_it_is_raised_once(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        (key,) = bench.submit(limited(bench.job("stubborn"), soft=0.1))
        bench.settle(key)
        assert bench.told.finished[key].reason == "1"

    def test_a_task_that_catches_it_is_still_ended_by_the_hard_limit(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        (key,) = bench.submit(limited(bench.job("stubborn"), soft=0.1, hard=0.3))
        bench.settle(key)
        assert bench.told.timed_out == {key: 0.3}

    def test_it_holds_while_the_worker_shuts_down(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        (key,) = bench.submit(limited(bench.job("sleep", 1000), soft=0.3))
        bench.until(lambda: key in bench.told.begun)
        bench.stop(10)
        assert bench.told.finished[key] == Failure(reason="soft")

    def test_the_signal_from_elsewhere_changes_nothing(self, start: Callable[..., Bench]) -> None:
        bench = start(1)
        pids = bench.pool.pids
        os.kill(pids[0], signal.SIGUSR1)
        (key,) = bench.submit(limited(bench.job("sleep", 0.3), soft=10))
        bench.until(lambda: key in bench.told.begun)
        os.kill(pids[0], signal.SIGUSR1)
        bench.settle(key)
        assert bench.told.finished[key] == Success(runtime=1e-5)
        assert bench.pool.pids == pids


@pytest.mark.parametrize("seed", range(4))
def test_no_job_is_hit_in_the_place_of_another(start: Callable[..., Bench], seed: int) -> None:
    """Hundreds of jobs that end about when their limits pass, in batches with others that have none."""
    random_ = random.Random(seed)
    bench = start(3)
    learn(bench)
    jobs: dict[int, Job] = {}
    while len(jobs) < 400:
        batch = []
        for _ in range(max(1, min(bench.pool.free, 40))):
            soft = hard = None
            seconds = random_.choice([0.0, 0.0, 0.001])
            if random_.random() < 0.3:
                limit = random_.uniform(0.001, 0.02)
                soft, hard = random_.choice([(limit, None), (None, limit), (limit, limit * 1.2), (limit, limit + 1)])
                seconds = random_.choice([0.5 * limit, 0.9 * limit, limit, 1.1 * limit, limit + 1])
            catch = random_.random() < 0.5
            job = limited(bench.job("timed", str(len(jobs)), seconds, catch), soft, hard)
            jobs[job.key] = job
            batch.append(job)
        held = len(jobs) - len(bench.told.accounted() & set(jobs))
        bench.submit(*batch)
        bench.until(lambda held=held: len(jobs) - len(bench.told.accounted() & set(jobs)) <= held)
    bench.settle(*jobs)

    told = bench.told
    assert not told.lost
    runs = Counter(text for _, text in bench.notes() if text.startswith("run"))
    assert max(runs.values()) == 1
    for n, (key, job) in enumerate(jobs.items()):
        if key in told.returned:
            assert f"run {n}" not in runs
        elif job.soft_limit is None and job.hard_limit is None:  # else it may be over before its first line
            assert f"run {n}" in runs
        if key in told.timed_out:
            assert told.timed_out[key] == job.hard_limit
        if key in told.finished:
            check_finished(told.finished[key].reason, job)
    assert told.timed_out
    assert set(told.warned) <= {key for key, job in jobs.items() if job.soft_limit is not None}


def check_finished(reason: str, job: Job) -> None:
    """A job that ended by itself, or by its soft limit: as its own time says."""
    if reason == "soft":  # of one that catches it too, if it comes before the `try`
        assert job.soft_limit is not None
        return
    took, told = json.loads(reason)
    if told is not None:
        assert job.soft_limit is not None
        assert told > job.soft_limit - 0.02  # the limit counts from before the message is decoded
    elif job.soft_limit is not None:
        assert took < job.soft_limit + PATIENCE
    if job.hard_limit is not None:
        assert took < job.hard_limit + PATIENCE


def learn(bench: Bench) -> None:
    """Let the pool see that these are short, until it asks for batches."""
    for task, args in (("sleep", (0,)), ("timed", ("-", 0, True)), ("noop", ())):
        bench.settle(*bench.submit(*(bench.job(task, *args) for _ in range(64))))
    while bench.pool.free < 100:
        bench.settle(*bench.submit(*(bench.job("noop") for _ in range(bench.pool.free))))
    bench.diary.write_text("")


def wait_until_gone(*pids: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
