"""Application. What a pool's process runs messages with: the tracer, and the process around it."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.spawning import changes, reference, restore_runner
from celery.platforms import set_mp_process_title
from celery.tracer import Tracer
from celery.utils.log import flush_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.app.trace import LogLines

__all__ = ["TaskRunner"]


class TaskRunner:
    """The `Runner` of real workers. Made in the main process; `start` makes a child out of its copy."""

    #: In a process that is no fork of the main process.
    spawned = False

    def __init__(self, app: Celery, tracer: Tracer, lines: LogLines, hostname: str = "") -> None:
        self._app = app
        self._hostname = hostname
        self._lines = lines
        self._main = os.getpid()
        #: One message to its outcome.
        self.run = tracer.run
        #: Where a soft limit may be raised.
        self.interruptible = frozenset({Tracer._call.__code__})
        #: Write the log lines of the runs since the last time.
        self.flush: Callable[[], object] = lines.flush

    def __reduce__(self) -> Any:
        """For children that are spawned."""
        return restore_runner, (reference(self._app), changes(self._app), self._hostname)

    def start(self, index: int) -> None:
        """Name the process, let go of what belongs to the parent, and tell that a child is there."""
        if self.spawned or os.getpid() != self._main:
            kind = "Spawn" if self.spawned else "Fork"
            multiprocessing.current_process().name = f"{kind}PoolWorker-{index + 1}"
            set_mp_process_title("celeryd", hostname=self._hostname)
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
