"""The pool of threads: the contract, time limits, and what becomes of threads that cannot be interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.concurrency.thread import ThreadPool
from tests.contracts.pool_limits import LimitsContract, TerminateContract

if TYPE_CHECKING:
    from tests.contracts.pool import Scripted


class TestContract(TerminateContract):
    def make(self, runner: Scripted) -> ThreadPool:
        return ThreadPool(runner, self.concurrency)


class TestContractOfOneThread(LimitsContract):
    def make(self, runner: Scripted) -> ThreadPool:
        return ThreadPool(runner)
