"""Adapter. The pool of threads: runs tasks at the same time in the worker's own process.

What it can do about a run that lasts too long: raise an exception in its thread, which comes as soon as that thread
runs Python code again, and kill the processes that the thread has started. What waits inside the C library (a sleep,
a socket without a time-out) cannot be interrupted: past its hard limit the run is told as timed out, its thread is
given up and replaced. A C call that holds the interpreter's lock stops this whole process, limits included.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.concurrency.tally import INSIST, TELL, LetGo, Run, Tally, is_inside, warn_of_unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType

    from celery.outcome import Outcome
    from celery.ports import Job, Report, Runner

__all__ = ["ThreadPool"]

logger = logging.getLogger(__name__)

#: Seconds that threads have to unwind when they are interrupted at the end.
_GRACE = 0.2


class ThreadPool:
    """A pool of threads (`[pool.10]`). Each takes the next job as soon as it is free: nothing waits behind a slow one.

    Time limits (`[pool.11]`): see the module. No recycling.
    """

    def __init__(
        self, runner: Runner, concurrency: int = 1, *, max_tasks: int | None = None, max_memory: int | None = None
    ) -> None:
        """`max_tasks` and `max_memory` can do nothing here; `start` says so."""
        self._runner = runner
        self._size = concurrency
        self._unsupported = {"max_tasks_per_child": max_tasks, "max_memory_per_child": max_memory}
        self._tally = Tally()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: set[_Strand] = set()
        self._watch: _Watch | None = None
        #: Held while the watch adds a thread in place of another.
        self._adding = threading.Lock()
        #: Threads that were given up and have not ended.
        self._stuck: set[_Strand] = set()

    # ------------------------------------------------------------------------------------------------------ lifetime

    def start(self) -> None:
        """Start the runner, once for the whole process, and the threads."""
        if self._watch is not None:
            return
        warn_of_unsupported("threads", **self._unsupported)
        self._tally.open()
        self._queue = SimpleQueue()
        self._runner.start(0)
        self._watch = _Watch(self._tally, self._stuck, self._replace, getattr(self._runner, "interruptible", {}))
        self._watch.start()
        for _ in range(self._size):
            self._add(self._watch)

    def stop(self, deadline: float) -> None:
        """See `Pool.stop`. What then still runs is told as lost; its thread goes when it can, and with the process."""
        with self._adding:
            watch, self._watch = self._watch, None
        if watch is None:
            return
        self.take_back()
        for _ in list(self._threads):
            self._queue.put(None)
        _join(self._threads, deadline)
        watch.close()
        for run in list(self._tally.running.values()):
            if self._tally.lose(run, "still running when the pool of threads stopped."):
                run.strand.interrupt(LetGo, getattr(self._runner, "interruptible", {}))
        _join(self._threads, monotonic() + _GRACE)
        self._threads.clear()
        self._stuck.clear()
        self._runner.stop()
        self._tally.close()

    def _add(self, watch: _Watch) -> None:
        strand = _Strand(self._tally, self._queue, self._runner, watch, self._stuck)
        self._threads.add(strand)
        strand.start()

    def _replace(self, strand: _Strand, why: str = "ran past its hard time limit") -> None:
        """This thread was given up."""
        with self._adding:
            self._stuck.add(strand)
            self._threads.discard(strand)
            if self._watch is not None:  # else the pool stops
                self._add(self._watch)
        logger.error(
            "A thread of the pool was given up: its task %s. Threads that were given up and have not ended: %d",
            why,
            len(self._stuck),
        )

    # ------------------------------------------------------------------------------------------------------- the port

    def submit(self, jobs: Sequence[Job]) -> None:
        self._tally.take(jobs, self._size)
        put = self._queue.put
        for job in jobs:
            put(job)

    def report(self) -> Report:
        report = self._tally.report()
        if report.finished:
            self._runner.flush()
        return report

    def descriptors(self) -> Sequence[int]:
        return self._tally.descriptors()

    @property
    def free(self) -> int:
        return self._tally.free(self._size)

    @property
    def idle(self) -> int:
        """See `ports.Seated`."""
        return self._size - self._tally.held

    def take_back(self) -> None:
        jobs: list[Job] = []
        with contextlib.suppress(Empty):
            while True:
                job = self._queue.get_nowait()
                if job is not None:
                    jobs.append(job)
        self._tally.give_back(jobs)

    def terminate(self, key: int, signal: int) -> None:
        """See `Killable`. The thread of the run ends when it next runs Python code; another takes its place now."""
        run = self._tally.running.get(key)
        if run is None or not self._tally.lose(run, f"terminated (signal {int(signal)})"):
            return
        strand: _Strand = run.strand
        strand.given_up = True
        self._replace(strand, "was terminated")
        if run.job.hard_limit is not None:  # else nobody has looked at what it had started before this run
            _kill(_children(strand.native_id) - strand.earlier)
        strand.interrupt(LetGo, getattr(self._runner, "interruptible", {}))

    @property
    def size(self) -> int:
        """See `ports.Resizable`."""
        return self._size

    def grow(self, n: int) -> None:
        """Add `n` threads (`[pool.13]`)."""
        with self._adding:
            self._size += n
            self._threads -= {strand for strand in self._threads if not strand.is_alive()}  # gone since by `shrink`
            if self._watch is not None:
                for _ in range(n):
                    self._add(self._watch)

    def shrink(self, n: int) -> None:
        """Have `n` threads fewer: those that are free first, each after what it runs."""
        if n >= self._size:
            raise ValueError(f"expected to keep at least 1 of {self._size} threads, got {n} to remove")
        self._size -= n
        for _ in range(n):
            self._queue.put(None)

    @property
    def exhausted(self) -> bool:
        """See `ports.Exhaustible`: as many threads were given up, and still occupy the process, as the pool has."""
        return len(self._stuck) >= self._size

    def info(self) -> dict[str, Any]:
        """What the pool says of itself (`[pool.14]`)."""
        return {
            "implementation": "celery.concurrency.thread:TaskPool",
            "max-concurrency": self._size,
            "threads": sum(strand.is_alive() for strand in list(self._threads)),
            "given-up": len(self._stuck),
        }


class _Strand(threading.Thread):
    """A thread that runs jobs. A daemon: one that was given up must not keep the process from ending."""

    def __init__(
        self, tally: Tally, queue: SimpleQueue[Job | None], runner: Runner, watch: _Watch, stuck: set[_Strand]
    ) -> None:
        super().__init__(name="ThreadPool", daemon=True)
        self._tally = tally
        self._queue = queue
        self._runner = runner
        self._watch = watch
        self._stuck = stuck
        #: Held while an exception is raised in this thread from outside, and to say that none may be any more.
        self.interrupting = threading.Lock()
        #: An exception may be raised in this thread.
        self.open = False
        #: Its run was told as terminated. It begins no other, so that it may be interrupted whatever it does.
        self.given_up = False
        #: Processes that this thread had started before its present run, where that has a hard limit.
        self.earlier: set[int] = set()

    def run(self) -> None:
        get, begin, kick = self._queue.get, self._tally.begin, self._watch.kick
        try:
            while (job := get()) is not None:
                if job.soft_limit is None and job.hard_limit is None:
                    run = begin(job, self)
                    kick()
                    goes_on = self._tell(run, *self._run(job))
                else:
                    goes_on = self._run_limited(job)
                if not goes_on:
                    return
        finally:
            try:
                self._shut()
            finally:  # what was raised on the way into it was the last
                self._shut()
                self._stuck.discard(self)

    def _run(self, job: Job) -> tuple[Outcome | None, str]:
        try:
            return self._runner.run(job.message), ""
        except BaseException as exc:  # noqa: BLE001 - a thread that dies of it would take the job with it
            return None, f"{type(exc).__name__} in the task"

    def _tell(self, run: Run, outcome: Outcome | None, how: str) -> bool:
        """Tell how a run ended. False: it had been given up, and so was this thread."""
        return self._tally.lose(run, how) if outcome is None else self._tally.finish(run, outcome)

    def _run_limited(self, job: Job) -> bool:
        if job.hard_limit is not None:
            self.earlier = _children(self.native_id)
        run = self._tally.begin(job, self)
        outcome, how = None, "its time limit"
        try:
            self.open = True
            self._watch.kick()
            outcome, how = self._run(job)
        except (LetGo, exceptions.SoftTimeLimitExceeded):  # it came between two lines of ours
            pass
        self._shut()
        return self._tell(run, outcome, how)

    def _shut(self) -> None:
        """From here on nothing is raised in this thread, and what was not raised yet never will be."""
        while self.open or self.given_up:
            try:
                with self.interrupting:
                    _raise_in(self, None)
                    self.open = self.given_up = False
            except (LetGo, exceptions.SoftTimeLimitExceeded):
                pass

    def interrupt(
        self, exc: type[BaseException], bodies: Mapping[CodeType, bool], tell: Callable[[], object] = bool
    ) -> bool:
        """Raise this inside the present run, having called `tell`. False: it is not in the task's own code."""
        with self.interrupting:
            frame = sys._current_frames().get(self.ident or 0) if self.open or self.given_up else None
            if frame is None or not is_inside(frame, bodies):
                return False
            tell()
            _raise_in(self, exc)
            return True


