"""Application. The pool grows with the work and shrinks when there is less (`[limit.7]`, `[limit.8]`).

As in Celery an autoscaler is a class of the user's choice (`worker_autoscaler`); ours has no thread: the worker's
engine asks it several times a second, in the thread that owns the pool.
"""

from __future__ import annotations

import logging
import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured
from celery.worker import state

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ("Autoscaler", "PoolSize")

logger = logging.getLogger("celery.worker.autoscale")


def _keepalive() -> float:
    value = os.environ.get("AUTOSCALE_KEEPALIVE", "30")
    try:
        return float(value)
    except ValueError as exc:
        raise ImproperlyConfigured(f"AUTOSCALE_KEEPALIVE: expected seconds in the environment, got {value!r}") from exc


#: Seconds after the pool has grown before it shrinks.
AUTOSCALE_KEEPALIVE = _keepalive()


class PoolSize:
    """How many runners the pool has. What changes it keeps the worker's books. In the engine's thread."""

    def __init__(self, worker: WorkController) -> None:
        self._worker = worker

    @property
    def num_processes(self) -> int:
        """How many there are to be; any thread may ask."""
        pool: Any = self._worker.pool
        size = getattr(pool, "size", None)
        return self._worker.concurrency if size is None else int(size)

    def grow(self, n: int = 1) -> None:
        """Raises `AttributeError` where the pool has one size, `ValueError` beyond what it can have."""
        pool: Any = self._worker.pool
        pool.grow(n)
        self._worker.resized(self.num_processes)

    def shrink(self, n: int = 1) -> None:
        """Each ends when it has finished what it runs. Raises like `grow`."""
        pool: Any = self._worker.pool
        pool.shrink(n)
        self._worker.resized(self.num_processes)


class Autoscaler:
    """Has as many processes as there are tasks to run, within bounds.

    Subclasses override `_maybe_scale`, `scale_up`, `scale_down`, `on_task_received` or `info`.
    """

    def __init__(
        self,
        pool: Any,
        max_concurrency: int,
        min_concurrency: int = 0,
        worker: Any = None,
        keepalive: float = AUTOSCALE_KEEPALIVE,
        mutex: Any = None,
    ) -> None:
        """`pool` has `num_processes`, `grow` and `shrink`; `keepalive`: seconds after growing before it shrinks."""
        self.pool = pool
        self.mutex = mutex or threading.Lock()
        self.max_concurrency = max_concurrency
        self.min_concurrency = min_concurrency
        self.keepalive = keepalive
        self.worker = worker
        self._last_scale_up: float | None = None

    def body(self) -> None:
        """One look. The worker calls it several times a second."""
        with self.mutex:
            self.maybe_scale()

    def maybe_scale(self, req: Any = None) -> bool | None:
        """Look whether the pool has the right size. True: it has been changed."""
        return self._maybe_scale(req)

    def _maybe_scale(self, req: Any = None) -> bool | None:
        wanted = max(min(self.qty, self.max_concurrency), self.min_concurrency, 1)
        have = self.processes
        if wanted > have:
            self.scale_up(wanted - have)
            return True
        if wanted < have:
            self.scale_down(have - wanted)
            return True
        return None

    def on_task_received(self, req: Any) -> None:
        """A task was taken on. Ours does nothing then: the next look is near."""

    def update(self, max: int | None = None, min: int | None = None) -> tuple[int, int]:
        """Change the bounds, and the pool at once if it is outside; returns them. Raises `ValueError`."""
        most = self.max_concurrency if max is None else int(max)
        least = self.min_concurrency if min is None else int(min)
        if most < 1 or least < 0 or least > most:
            raise ValueError(f"autoscale: expected 0 <= min <= max and max >= 1, got max={most} min={least}")
        with self.mutex:
            self.max_concurrency, self.min_concurrency = most, least
            have = self.processes
            if have > most:
                self._shrink(have - most)
            elif have < least:
                self._grow(least - have)
            return self.max_concurrency, self.min_concurrency

    def scale_up(self, n: int) -> None:
        """So many more."""
        self._last_scale_up = monotonic()
        self._grow(n)

    def scale_down(self, n: int) -> None:
        """So many fewer, unless the pool has grown lately."""
        if self._last_scale_up is None or monotonic() - self._last_scale_up > self.keepalive:
            self._shrink(n)

    def _grow(self, n: int) -> None:
        logger.info("Scaling up %s processes.", n)
        try:
            self.pool.grow(n)
        except ValueError as exc:
            logger.error("The pool cannot grow as far as it should, and keeps its size: %s", exc)
            self.max_concurrency = max(1, self.processes)
            self.min_concurrency = min(self.min_concurrency, self.max_concurrency)

    def _shrink(self, n: int) -> None:
        logger.info("Scaling down %s processes.", n)
        try:
            self.pool.shrink(n)
        except ValueError as exc:
            logger.debug("The pool keeps its size: %s", exc)

    def info(self) -> dict[str, Any]:
        """What `stats` shows of it."""
        return {
            "max": self.max_concurrency,
            "min": self.min_concurrency,
            "current": self.processes,
            "qty": self.qty,
        }

    @property
    def qty(self) -> int:
        """How many tasks the worker holds, those that run included."""
        if self.worker is None:
            return len(state.reserved_requests)
        return int(self.worker.consumer.load)

    @property
    def processes(self) -> int:
        """How many processes there are to be."""
        return int(self.pool.num_processes)
