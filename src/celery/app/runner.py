"""Application. What a pool's process runs messages with: the tracer, and the process around it."""

from __future__ import annotations

import multiprocessing
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.spawning import changes, reference, restore_runner
from celery.app.trace import call_replacement
from celery.platforms import set_mp_process_title
from celery.tracer import Tracer
from celery.utils.log import flush_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.app.trace import LogLines

__all__ = ["TaskRunner", "process_destructor", "process_initializer"]

#: Below our tracer only where it calls the task; below one that somebody has put in its place anywhere.
_INTERRUPTIBLE = {
    Tracer._call.__code__: True,
    Tracer.run_as.__code__: False,
    call_replacement.__code__: True,
}


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
        self.interruptible = _INTERRUPTIBLE
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
            _chosen("process_initializer")(self._app, self._hostname)
        else:
            process_initializer(self._app, self._hostname)
        self._lines.refresh()
        if not self._lines.successes.receivers:
            self.flush = object  # nothing is ever held back: a call that does nothing, without a frame

    def stop(self) -> None:
        """Tell that a child ends."""
        if self.spawned or os.getpid() != self._main:
            _chosen("process_destructor")(os.getpid(), 0)
        else:
            process_destructor(os.getpid(), 0)
        flush_lines()


def process_initializer(app: Celery, hostname: str) -> None:
    """Tell that a pool's process is there: the loader, then the receivers of `worker_process_init`.

    Users find it as `celery.concurrency.prefork.process_initializer`. What stands there in its place when a child of
    the prefork pool starts is called instead (ECOSYSTEM 1.0).
    """
    app.loader.init_worker_process()
    signals.worker_process_init.send(sender=None)


def process_destructor(pid: int, exitcode: int) -> None:
    """Tell that a pool's process ends. As `celery.concurrency.prefork.process_destructor` it may be replaced too."""
    signals.worker_process_shutdown.send(sender=None, pid=pid, exitcode=exitcode)


def _chosen(name: str) -> Callable[..., object]:
    """What stands under that name in the pool's module, ours or another."""
    found: Callable[..., object] = getattr(import_module("celery.concurrency.prefork"), name)
    return found
