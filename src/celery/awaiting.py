"""Application. The async twin of `get`: `await result`, `await result.aget(timeout=…)`.

The event loop goes on meanwhile: a thread of a small pool waits in its place. A wait is cut into slices, so that any
number of results can be awaited by the threads that there are, and a cancelled one does not hold its thread for long.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.exceptions import TimeoutError
from celery.result import assert_will_not_block

if TYPE_CHECKING:
    from celery.result import ResultBase

__all__ = ["value_of"]

#: Seconds of one wait in a thread.
_SLICE = 1.0


async def value_of(result: Any, timeout: float | None, propagate: bool, disable_sync_subtasks: bool) -> Any:
    """What `result.get(timeout, propagate)` returns or raises. `result` may be one of several tasks."""
    if disable_sync_subtasks:
        assert_will_not_block()
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _SLICE if deadline is None else deadline - time.monotonic()
        wait = partial(result.get, timeout=max(min(left, _SLICE), 0.0), propagate=propagate)
        try:
            return await loop.run_in_executor(result.app.assembly.waiters, partial(wait, disable_sync_subtasks=False))
        except TimeoutError as exc:
            if (left <= _SLICE and deadline is not None) or _raised(result, exc):
                raise


def _raised(result: ResultBase, exc: BaseException) -> bool:
    """Whether a task itself has raised that, so that nothing is to be waited for."""
    return any(leaf._cache is not None and leaf._cache["result"] is exc for leaf in result._leaves())
