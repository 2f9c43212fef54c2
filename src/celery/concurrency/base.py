"""Compatibility. `BasePool`, the class that custom pools are made of (`[pool.3]`), and the bridge that lets them run.

A custom pool is a class with `on_start`, `on_stop`, `on_apply` … that runs whatever function it is given. The bridge
gives it our runner, as Celery gives it its tracer, and hears by its callbacks what becomes of each run.
"""

from __future__ import annotations

import os
import socket
import sys
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.concurrency.tally import Run, Tally
from celery.exceptions import WorkerLostError, reraise
from celery.message import Message
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery.outcome import Outcome
    from celery.ports import Job, Report, Runner

__all__ = ("BasePool", "apply_target")


def apply_target(
    target: Callable[..., Any],
    args: Iterable[Any] = (),
    kwargs: dict[str, Any] | None = None,
    callback: Callable[..., Any] | None = None,
    accept_callback: Callable[..., Any] | None = None,
    pid: int | None = None,
    getpid: Callable[[], int] = os.getpid,
    propagate: tuple[type[BaseException], ...] = (),
    monotonic: Callable[[], float] = monotonic,
    **_: Any,
) -> None:
    """Call the target here and now: `accept_callback(pid, monotonic())` before, `callback(returned)` after.

    An `Exception` goes through. What would end the process comes to the callback as the ExceptionInfo of a
    `WorkerLostError`, unless it is among `propagate`.
    """
    if accept_callback is not None:
        accept_callback(pid or getpid(), monotonic())
    try:
        returned = target(*args, **kwargs or {})
    except propagate:
        raise
    except Exception:
        raise
    except BaseException as exc:  # noqa: BLE001
        from billiard.einfo import ExceptionInfo

        try:
            reraise(WorkerLostError, WorkerLostError(repr(exc)), sys.exc_info()[2])
        except WorkerLostError:
            returned = ExceptionInfo()
    if callback is not None:
        callback(returned)


