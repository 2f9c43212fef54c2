"""Entrance. Waiting for things in long tests against workers that run elsewhere (`[test.12]`)."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import retry_over_time

from celery import states
from celery.exceptions import TimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    from celery import Celery
    from celery.result import AsyncResult

__all__ = ["E_STILL_WAITING", "Manager", "ManagerMixin", "Sentinel"]

#: Seconds between two questions whether workers are idle.
_IDLE_EVERY = 0.5

E_STILL_WAITING = "Still waiting for {0}.  Trying again {when}: {exc!r}"


class Sentinel(Exception):
    """Something is not so yet."""


class ManagerMixin:
    """Waits for conditions and for results, and asks workers for their tasks by remote control."""

    app: Celery

    def _init_manager(
        self,
        block_timeout: float = 30 * 60.0,
        no_join: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.stdout = sys.stdout if stdout is None else stdout
        self.stderr = sys.stderr if stderr is None else stderr
        self.connerrors = self.app.connection().recoverable_connection_errors
        self.block_timeout = block_timeout
        self.no_join = no_join

    def remark(self, s: str, sep: str = "-") -> None:
        """Print a line on `stdout`."""
        print(f"{sep}{s}", file=self.stdout)

    def warn(self, s: str) -> None:
        """Print a line on `stderr`."""
        print(s, file=self.stderr)

    def missing_results(self, r: Iterable[AsyncResult[Any]]) -> Sequence[str]:
        """The ids of those that are not ready."""
        return [result.id for result in r if not result.ready()]

    def wait_for(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        errback: Callable[[BaseException, float, int], Any] | None = None,
        max_retries: int | None = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> Any:
        """Call `fun` again and again until it no longer raises `catch`, and return what it returned.

        Raises its last exception after `max_retries`, and any other at once. Intervals in seconds, each a step longer.
        """

        def on_error(exc: BaseException, intervals: Iterator[float], retries: int) -> float:
            seconds = next(intervals)
            if emit_warning:
                self.warn(E_STILL_WAITING.format(desc, when=f"in {seconds:.2f} seconds", exc=exc))
            if errback is not None:
                errback(exc, seconds, retries)
            return seconds

        return self.retry_over_time(
            fun,
            catch,
            args=args,
            kwargs=kwargs or {},
            errback=on_error,
            max_retries=max_retries,
            interval_start=interval_start,
            interval_step=interval_step,
            interval_max=interval_max,
            **options,
        )

    def ensure_not_for_a_while(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        max_retries: int | None = 20,
        interval_start: float = 0.1,
        interval_step: float = 0.02,
        interval_max: float = 1.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> None:
        """Call `fun` again and again to see it raise `catch` each time. Raises AssertionError if it ever returns."""
        try:
            self.wait_for(
                fun,
                catch,
                desc=desc,
                max_retries=max_retries,
                interval_start=interval_start,
                interval_step=interval_step,
                interval_max=interval_max,
                emit_warning=emit_warning,
                **options,
            )
        except catch:
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def retry_over_time(self, *args: Any, **kwargs: Any) -> Any:
        """kombu's, with the same arguments."""
        return retry_over_time(*args, **kwargs)

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Wait for a result, or for each of several; after a timeout (an argument of `get`), again.

        Returns what `get` returned. Raises AssertionError once that has happened `max_retries` times.
        """
        if self.no_join:
            return None
        kwargs.setdefault("timeout", self.block_timeout)
        several = isinstance(r, list | tuple)
        results = r if several else [r]
        for _ in range(max_retries):
            try:
                values = [result.get(propagate=propagate, **kwargs) for result in results]
            except TimeoutError as exc:
                missing = self.missing_results(results)
                self.remark(f"Still waiting for {len(missing)}/{len(results)}: [{', '.join(missing)}]: {exc!r}", "!")
            else:
                return values if several else values[0]
        raise AssertionError("Test failed: Missing task results")

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `fun` returns. Raises `Sentinel` if that is false."""
        answer = fun(*args, **kwargs)
        if not answer:
            raise Sentinel
        return answer

    def assert_result_tasks_in_progress_or_completed(
        self,
        async_results: Sequence[AsyncResult[Any]],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be started or completed",
        **policy: Any,
    ) -> Any:
        """Wait until each has started or succeeded. Raises `Sentinel` if that takes too long."""
        return self.assert_task_state_from_result(
            self.is_result_task_in_progress, async_results, interval, desc=desc, **policy
        )

    def assert_task_state_from_result(
        self, fun: Callable[..., Any], results: Sequence[AsyncResult[Any]], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Look every `interval` seconds until `fun(results)` is true. Raises `Sentinel` if that takes too long."""
        intervals = {"interval_start": interval, "interval_step": 0.0}
        return self.wait_for(lambda: self.true_or_raise(fun, results), (Sentinel,), **{**intervals, **policy})

    # -- what workers say of their tasks -----------------------------------------------------------------------------

    def inspect(self, timeout: float = 3.0) -> Any:
        """What asks all workers, waiting so many seconds for replies."""
        return self.app.control.inspect(timeout=timeout)

    def query_tasks(self, ids: Iterable[str], timeout: float = 0.5) -> Iterator[tuple[str, Any]]:
        """Node by node, what it knows of these tasks: id → (state there, request)."""
        yield from (self.inspect(timeout).query_task(*ids) or {}).items()

    def query_task_states(self, ids: Iterable[str], timeout: float = 0.5) -> dict[str, set[str]]:
        """The ids of these tasks in each state ("active", "reserved", "scheduled", "ready") that any worker says."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for _, known in self.query_tasks(ids, timeout=timeout):
            for task_id, (state, _) in known.items():
                found[state].add(task_id)
        return found

    def is_accepted(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Whether all of them run."""
        return self._are(ids, ("active",), **kwargs)

    def is_received(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Whether all of them run, or wait for a place in a worker."""
        return self._are(ids, ("reserved", "active"), **kwargs)

    def _are(self, ids: Iterable[str], wanted: Sequence[str], **kwargs: Any) -> bool:
        asked = set(ids)
        found = self.query_task_states(asked, **kwargs)
        return asked <= {task_id for state in wanted for task_id in found.get(state, ())}

    def assert_accepted(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be accepted", **policy: Any
    ) -> Any:
        """Wait until all of them run. Raises `Sentinel` if that takes too long."""
        return self.assert_task_worker_state(self.is_accepted, ids, interval=interval, desc=desc, **policy)

    def assert_received(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be received", **policy: Any
    ) -> Any:
        """Wait until workers have taken all of them. Raises `Sentinel` if that takes too long."""
        return self.assert_task_worker_state(self.is_received, ids, interval=interval, desc=desc, **policy)

    def assert_task_worker_state(
        self, fun: Callable[..., Any], ids: Iterable[str], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Look every `interval` seconds until `fun(ids)` is true. Raises `Sentinel` if that takes too long."""
        intervals = {"interval_start": interval, "interval_step": 0.0}
        return self.wait_for(lambda: self.true_or_raise(fun, ids), (Sentinel,), **{**intervals, **policy})

    def wait_until_idle(self) -> None:
        """Wait until no worker that answers runs a task, for at most `block_timeout` seconds.

        Raises `Sentinel` if no worker answers, and `TimeoutError` after that time.
        """
        end = time.monotonic() + self.block_timeout
        while time.monotonic() < end:
            running = self.inspect().active()
            if running is None:
                raise Sentinel("expected workers to say what they run; none answered")
            if not any(running.values()):
                return
            time.sleep(_IDLE_EVERY)
        raise TimeoutError(f"workers still run tasks after {self.block_timeout} seconds")

    @staticmethod
    def is_result_task_in_progress(results: Iterable[AsyncResult[Any]], **kwargs: Any) -> bool:
        """Whether each has started or succeeded."""
        return all(result.state in (states.STARTED, states.SUCCESS) for result in results)


class Manager(ManagerMixin):
    """A `ManagerMixin` by itself."""

    def __init__(self, app: Celery, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)
