"""The solo pool."""

from __future__ import annotations

import pytest

from celery.concurrency.solo import SoloPool
from tests.contracts.pool import Bench, PoolContract, Scripted


class TestSolo(PoolContract):
    def make(self, runner: Scripted) -> SoloPool:
        return SoloPool(runner)

    def test_one_job_is_run_by_each_report(self, bench: Bench) -> None:
        keys = bench.submit(bench.job("noop"), bench.job("noop"))
        assert bench.pool.free == -1
        bench.look()
        assert list(bench.told.finished) == keys[:1]
        bench.look()
        assert list(bench.told.finished) == keys
        assert not bench.pool.descriptors()

    def test_a_task_that_exits_ends_the_report_and_is_told_as_lost(self, bench: Bench) -> None:
        (key, other) = bench.submit(bench.job("exit", 3), bench.job("noop"))
        with pytest.raises(SystemExit):
            bench.look()
        bench.look()
        assert bench.told.lost == {key: "SystemExit in the task"}
        bench.settle(other)
