"""What pools that keep time limits in their own process do about them."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded
from celery.outcome import Failure, Outcome, Success
from tests.contracts.pool import DEADLINE, Bench, PoolContract, Scripted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.message import Message

import pytest


class Patient(Scripted):
    """Tasks that take their time. Their waits end together with the bench."""

    def __init__(self, diary) -> None:  # type: ignore[no-untyped-def]
        super().__init__(diary)
        self.released = threading.Event()

    def do_wait(self, message: Message) -> None:
        """Wait for longer than anybody has patience, in a way that can be interrupted."""
        end = time.monotonic() + DEADLINE
        while not self.released.is_set() and time.monotonic() < end:
            time.sleep(0.002)

    def do_mind(self, message: Message) -> Outcome:
        """Wait, and come to an end of its own when told of the soft limit."""
        try:
            self.do_wait(message)
        except SoftTimeLimitExceeded as exc:
            return Failure(reason=repr(exc))
        return Success()

    def do_stubborn(self, message: Message) -> Outcome:
        """Wait, whatever is raised."""
        while not self.released.is_set():
            try:
                self.do_wait(message)
            except BaseException:  # noqa: BLE001
                continue
        return Success()

    def do_last(self, message: Message, seconds: float) -> Outcome:
        """Last for some time; says whether it was told of a limit."""
        begin = time.monotonic()
        try:
            while time.monotonic() - begin < seconds:
                time.sleep(0.0005)
        except SoftTimeLimitExceeded:
            return Failure(reason="told")
        return Success(runtime=seconds)


class LimitsContract(PoolContract):
    """Limits that come true wherever a run executes Python code or waits in a way that can be interrupted."""

    starts = 1

    @pytest.fixture
    def bench(self, tmp_path) -> Iterator[Bench]:  # type: ignore[no-untyped-def]
        bench = Bench(self.make, tmp_path, Patient)
        bench.pool.start()
        yield bench
        bench.runner.released.set()
        bench.close()

    def test_a_run_is_told_as_begun_while_it_lasts(self, bench: Bench) -> None:
        (key,) = bench.submit(bench.job("wait"))
        bench.until(lambda: key in bench.told.begun)
        assert key not in bench.told.accounted()
        bench.runner.released.set()
        bench.settle(key)

    def test_the_soft_limit_is_raised_inside_the_task(self, bench: Bench) -> None:
        (key,) = bench.submit(bench.job("mind", soft_limit=0.05))
        bench.settle(key)
        assert bench.told.finished[key].reason == "SoftTimeLimitExceeded()"
        assert bench.told.warned == {key: 0.05}

    @pytest.mark.slow
    def test_a_run_past_its_hard_limit_is_told_once_and_its_place_is_free_again(self, bench: Bench) -> None:
        limited = [bench.job("stubborn", hard_limit=0.05) for _ in range(self.concurrency)]
        keys = bench.submit(*limited)
        bench.settle(*keys)
        assert bench.told.timed_out == dict.fromkeys(keys, 0.05)
        (other,) = bench.submit(bench.job("noop"))
        bench.settle(other)
        assert bench.told.finished.keys() == {other}
        bench.runner.released.set()
        bench.until(lambda: not getattr(bench.pool, "_stuck", None))
        bench.look()
        assert bench.told.finished.keys() == {other}  # what they came to after all changes nothing

    @pytest.mark.slow
    def test_the_soft_limit_comes_before_the_hard_one(self, bench: Bench) -> None:
        (key,) = bench.submit(bench.job("stubborn", soft_limit=0.03, hard_limit=0.1))
        bench.settle(key)
        assert (bench.told.warned, bench.told.timed_out) == ({key: 0.03}, {key: 0.1})

    @pytest.mark.slow
    def test_limits_hit_the_run_that_they_are_for_and_no_other(self, bench: Bench) -> None:
        chance, keys, soft, hard = random.Random(7), [], {}, {}
        for n in range(300):
            limit = chance.uniform(0.004, 0.02)
            options = {"soft_limit": limit} if n % 3 else {"hard_limit": limit}
            job = bench.job("last", limit * chance.uniform(0.3, 1.6), **(options if n % 4 else {}))
            (soft if n % 3 else hard)[job.key] = job
            keys += bench.submit(job)
        bench.settle(*keys)
        told = bench.told
        assert not told.lost
        for key in keys:
            outcome = told.finished.get(key)
            if outcome is None:
                assert hard[key].hard_limit is not None
            elif isinstance(outcome, Failure):
                assert outcome.reason == "told"
                assert soft[key].soft_limit is not None
        assert 0 < len(told.timed_out) < 100
        assert any(isinstance(outcome, Failure) for outcome in told.finished.values())

    @pytest.mark.slow
    def test_what_runs_when_the_pool_stops_has_until_the_deadline(self, bench: Bench) -> None:
        (key,) = bench.submit(bench.job("wait"))
        bench.until(lambda: key in bench.told.begun)
        bench.stop(0.1)  # nothing lets the run go on before
        assert "still running" in bench.told.lost[key]


class TerminateContract(LimitsContract):
    """Runs can be ended from outside (`Killable`) where they execute Python code or wait interruptibly."""

    concurrency = 2

    def test_terminate_ends_the_run_it_was_meant_for_and_no_other(self, bench: Bench) -> None:
        key, other = bench.submit(bench.job("wait"), bench.job("wait"))
        bench.until(lambda: {key, other} <= set(bench.told.begun))
        bench.pool.terminate(key, 15)
        bench.settle(key)
        assert bench.told.lost == {key: "terminated (signal 15)"}
        (third,) = bench.submit(bench.job("noop"))  # its place is free again
        bench.settle(third)
        bench.runner.released.set()
        bench.settle(other)
        assert bench.told.finished.keys() == {third, other}
        bench.until(lambda: not getattr(bench.pool, "_stuck", None))

    def test_terminate_ends_a_run_with_limits(self, bench: Bench) -> None:
        (key,) = bench.submit(bench.job("stubborn", soft_limit=DEADLINE, hard_limit=DEADLINE))
        bench.until(lambda: key in bench.told.begun)
        bench.pool.terminate(key, 9)
        bench.settle(key)
        bench.pool.terminate(key, 9)  # too late: nothing more is told
        bench.runner.released.set()
        bench.until(lambda: not getattr(bench.pool, "_stuck", None))
        bench.look()
        assert bench.told.lost == {key: "terminated (signal 9)"}
        assert not bench.told.finished

    @pytest.mark.slow
    def test_terminate_leaves_alone_what_has_ended(self, bench: Bench) -> None:
        """Short runs, each asked to be ended at about its end: it is told as one or the other, and no other is hit."""
        asked, others = [], []
        for _ in range(200):
            marked, other = bench.submit(bench.job("last", 0.0002), bench.job("noop"))
            bench.pool.terminate(marked, 15)
            bench.settle(marked, other)
            asked.append(marked)
            others.append(other)
        assert set(others) <= bench.told.finished.keys()
        assert bench.told.lost.keys() | bench.told.finished.keys() == {*asked, *others}
        assert not bench.told.lost.keys() & bench.told.finished.keys()
