"""The contract suites on a green pool. Run by tests/flow/test_green_pools.py in a process that is patched for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery.concurrency import get_implementation
from tests.contracts.pool_limits import LimitsContract

if TYPE_CHECKING:
    from celery.concurrency.green import GreenPool
    from tests.contracts.pool import Bench, Scripted

LIBRARY = os.environ["GREEN_LIBRARY"]


class TestGreen(LimitsContract):
    concurrency = 2

    def make(self, runner: Scripted) -> GreenPool:
        return get_implementation(LIBRARY)(runner, self.concurrency)  # type: ignore[no-any-return]

    def test_terminate_ends_the_run_it_was_meant_for_and_no_other(self, bench: Bench) -> None:
        key, other = bench.submit(bench.job("wait"), bench.job("wait"))
        bench.until(lambda: {key, other} <= set(bench.told.begun))
        bench.pool.terminate(key, 15)
        bench.settle(key)
        assert bench.told.lost == {key: "terminated (signal 15)"}
        bench.runner.released.set()
        bench.settle(other)
        assert other in bench.told.finished

    def test_it_can_grow_and_shrink(self, bench: Bench) -> None:
        bench.pool.grow(3)
        keys = bench.submit(*(bench.job("wait") for _ in range(6)))
        bench.until(lambda: len(bench.told.begun) == 5)
        bench.pool.shrink(4)
        bench.runner.released.set()
        bench.settle(*keys)
        assert bench.pool.free == 1


class TestGreenAlone(LimitsContract):
    def make(self, runner: Scripted) -> GreenPool:
        return get_implementation(LIBRARY)(runner, 1)  # type: ignore[no-any-return]
