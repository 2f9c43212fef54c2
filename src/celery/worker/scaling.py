"""Application. The autoscaler of a worker: its range, as options and settings name it, and its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import ImproperlyConfigured
from celery.utils.imports import symbol_by_name
from celery.worker.autoscale import Autoscaler

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ["make_autoscaler", "range_of"]


def range_of(wanted: Any) -> tuple[int, int] | None:
    """`"10,3"`, `"10"`, `10` or `(10, 3)`: most and fewest processes. Raises `ImproperlyConfigured`."""
    if not wanted:
        return None
    parts = wanted.split(",") if isinstance(wanted, str) else wanted if isinstance(wanted, list | tuple) else (wanted,)
    try:
        most, least = (*map(int, parts), 0)[:2]
    except (TypeError, ValueError):
        most, least = 0, 0
    if most < 1 or not 0 <= least <= most or len(parts) > 2:
        raise ImproperlyConfigured(f"autoscale: expected max,min such as 10,3 with min <= max, got {wanted!r}")
    return most, least


def make_autoscaler(worker: WorkController) -> Any:
    """Of the class that the setting `worker_autoscaler` names; None if the worker has one size.

    Raises `ImproperlyConfigured` where the pool cannot be resized.
    """
    if worker.autoscale is None:
        return None
    if not hasattr(worker.pool, "grow"):
        raise ImproperlyConfigured(
            f"autoscale: a pool of the kind {type(worker.pool).__name__} has one size; use -c, or -P prefork"
        )
    cls = symbol_by_name(worker.app.conf.worker_autoscaler)
    autoscaler = cls(worker.size, *worker.autoscale, worker=worker)
    if cls.on_task_received is not Autoscaler.on_task_received:  # asked for: each message is shown to it

        def received(request: Any = None, sender: Any = None, **_: Any) -> None:
            if sender is worker.consumer:
                autoscaler.on_task_received(request)

        signals.task_received.connect(received, weak=False)
        autoscaler._received = received
    return autoscaler
