"""Adapter. The eventlet pool (`[pool.8]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import eventlet
from eventlet import hubs, patcher

from celery.concurrency.green import GreenPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.concurrency.tally import Run
    from celery.ports import Job

__all__ = ["EventletPool"]


def _nobody(moment: str, **arguments: Any) -> None:
    """Who is told where nobody listens."""


class EventletPool(GreenPool):
    """A pool of eventlet's greenlets. `tell` is called with the moments of its life (`[signal.21]`)."""

    name = "eventlet"
    #: With "started", "preshutdown", "postshutdown" or "apply", and for the last with target, args and kwargs.
    tell: Callable[..., object] = staticmethod(_nobody)

    def start(self) -> None:
        if not self._started:
            super().start()
            self.tell("started")

    def stop(self, deadline: float) -> None:
        if self._started:
            self.tell("preshutdown")
            super().stop(deadline)
            self.tell("postshutdown")

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.tell("apply", target=self._runner.run, args=(job.message,), kwargs={})
        super().submit(jobs)

    def _is_patched(self) -> bool:
        return bool(patcher.is_monkey_patched("select"))

    def _spawn(self, run: Run) -> Any:
        return eventlet.spawn(self._live, run)

    def _later(self, seconds: float, function: Callable[[], object]) -> None:
        hubs.get_hub().schedule_call_global(seconds, function)

    def _sleep(self, seconds: float) -> None:
        eventlet.sleep(seconds)


def __getattr__(name: str) -> Any:
    """`TaskPool`, the class of Celery's own API (`[pool.3]`), for those who derive from it."""
    if name == "TaskPool":
        from celery.concurrency.classic import EventletTaskPool

        return EventletTaskPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
