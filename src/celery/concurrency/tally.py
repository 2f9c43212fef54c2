"""Adapter. The books of a pool that runs jobs in its own process: what it holds, what runs, what is to be told.

One thread owns the pool and asks for reports; the runs tell their ends from wherever they are. What they tell goes
through one queue of events, and the first ending of a job counts: a run that comes to its end after it was given up
changes nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.concurrency.pacing import Pacing
from celery.ports import Report
from celery.waits import drain, poke

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType, FrameType

    from celery.outcome import Outcome
    from celery.ports import Job

__all__ = ["Bell", "LetGo", "Run", "Tally", "is_inside", "warn_of_unsupported"]

logger = logging.getLogger(__name__)

#: Seconds that a run lasts before it is told as begun: shorter ones are told together with their end.
TELL = 0.005
#: Seconds after which a limit is tried again whose run was not in the task's own code.
AGAIN = 0.01
#: Seconds between two attempts to end a run that was given up.
INSIST = 1.0

_BEGUN, _WARNED, _FINISHED, _LOST, _TIMED_OUT, _RETURNED = range(6)


class LetGo(SystemExit):
    """Raised inside a run that was given up: past its hard limit, terminated, or left over when the pool stops.

    A `SystemExit`, so that no `except Exception` of the task keeps it and nobody takes it for the task's failure.
    """


class Bell:
    """A descriptor that is readable while there is news. `ring` from any thread, `hush` from the pool's owner."""

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        for descriptor in (self.descriptor, self._writer):
            os.set_blocking(descriptor, False)
        self._lock = threading.Lock()
        self._rung = False

    def ring(self) -> None:
        """Make it readable. Does nothing once closed."""
        if self._rung:  # whoever hushes it now has yet to look at what we have to tell
            return
        with self._lock:
            if not self._rung and self._writer >= 0:
                self._rung = True
                poke(self._writer)

    def hush(self) -> None:
        """Make it unreadable; to be called before looking at the news."""
        if self._rung:
            with self._lock:
                drain(self.descriptor)
                self._rung = False

    def close(self) -> None:
        with self._lock:
            reader, writer = self.descriptor, self._writer
            self.descriptor = self._writer = -1
        os.close(reader)
        os.close(writer)


class Run:
    """A job that is being run."""

    __slots__ = ("began", "hard_at", "job", "soft_at", "strand", "told")

    def __init__(self, job: Job, strand: Any) -> None:
        self.job = job
        #: The thread or greenlet that runs it.
        self.strand = strand
        self.told = False
        self.start()

    def start(self) -> None:
        """It begins now."""
        job = self.job
        self.began = began = monotonic()
        #: When its limits are reached; infinity where it has none.
        self.soft_at = inf if job.soft_limit is None else began + job.soft_limit
        self.hard_at = inf if job.hard_limit is None else began + job.hard_limit


