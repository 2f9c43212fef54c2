"""The contract suites on a green pool. Run by tests/flow/test_green_pools.py in a process that is patched for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery.concurrency import get_implementation
from tests.contracts.pool_limits import LimitsContract, TerminateContract

if TYPE_CHECKING:
    from celery.concurrency.green import GreenPool
    from tests.contracts.pool import Bench, Scripted

LIBRARY = os.environ["GREEN_LIBRARY"]


class TestGreen(TerminateContract):
    def make(self, runner: Scripted) -> GreenPool:
        return get_implementation(LIBRARY)(runner, self.concurrency)  # type: ignore[no-any-return]

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
