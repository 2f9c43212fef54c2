"""One job's way stays short: at most 16 modules and 150 calls from `delay()` to `get()`."""

from __future__ import annotations

from tests.architecture.hops import one_job, table

MODULES = 16
CALLS = 150


def test_one_job_passes_few_modules_and_calls() -> None:
    calls = one_job()
    print(table(calls))
    assert calls.total() > 20, f"that cannot be all:\n{table(calls)}"
    assert len({module for module, _ in calls}) <= MODULES, table(calls)
    assert calls.total() <= CALLS, table(calls)
