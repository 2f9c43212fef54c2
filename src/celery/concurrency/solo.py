"""Adapter. The solo pool: runs tasks one at a time in the thread that asks for its report."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from celery.ports import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import Job, Runner

__all__ = ["SoloPool"]


class SoloPool:
    """A pool without processes or threads (`[pool.9]`): `report` runs one waiting job and tells how it ended.

    Nothing else of the worker happens in its thread meanwhile. No time limits, no terminate, no resizing.
    """

    def __init__(self, runner: Runner, concurrency: int = 1) -> None:
        """`concurrency` is taken for the sake of the other pools' signature; one job runs at a time."""
        self._runner = runner
        self._waiting: deque[Job] = deque()
        self._returned: list[int] = []
        self._lost: list[tuple[int, str]] = []
        self._started = False

    def start(self) -> None:
        """Start the runner as child 0; `worker_process_init` is sent by it, once."""
        if not self._started:
            self._started = True
            self._runner.start(0)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._waiting.extend(jobs)

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