class Tally:
    """The books. `take`, `free`, `give_back` and `report` are the owner's; the rest may be called from anywhere."""

    def __init__(self) -> None:
        #: Jobs that nobody has begun, where the pool keeps them here.
        self.waiting: deque[Job] = deque()
        #: By key. Whoever takes a run out says how it ended.
        self.running: dict[int, Run] = {}
        self.pacing = Pacing()
        self._bell: Bell | None = None
        self._events: deque[tuple[int, int, Any]] = deque()
        #: Jobs that have not been told as ended, and those of them that were told as begun.
        self._held: dict[int, Job] = {}
        self._told: set[int] = set()

    def open(self) -> None:
        """Begin to have a descriptor."""
        self._bell = Bell()

    def close(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def descriptors(self) -> Sequence[int]:
        return () if self._bell is None else (self._bell.descriptor,)

    # ------------------------------------------------------------------------------------------------------ the owner's

    def take(self, jobs: Sequence[Job], size: int) -> None:
        """These jobs are held from now on, by a pool that can run `size` at once."""
        pacing, held = self.pacing, self._held
        pacing.demand(self.free(size), len(jobs))
        work = 0.0
        for job in jobs:
            held[job.key] = job
            cost = pacing.cost(job.message)
            if cost is None:
                pacing.single()
            else:
                work += cost
        if work:
            pacing.handed(work / len(jobs))

    def free(self, size: int) -> int:
        """How many more jobs a pool that runs `size` at once has a use for: more than those where all are short."""
        held = len(self._held)
        return max(size - held, self.pacing.room(held, 0.0, 0))

    @property
    def held(self) -> int:
        """Jobs whose end was not told."""
        return len(self._held)

    @property
    def news(self) -> bool:
        """Whether the next report will tell anything."""
        return bool(self._events)

    def give_back(self, jobs: Sequence[Job]) -> None:
        """These have not begun."""
        self._events.extend((_RETURNED, job.key, None) for job in jobs)
        self._ring()

    def report(self) -> Report:
        """What has happened since the last call."""
        if self._bell is not None:
            self._bell.hush()
        begun: list[int] = []
        returned: list[int] = []
        warned: list[tuple[int, float]] = []
        finished: list[tuple[int, Outcome]] = []
        lost: list[tuple[int, str]] = []
        timed_out: list[tuple[int, float]] = []
        endings: dict[int, list[Any]] = {_FINISHED: finished, _LOST: lost, _TIMED_OUT: timed_out}
        events, held, told = self._events, self._held, self._told
        for _ in range(len(events)):
            kind, key, what = events.popleft()
            if key not in held:  # its end was told before
                continue
            if kind == _RETURNED:
                del held[key]
                returned.append(key)
                continue
            if key not in told:
                told.add(key)
                begun.append(key)
            if kind == _WARNED:
                warned.append((key, what))
            elif kind != _BEGUN:
                job = held.pop(key)
                told.discard(key)
                endings[kind].append((key, what))
                if kind == _FINISHED:
                    self.pacing.observe(job.message.task, what.runtime)
        return Report(begun, finished, returned, lost, timed_out, warned)

    # -------------------------------------------------------------------------------------------------------- the runs'

    def begin(self, job: Job, strand: Any) -> Run:
        """`strand` begins to run this job."""
        run = self.running[job.key] = Run(job, strand)
        return run

    def accepted(self, run: Run) -> None:
        """Tell at once that the run has begun."""
        run.told = True
        self._events.append((_BEGUN, run.job.key, None))
        self._ring()

    def finish(self, run: Run, outcome: Outcome) -> bool:
        """The run has come to its end. False: it had been given up, and its strand should go."""
        if self.running.pop(run.job.key, None) is None:
            return False
        self._events.append((_FINISHED, run.job.key, outcome))
        self._ring()
        return True

    def lose(self, run: Run, how: str) -> bool:
        """The run has come to nothing. False: its end was told before."""
        if self.running.pop(run.job.key, None) is None:
            return False
        self._events.append((_LOST, run.job.key, how))
        self._ring()
        return True

    def warned(self, run: Run) -> None:
        """The run is about to be told of its soft limit."""
        self._events.append((_WARNED, run.job.key, run.job.soft_limit))
        self._ring()

    def time_out(self, run: Run) -> bool:
        """The run is past its hard limit. False: its end was told before."""
        if self.running.pop(run.job.key, None) is None:
            return False
        self._events.append((_TIMED_OUT, run.job.key, run.job.hard_limit))
        self._ring()
        return True

    def _ring(self) -> None:
        bell = self._bell
        if bell is not None:
            bell.ring()

    # -------------------------------------------------------------------------------------------------------- the clock

    def look(self, now: float, warn: Callable[[Run], bool], end: Callable[[Run], None]) -> float:
        """Tell of the runs that have lasted a while, and keep their limits; returns when to look again (monotonic).

        `warn` raises `SoftTimeLimitExceeded` inside the run and calls `warned` before. Where the run is not in the
        task's own code it gives false, and is asked again. `end` gives up a run, whose end is told by then.
        """
        again = inf
        for run in list(self.running.values()):
            if not run.told:
                if now - run.began < TELL:
                    again = min(again, run.began + TELL)
                else:
                    self.accepted(run)
            if now >= run.hard_at:
                if self.time_out(run):
                    end(run)
                continue
            if now >= run.soft_at:
                run.soft_at = inf if warn(run) else now + AGAIN
            again = min(again, run.soft_at, run.hard_at)
        return again


def is_inside(frame: FrameType | None, bodies: Mapping[CodeType, bool]) -> bool:
    """Whether this stack runs a task's own code: `bodies` are `Interruptible`'s (none: they are not known, and whatever
    is run counts)."""
    if not bodies:
        return True
    while frame is not None:
        verdict = bodies.get(frame.f_code)
        if verdict is not None:
            return verdict
        frame = frame.f_back
    return False


def warn_of_unsupported(pool: str, **asked: Any) -> None:
    """Say what was asked for and cannot be done by pools of one process (`[pool.6]`, `[pool.10]`)."""
    for option, value in asked.items():
        if value:
            logger.warning(
                "--%s has no effect with -P %s: tasks run in the worker's own process, which is not replaced while it "
                "works. Use -P prefork for it.",
                option.replace("_", "-"),
                pool,
            )
