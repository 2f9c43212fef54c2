"""Application. How a worker program answers signals (`[shutdown.1]` to `[shutdown.14]`).

The handlers run in the main thread, which does nothing else, so they may do what a handler otherwise must not. In a
solo worker the main thread runs the tasks: there they only set flags, but for the cold stop, which must interrupt the
running task.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import WorkerTerminate
from celery.platforms import EX_FAILURE, EX_OK
from celery.waits import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.worker.worker import WorkController

__all__ = ["SignalLadder"]

_WARM_HINT = "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!"
_COLD_HINT = "worker: Hitting Ctrl+C again will terminate all running tasks!"


class SignalLadder:
    """The stages of a stop (`[shutdown.5]`). Each Ctrl+C goes one further: warm; cold, perhaps after a wait; the end of
    that wait; at once. QUIT begins at the second."""

    def __init__(self, worker: WorkController) -> None:
        self._worker = worker
        self._interrupts = 0
        self._quits = 0
        self._warmed = False
        #: The cold stop began with a wait.
        self._softly = False
        self._alarm: _Alarm | None = None
        self._previous: dict[int, Any] = {}
        #: True after HUP: the program is to be started anew when the worker has stopped.
        self.restart = False

    def install(self) -> None:
        """Take the signals over. Only in the main thread."""
        handlers: dict[str, Callable[[int, Any], None]] = {
            "SIGINT": self._interrupt,
            "SIGTERM": self._quit if os.environ.get("REMAP_SIGTERM") == "SIGQUIT" else self._terminate,
            "SIGQUIT": self._quit,
            "SIGUSR1": self._dump,
        }
        if not (sys.stdin is not None and sys.stdin.isatty()):
            handlers["SIGHUP"] = self._hang_up
        for name, handler in handlers.items():
            number = getattr(signal, name)
            self._previous[number] = signal.signal(number, handler)

    def uninstall(self) -> None:
        """Give the signals back to whom they were before."""
        if self._alarm is not None:
            self._alarm.cancel()
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    # -- handlers ----------------------------------------------------------------------------------------------------

    def _interrupt(self, number: int, frame: Any) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            _say(_WARM_HINT)
            self._warm(number, EX_FAILURE)
        else:
            self._quit(number, frame)

    def _terminate(self, number: int, frame: Any) -> None:
        self._warm(number, EX_OK)

    def _hang_up(self, number: int, frame: Any) -> None:
        self.restart = True
        self._warm(number, EX_OK)

    def _warm(self, number: int, exitcode: int) -> None:
        if self._warmed or self._worker.consumer.stopping:
            return
        self._warmed = True  # at once: another signal may interrupt what follows
        signals.worker_shutting_down.send(
            sender=self._worker.hostname, sig=signal.Signals(number).name, how="Warm", exitcode=exitcode
        )
        _say(f"worker: Warm shutdown ({multiprocessing.current_process().name})")
        self._worker.stop(in_sighandler=True, exitcode=exitcode)

    def _quit(self, number: int, frame: Any) -> None:
        self._quits += 1
        if self._quits == 1:
            self._cold(number)
        elif self._quits == 2:
            _say("Waiting gracefully for cold shutdown to complete...")
            if self._softly:
                self._cut_short()
        else:
            self._hard()

    def _cold(self, number: int) -> None:
        """With a wait before, if there is anything to wait for (`[shutdown.3]`)."""
        worker = self._worker
        conf = worker.app.conf
        seconds, linger = conf.worker_soft_shutdown_timeout, bool(conf.worker_enable_soft_shutdown_on_idle)
        self._softly = bool(seconds) and (linger or bool(worker.consumer.held))
        _say(_COLD_HINT)
        signals.worker_shutting_down.send(
            sender=worker.hostname, sig=signal.Signals(number).name, how="Cold", exitcode=EX_FAILURE
        )
        if not self._softly:
            self._cut_short()
            return
        worker.soften(seconds, linger=linger, in_sighandler=True)
        if not worker.engine_has_thread:
            self._alarm = _Alarm(seconds)

    def _cut_short(self) -> None:
        worker = self._worker
        _say(f"worker: Cold shutdown ({multiprocessing.current_process().name})")
        worker.exitcode = EX_FAILURE
        worker.terminate(in_sighandler=True)
        if not (worker.engine_has_thread or worker.consumer.leaving):
            raise WorkerTerminate(EX_FAILURE)

    def _hard(self) -> None:
        """At once (`[shutdown.4]`): nothing is given back here, but comes back by itself as after a crash."""
        if self._worker.pidlock is not None:
            self._worker.pidlock.release()
        os._exit(EX_FAILURE)

    def _dump(self, number: int, frame: Any) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)


def _say(text: str) -> None:
    """Write past every buffer and lock: the interrupted code may hold them."""
    write(2, f"\n{text}\n".encode())


class _Alarm(threading.Timer):
    """Sends QUIT to the main thread after a while: a solo worker's may be inside of a task, out of our reach."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, partial(signal.pthread_kill, threading.main_thread().ident or 0, signal.SIGQUIT))
        self.daemon = True
        self.start()
