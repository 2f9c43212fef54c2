"""Application. What a pool's process runs messages with: the tracer, and the process around it."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

from celery import signals
from celery.utils.log import flush_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.app.trace import LogLines
    from celery.tracer import Tracer

__all__ = ["TaskRunner"]


class TaskRunner:
    """The `Runner` of real workers. Made in the main process; `start` makes a child out of its copy."""

    def __init__(self, app: Celery, tracer: Tracer, lines: LogLines) -> None:
        self._app = app
        self._lines = lines
        self._main = os.getpid()
        #: One message to its outcome.
        self.run = tracer.run
        #: Write the log lines of the runs since the last time.
        self.flush: Callable[[], object] = lines.flush

    def start(self, index: int) -> None:
        """Name the process, let go of what belongs to the parent, and tell that a child is there."""
        if os.getpid() != self._main:
            multiprocessing.current_process().name = f"ForkPoolWorker-{index + 1}"
            self._app.log.enter_child(index)
            self._app.set_current()
            self._app.assembly.reset_after_fork()
            self._app.on_after_fork.send(sender=self._app)
        self._app.loader.init_worker_process()
        self._lines.refresh()
        if not self._lines.successes.receivers:
            self.flush = object  # nothing is ever held back: a call that does nothing, without a frame
        signals.worker_process_init.send(sender=None)

    def stop(self) -> None:
        """Tell that a child ends."""
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
        flush_lines()
