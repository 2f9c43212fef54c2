"""Adapter. The gevent pool (`[pool.7]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey

from celery.concurrency.green import GreenPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.concurrency.tally import Run

__all__ = ["GeventPool"]


class GeventPool(GreenPool):
    """A pool of gevent's greenlets."""

    name = "gevent"

    def _is_patched(self) -> bool:
        return bool(monkey.is_module_patched("select"))

    def _spawn(self, run: Run) -> Any:
        return gevent.spawn(self._live, run)

    def _later(self, seconds: float, function: Callable[[], object]) -> None:
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(_once, timer, function)

    def _sleep(self, seconds: float) -> None:
        gevent.sleep(seconds)


def _once(timer: Any, function: Callable[[], object]) -> None:
    timer.close()
    function()


def __getattr__(name: str) -> Any:
    """`TaskPool`, the class of Celery's own API (`[pool.3]`), for those who derive from it."""
    if name == "TaskPool":
        from celery.concurrency.classic import GeventTaskPool

        return GeventTaskPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