class _Watch(threading.Thread):
    """Tells which jobs have begun, and keeps the time limits. Sleeps while nothing new runs and no limit is near."""

    def __init__(self, tally: Tally, stuck: set[_Strand], replace: Any, bodies: Mapping[CodeType, bool]) -> None:
        super().__init__(name="ThreadPool-watch", daemon=True)
        self._tally = tally
        self._stuck = stuck
        self._replace = replace
        self._bodies = bodies
        self._kicked = threading.Event()
        self._over = threading.Event()

    def kick(self) -> None:
        """A run begins."""
        if not self._kicked.is_set():
            self._kicked.set()

    def close(self) -> None:
        self._over.set()
        self._kicked.set()
        if threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        again = inf
        while True:
            self._kicked.wait(None if again == inf else max(0.0, again - monotonic()))
            if self._kicked.is_set():
                self._over.wait(TELL)
                self._kicked.clear()
            if self._over.is_set():
                return
            again = self._tally.look(monotonic(), self._warn, self._end)
            if self._stuck:
                again = min(again, monotonic() + INSIST)
                for strand in list(self._stuck):
                    strand.interrupt(LetGo, self._bodies)

    def _warn(self, run: Run) -> bool:
        strand: _Strand = run.strand
        if run.job.key not in self._tally.running:
            return False
        return strand.interrupt(exceptions.SoftTimeLimitExceeded, self._bodies, partial(self._tally.warned, run))

    def _end(self, run: Run) -> None:
        strand: _Strand = run.strand
        self._replace(strand)
        _kill(_children(strand.native_id) - strand.earlier)
        strand.interrupt(LetGo, self._bodies)


def _raise_in(strand: threading.Thread, exc: type[BaseException] | None) -> None:
    """Raise this in a thread, when it next runs Python code; None: take back what was not raised yet."""
    if strand.ident is not None:
        thing = None if exc is None else ctypes.py_object(exc)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(strand.ident), thing)


def _join(threads: set[_Strand], deadline: float) -> None:
    for thread in list(threads):
        thread.join(max(0.0, deadline - monotonic()))


def _children(thread: int | None, process: int | str = "self") -> set[int]:
    """Processes that this thread has started and that are not reaped; none where the system does not tell."""
    try:
        with open(f"/proc/{process}/task/{thread}/children") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def _kill(pids: set[int]) -> None:
    """Kill these processes and all that they have started."""
    for pid in pids:
        found: set[int] = set()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                found |= _children(int(task), pid)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        _kill(found)


def __getattr__(name: str) -> Any:
    """`TaskPool`, the class of Celery's own API (`[pool.3]`), for those who derive from it."""
    if name == "TaskPool":
        from celery.concurrency.classic import ThreadTaskPool

        return ThreadTaskPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
