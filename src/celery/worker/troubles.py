"""Application. Whether a worker is fit to work: its loop comes round, its children answer (PAINS 27)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celery.ports import Answering

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ["trouble_of"]

#: Seconds that the loop may need to come round while it has nothing to do.
_ROUND = 2.0


def trouble_of(worker: WorkController) -> str | None:
    """What to say instead of "pong", or None. Any thread may ask.

    A pool that runs tasks in the thread of the loop is not asked: there the loop stands still while a task runs.
    """
    patience = worker.app.conf.get("worker_stuck_after")
    if not patience or worker.pool is None or not worker.pool.descriptors():
        return None
    alive_at = worker.consumer.alive_at
    if alive_at is not None and (late := time.monotonic() - alive_at) > patience + _ROUND:
        return f"the worker's loop has not come round for {late:.0f} s (pid {worker.pid})"
    if not isinstance(worker.pool, Answering):
        return None
    silent = [(pid, seconds) for pid, seconds in worker.pool.silent() if seconds > patience]
    if not silent:
        return None
    told = ", ".join(f"pid {pid} for {seconds:.0f} s" for pid, seconds in silent)
    return f"{len(silent)} of {len(worker.pool.pids)} processes of the pool do not answer: {told}"
