"""Adapter. A pool of greenlets: what gevent's and eventlet's have in common.

Everything happens in one thread, that of the pool's owner: its hub runs the greenlets while the owner waits. That needs
the standard library to be patched (`celery -P gevent` does so before anything else is imported): unpatched, the owner's
own waits would stop all greenlets, so the pool then has no descriptors and lends the hub its time in `report`.
"""

from __future__ import annotations

import logging
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.concurrency.tally import TELL, LetGo, Run, Tally, is_inside, warn_of_unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType

    from celery.ports import Job, Report, Runner

__all__ = ["GreenPool"]

logger = logging.getLogger(__name__)

#: Seconds that `report` lends to the hub where nothing is patched, and looks when it waits for the last runs.
_LEND = 0.01


class GreenPool:
    """A greenlet for each job, at most `concurrency` at once.

    Time limits, soft and hard, come true where a run waits (`[pool.11]`): a task that computes without waiting holds
    up everything, as it does anything else that is green. Terminate likewise (`[pool.12]`).
    """

    #: As `-P` names it.
    name = ""

    def __init__(
        self, runner: Runner, concurrency: int = 1, *, max_tasks: int | None = None, max_memory: int | None = None
    ) -> None:
        """`max_tasks` and `max_memory` can do nothing here; `start` says so."""
        self._runner = runner
        self._size = concurrency
        self._unsupported = {"max_tasks_per_child": max_tasks, "max_memory_per_child": max_memory}
        self._tally = Tally()
        self._started = False
        self._patched = False
        #: When the clock is looked at next (monotonic).
        self._look_at = inf
        self._bodies: Mapping[CodeType, bool] = {}

    # --------------------------------------------------------------------------------------------- what differs

    def _is_patched(self) -> bool:
        """Whether the standard library waits in this library's hub."""
        raise NotImplementedError

    def _spawn(self, run: Run) -> Any:
        """Run `_live(run)` in a greenlet of its own, soon; returns it."""
        raise NotImplementedError

    def _later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call this in the hub after so many seconds."""
        raise NotImplementedError

    def _sleep(self, seconds: float) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------- lifetime

    def start(self) -> None:
        """Start the runner, once for the whole process. Greenlets are made as jobs come."""
        if self._started:
            return
        warn_of_unsupported(self.name, **self._unsupported)
        self._patched = self._is_patched()
        if not self._patched:
            logger.warning(
                "The standard library is not patched for %s: whatever a task waits for holds up all the others. Name "
                "the pool on the command line (celery worker -P %s): there it is seen before anything is imported.",
                self.name,
                self.name,
            )
        self._tally.open()
        self._runner.start(0)
        self._bodies = getattr(self._runner, "interruptible", {})
        self._started = True

    def stop(self, deadline: float) -> None:
        """See `Pool.stop`."""
        if not self._started:
            return
        self.take_back()
        self._started = False
        running = self._tally.running
        while running and (left := deadline - monotonic()) > 0:
            self._sleep(min(left, _LEND))
        for run in list(running.values()):
            self._give_up(run, f"still running when the {self.name} pool stopped.")
        self._sleep(0)
        self._runner.stop()
        self._tally.close()

    # ------------------------------------------------------------------------------------------------- the port

    def submit(self, jobs: Sequence[Job]) -> None:
        self._tally.take(jobs, self._size)
        self._tally.waiting.extend(jobs)
        self._feed()

    def report(self) -> Report:
        """What happened since the last call. Unpatched, greenlets run here, for some milliseconds."""
        if not self._patched and self._tally.running:
            self._sleep(_LEND if not self._tally.news else 0)
        report = self._tally.report()
        if report.finished:
            self._runner.flush()
        return report

    def descriptors(self) -> Sequence[int]:
        return self._tally.descriptors() if self._patched else ()

    @property
    def free(self) -> int:
        return self._tally.free(self._size)

    @property
    def idle(self) -> int:
        """See `ports.Seated`."""
        return self._size - self._tally.held

    def take_back(self) -> None:
        jobs = list(self._tally.waiting)
        self._tally.waiting.clear()
        self._tally.give_back(jobs)

    def terminate(self, key: int, signal: int) -> None:
        """Raise inside the run of this job, which ends it where it waits (`[pool.12]`); it is reported as lost."""
        run = self._tally.running.get(key)
        if run is not None:
            self._give_up(run, f"terminated (signal {int(signal)})")
            self._feed()

    @property
    def size(self) -> int:
        """See `ports.Resizable`."""
        return self._size

    def grow(self, n: int) -> None:
        """Run `n` more at once (`[pool.13]`)."""
        self._size += n
        self._feed()

    def shrink(self, n: int) -> None:
        """Run `n` fewer at once, from when those that run have ended."""
        if n >= self._size:
            raise ValueError(f"expected to keep at least 1 of {self._size} greenlets, got {n} to remove")
        self._size -= n

    def info(self) -> dict[str, Any]:
        """What the pool says of itself (`[pool.14]`)."""
        running = len(self._tally.running)
        return {
            "implementation": f"celery.concurrency.{self.name}:TaskPool",
            "max-concurrency": self._size,
            "running-threads": running,
            "free-threads": self._size - running,
        }

    # --------------------------------------------------------------------------------------------- the greenlets

    def _feed(self) -> None:
        waiting, running = self._tally.waiting, self._tally.running
        while waiting and len(running) < self._size:
            run = self._tally.begin(waiting.popleft(), None)
            run.strand = self._spawn(run)
        if running:
            self._look_again(monotonic() + TELL)

    def _live(self, run: Run) -> None:
        """What a greenlet does."""
        run.start()
        try:
            outcome = self._runner.run(run.job.message)
        except BaseException as exc:  # noqa: BLE001 - what goes through would end the whole program
            self._tally.lose(run, f"{type(exc).__name__} in the task")
        else:
            self._tally.finish(run, outcome)
        if self._started:
            self._feed()

    # ------------------------------------------------------------------------------------------------- the clock

    def _look_again(self, moment: float) -> None:
        if moment < self._look_at:
            self._look_at = moment
            self._later(max(0.0, moment - monotonic()), partial(self._tick, moment))

    def _tick(self, moment: float) -> None:
        """Called in the hub, where nothing may wait. Those that an earlier look has made superfluous do nothing."""
        if moment == self._look_at:
            self._look_at = inf
            self._look_again(self._tally.look(monotonic(), self._warn, self._end))

    def _warn(self, run: Run) -> bool:
        return self._throw(run, exceptions.SoftTimeLimitExceeded, partial(self._tally.warned, run))

    def _end(self, run: Run) -> None:
        self._throw(run, LetGo)
        self._feed()

    def _give_up(self, run: Run, how: str) -> None:
        """End a run, in the hub: a greenlet that is thrown into returns to whoever threw."""
        if self._tally.lose(run, how):
            self._later(0.0, partial(self._throw, run, LetGo))

    def _throw(self, run: Run, exc: type[BaseException], tell: Callable[[], object] = bool) -> bool:
        """Raise this inside the run, having called `tell`. False: it is not in the task's own code."""
        frame = run.strand.gr_frame
        if frame is None or not is_inside(frame, self._bodies):
            return False
        tell()
        run.strand.throw(exc)
        return True
