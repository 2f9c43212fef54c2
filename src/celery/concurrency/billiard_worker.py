"""Adapter. The seam at which others hook into pool processes: `billiard.pool.Worker.workloop` and `_do_exit`.

Real Celery's children are such workers. Libraries that watch programs replace these two methods, to send what they have
gathered before a process ends. Where that has happened, our children go through the replaced methods.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["replaced_worker"]

logger = logging.getLogger(__name__)


def replaced_worker() -> Any:
    """A worker to `run` a loop with, and to `_do_exit` with; None if billiard's methods are as billiard made them."""
    module = sys.modules.get("billiard.pool")
    if module is None:
        return None
    worker = module.Worker
    home = worker.on_loop_start.__code__.co_filename
    methods = (worker.workloop, worker._do_exit)
    if all(getattr(getattr(method, "__code__", None), "co_filename", "") == home for method in methods):
        return None
    return _make(worker)()


class _Over(SystemExit):
    """The loop has ended by itself; that is how the original method ends, too."""


class _Nowhere:
    """Billiard's worker tells its parent what happens; ours has told by its own means."""

    def put(self, _: Any) -> None: ...


def _make(base: Any) -> Any:
    class Worker(base):  # type: ignore[misc]
        """Billiard's worker, whose loop is ours: it starts by asking for a job, and never gets one."""

        outq = _Nowhere()

        def __init__(self) -> None:
            self._loop: Callable[[], None] | None = None

        def run(self, loop: Callable[[], None]) -> None:
            """Run the loop inside `workloop`. What the loop raises comes out of it."""
            self._loop = loop
            try:
                self.workloop(pid=os.getpid())
            except _Over:
                return
            except Exception:
                if self._loop is None:
                    raise
                logger.exception("A replaced billiard.pool.Worker.workloop failed; going on without it")
            if self._loop is not None:  # whoever replaced the method never calls the original
                loop()

        def wait_for_job(self, *_: Any) -> None:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop()
            raise _Over(0)

        def __getattr__(self, name: str) -> Any:
            """Queues, counters and limits of billiard's: there are none."""
            return None

    return Worker
