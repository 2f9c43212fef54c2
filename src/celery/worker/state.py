"""Application. What a worker process counts, and the two switches that stop it from code (`[worker.31]`)."""

from __future__ import annotations

import platform
from collections import Counter

import celery
from celery.exceptions import WorkerShutdown, WorkerTerminate

__all__ = ["SOFTWARE_INFO", "maybe_shutdown", "should_stop", "should_terminate", "total_count"]

#: What a worker tells of its software.
SOFTWARE_INFO = {"sw_ident": "py-celery", "sw_ver": celery.__version__, "sw_sys": platform.system()}

#: Messages taken on by this process, by task name.
total_count: Counter[str] = Counter()

#: Set to an exit code to stop the worker; None and False mean no, 0 is an exit code (`[shutdown.15]`).
should_stop: int | bool | None = None
should_terminate: int | bool | None = None


def maybe_shutdown() -> None:
    """Raise `WorkerTerminate` or `WorkerShutdown`, with the exit code, if that was asked for."""
    if should_terminate is not None and should_terminate is not False:
        raise WorkerTerminate(should_terminate)
    if should_stop is not None and should_stop is not False:
        raise WorkerShutdown(should_stop)
