"""Application. What a pool's process runs messages with: the tracer, and the process around it."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

from celery import signals
from celery.utils.log import flush_lines

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.trace import LogLines
    from celery.message import Message
    from celery.outcome import Outcome
    from celery.tracer import Tracer

__all__ = ["TaskRunner"]


class TaskRunner:
    """The `Runner` of real workers. Made in the main process; `start` makes a child out of its copy."""

    def __init__(self, app: Celery, tracer: Tracer, lines: LogLines) -> None:
        self._app = app
        self._lines = lines
        self._main = os.getpid()
        self._run = tracer.run

    def start(self, index: int) -> None:
        """Name the process, let go of what belongs to the parent, and tell that a child is there."""
        if os.getpid() != self._main:
            multiprocessing.current_process().name = f"ForkPoolWorker-{index + 1}"
            self._app.set_current()
            self._app.assembly.reset_after_fork()
            self._app.on_after_fork.send(sender=self._app)
        self._app.loader.init_worker_process()
        self._lines.refresh()
        signals.worker_process_init.send(sender=None)

    def run(self, message: Message) -> Outcome:
        """One message to its outcome."""
        return self._run(message)

    def flush(self) -> None:
        """Write the log lines of the runs since the last time."""
        flush_lines()

    def stop(self) -> None:
        """Tell that a child ends."""
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
        flush_lines()