class BasePool:
    """What a custom pool derives from. `on_apply` must be given; the other hooks do nothing unless they are."""

    RUN, CLOSE, TERMINATE = 1, 2, 3

    #: Signal handlers may use the pool.
    signal_safe = True
    #: It runs greenlets.
    is_green = False
    #: Tasks that wait for others may make all of them stop.
    task_join_will_block = True
    uses_semaphore = False
    body_can_be_buffer = False

    _state: int | None = None
    _pool: Any = None

    def __init__(
        self,
        limit: int | None = None,
        putlocks: bool = True,
        forking_enable: bool = True,
        callbacks_propagate: tuple[type[BaseException], ...] = (),
        app: Any = None,
        **options: Any,
    ) -> None:
        self.limit = limit
        self.putlocks = putlocks
        self.options = options
        self.forking_enable = forking_enable
        self.callbacks_propagate = callbacks_propagate
        self.app = app

    @classmethod
    def bridged(
        cls,
        app: Any,
        runner: Runner,
        concurrency: int = 1,
        *,
        max_tasks: int | None = None,
        max_memory: int | None = None,
    ) -> BridgedPool:
        """A pool of this class, made with the arguments that Celery's worker makes pools with, behind our port."""
        pool = cls(
            concurrency,
            app=app,
            initargs=(app, socket.gethostname()),
            maxtasksperchild=max_tasks,
            max_memory_per_child=max_memory,
            timeout=None,
            soft_timeout=None,
            putlocks=True,
            lost_worker_timeout=10.0,
            threads=True,
            max_restarts=None,
            allow_restart=False,
            forking_enable=True,
            semaphore=None,
            sched_strategy="fair",
        )
        return BridgedPool(pool, runner, concurrency)

    def on_start(self) -> None: ...

    def did_start_ok(self) -> bool:
        return True

    def flush(self) -> None: ...

    def on_stop(self) -> None: ...

    def register_with_event_loop(self, loop: Any) -> None: ...

    def on_apply(self, *args: Any, **kwargs: Any) -> Any: ...

    def on_terminate(self) -> None: ...

    def on_soft_timeout(self, job: Any) -> None: ...

    def on_hard_timeout(self, job: Any) -> None: ...

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None: ...

    def on_close(self) -> None: ...

    def terminate_job(self, pid: Any, signal: Any = None) -> None:
        raise NotImplementedError(f"{type(self)} does not implement kill_job")

    def restart(self) -> None:
        raise NotImplementedError(f"{type(self)} does not implement restart")

    def start(self) -> None:
        self.on_start()
        self._state = self.RUN

    def stop(self) -> None:
        self.on_stop()
        self._state = self.TERMINATE

    def terminate(self) -> None:
        self._state = self.TERMINATE
        self.on_terminate()

    def close(self) -> None:
        self._state = self.CLOSE
        self.on_close()

    def apply_async(self, target: Any, args: Any = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Have the target called by the pool; see `on_apply` of the pools for the callbacks."""
        return self.on_apply(
            target,
            args or (),
            kwargs or {},
            waitforslot=self.putlocks,
            callbacks_propagate=self.callbacks_propagate,
            **options,
        )

    def _get_info(self) -> dict[str, Any]:
        cls = type(self)
        return {"implementation": f"{cls.__module__}:{cls.__name__}", "max-concurrency": self.limit}

    @property
    def info(self) -> dict[str, Any]:
        return self._get_info()

    @property
    def active(self) -> bool:
        return self._state == self.RUN

    @property
    def num_processes(self) -> int | None:
        return self.limit


#: Runners of the bridges of this process; a pool's forked children find theirs here.
_runners: dict[int, Runner] = {}
_numbers = count(1)


class Call:
    """What a custom pool is asked to call: runs one message, whatever arguments it gets. Can be pickled."""

    def __init__(self, number: int, message: Message) -> None:
        self._number = number
        self._message = message

    def __call__(self, *args: Any, **kwargs: Any) -> Outcome:
        runner = _runners[self._number]
        try:
            return runner.run(self._message)
        finally:
            runner.flush()

    def __reduce__(self) -> tuple[Any, ...]:
        return _call, (self._number, self._message.to_envelope(), self._message.redelivered)


def _call(number: int, envelope: bytes, redelivered: bool) -> Call:
    message = Message.from_envelope(envelope)
    message.redelivered = redelivered
    return Call(number, message)


class BridgedPool:
    """A custom pool behind the port. It gets no more jobs than it has runners for; the others wait here."""

    def __init__(self, pool: BasePool, runner: Runner, concurrency: int = 1) -> None:
        self.pool = pool
        self._runner = runner
        self._size = concurrency
        self._tally = Tally()
        self._number = 0
        self._feeding = False

    def start(self) -> None:
        """Start the runner, once, and the pool."""
        if not self._number:
            self._tally.open()
            self._runner.start(0)
            self._number = next(_numbers)
            _runners[self._number] = self._runner
            self.pool.start()

    def stop(self, deadline: float) -> None:
        """Close and stop the pool in good order if what runs ends in time, else terminate it."""
        if not self._number:
            return
        self.take_back()
        running = self._tally.running
        while running and (left := deadline - monotonic()) > 0:
            wait_readable((), min(left, 0.01))
        if running:
            self.pool.terminate()
            for run in list(running.values()):
                self._tally.lose(run, "still running when the pool stopped.")
        else:
            self.pool.close()
            self.pool.stop()
        self._runner.stop()
        del _runners[self._number]
        self._number = 0
        self._tally.close()

    def submit(self, jobs: Sequence[Job]) -> None:
        self._tally.take(jobs, self._room())
        self._tally.waiting.extend(jobs)
        self._feed()

    def report(self) -> Report:
        report = self._tally.report()
        if self._number:
            self._feed()  # after the look: what a pool runs at once is news for the next one
        return report

    def descriptors(self) -> Sequence[int]:
        return self._tally.descriptors()

    @property
    def free(self) -> int:
        return self._room() - self._tally.held

    def take_back(self) -> None:
        jobs = list(self._tally.waiting)
        self._tally.waiting.clear()
        self._tally.give_back(jobs)

    def terminate(self, key: int, signal: int) -> None:
        """Raises `NotImplementedError` unless the pool can (`[pool.12]`)."""
        run = self._tally.running.get(key)
        if run is not None and run.strand is not None:
            self.pool.terminate_job(run.strand, signal)

    def info(self) -> dict[str, Any]:
        return self.pool.info

    def _room(self) -> int:
        return self.pool.num_processes or self._size

    def _feed(self) -> None:
        """Hand over as many jobs as there are free runners now: those that end meanwhile make room for the next call,
        so that a pool that runs its jobs at once does not run all of them before anything is told."""
        waiting, running = self._tally.waiting, self._tally.running
        if self._feeding:  # a pool that runs its jobs at once calls back from inside
            return
        self._feeding = True
        try:
            for _ in range(min(len(waiting), self._room() - len(running))):
                self._apply(waiting.popleft())
        finally:
            self._feeding = False

    def _apply(self, job: Job) -> None:
        """Ask the pool to run this, with the arguments that Celery's own request gives it."""
        message, tally = job.message, self._tally
        run = tally.begin(job, None)

        def accepted(pid: Any, time_accepted: Any) -> None:
            run.strand = pid
            tally.accepted(run)

        def timed_out(soft: bool, timeout: float) -> None:
            if soft:
                tally.warned(run)
            else:
                tally.time_out(run)

        try:
            self.pool.apply_async(
                Call(self._number, message),
                args=_arguments(message),
                accept_callback=accepted,
                timeout_callback=timed_out,
                callback=lambda returned: _ended(tally, run, returned),
                error_callback=lambda failed: _ended(tally, run, failed),
                soft_timeout=job.soft_limit,
                timeout=job.hard_limit,
                correlation_id=message.id,
            )
        except BaseException as exc:
            tally.lose(run, f"{type(exc).__name__} in the pool")
            if not isinstance(exc, Exception):
                raise


def _arguments(message: Message) -> tuple[Any, ...]:
    """Those that Celery's own tracer is called with."""
    headers = message.headers
    return message.task, message.id, headers, message.body, message.content_type, message.content_encoding


def _ended(tally: Tally, run: Run, came: Any) -> None:
    """An outcome, or what the pool tells of a run that came to none: an ExceptionInfo, as a rule."""
    if hasattr(came, "runtime") and hasattr(came, "record"):
        tally.finish(run, came)
    else:
        tally.lose(run, str(getattr(came, "exception", came)))
