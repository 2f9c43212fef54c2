"""Adapter. The solo pool: runs tasks one at a time in the thread that asks for its report."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from celery.concurrency.tally import warn_of_unsupported
from celery.ports import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import Job, Runner

__all__ = ["SoloPool"]

logger = logging.getLogger(__name__)


class SoloPool:
    """A pool without processes or threads (`[pool.9]`): `report` runs one waiting job and tells how it ended.

    Nothing else of the worker happens in its thread meanwhile. No time limits, no terminate, no resizing.
    """

    def __init__(
        self, runner: Runner, concurrency: int = 1, *, max_tasks: int | None = None, max_memory: int | None = None
    ) -> None:
        """One job runs at a time, whatever the `concurrency`. That and what else has no effect is said by `start`."""
        self._runner = runner
        self._unsupported = {"max_tasks_per_child": max_tasks, "max_memory_per_child": max_memory}
        self._limits_told = False
        self._waiting: deque[Job] = deque()
        self._returned: list[int] = []
        self._lost: list[tuple[int, str]] = []
        self._started = False

    def start(self) -> None:
        """Start the runner as child 0; `worker_process_init` is sent by it, once."""
        if not self._started:
            self._started = True
            warn_of_unsupported("solo", **self._unsupported)
            self._runner.start(0)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._waiting.extend(jobs)
        if not self._limits_told and any(job.soft_limit or job.hard_limit for job in jobs):
            self._limits_told = True
            logger.warning(
                "Time limits have no effect with -P solo: the thread that would keep them runs the tasks. Use "
                "-P prefork or -P threads for them. (Said once.)"
            )

    def report(self) -> Report:
        """Run one waiting job, if any. A `SystemExit` or `KeyboardInterrupt` of its run goes through to the caller;
        the next report then tells the job as lost."""
        returned, self._returned = self._returned, []
        lost, self._lost = self._lost, []
        begun = [key for key, _ in lost]
        if not self._waiting or not self._started or lost:
            return Report(begun=begun, returned=returned, lost=lost)
        job = self._waiting.popleft()
        try:
            outcome = self._runner.run(job.message)
        except BaseException as exc:
            self._returned = returned
            self._lost.append((job.key, f"{type(exc).__name__} in the task"))
            raise
        finally:
            self._runner.flush()
        return Report(begun=(job.key,), finished=((job.key, outcome),), returned=returned)

    def descriptors(self) -> Sequence[int]:
        """None: whatever is submitted is run by the next `report`."""
        return ()

    @property
    def free(self) -> int:
        return 1 - len(self._waiting)

    def take_back(self) -> None:
        self._returned.extend(job.key for job in self._waiting)
        self._waiting.clear()

    def stop(self, deadline: float) -> None:
        """Give back what waits and stop the runner; nothing can be running, whatever the deadline."""
        if self._started:
            self._started = False
            self.take_back()
            self._runner.stop()


def __getattr__(name: str) -> Any:
    """`TaskPool`, the class of Celery's own API (`[pool.3]`), for those who derive from it."""
    if name == "TaskPool":
        from celery.concurrency.classic import SoloTaskPool

        return SoloTaskPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
