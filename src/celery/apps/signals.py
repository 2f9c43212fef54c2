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
_COLD_HINT = "worker: Hitting Ctrl+C again will end the program at once!"


class SignalLadder:
    """The stages of a stop. Each Ctrl+C goes one further: warm, cold, at once."""

    def __init__(self, worker: WorkController) -> None:
        self._worker = worker
        self._interrupts = 0
        self._cold = False
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
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    # -- handlers ----------------------------------------------------------------------------------------------------

    def _interrupt(self, number: int, frame: Any) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            _say(_WARM_HINT)
            self._warm(number, EX_FAILURE)
        elif self._interrupts == 2:
            _say(_COLD_HINT)
            self._quit(number, frame)
        else:
            os._exit(EX_FAILURE)

    def _terminate(self, number: int, frame: Any) -> None:
        self._warm(number, EX_OK)

    def _hang_up(self, number: int, frame: Any) -> None:
        self.restart = True
        self._warm(number, EX_OK)

    def _warm(self, number: int, exitcode: int) -> None:
        if self._worker.consumer.stopping:
            return
        signals.worker_shutting_down.send(
            sender=self._worker.hostname, sig=signal.Signals(number).name, how="Warm", exitcode=exitcode
        )
        _say(f"worker: Warm shutdown ({multiprocessing.current_process().name})")
        self._worker.stop(in_sighandler=True, exitcode=exitcode)

    def _quit(self, number: int, frame: Any) -> None:
        again, self._cold = self._cold, True
        if again:
            os._exit(EX_FAILURE)
        signals.worker_shutting_down.send(
            sender=self._worker.hostname, sig=signal.Signals(number).name, how="Cold", exitcode=EX_FAILURE
        )
        _say(f"worker: Cold shutdown ({multiprocessing.current_process().name})")
        self._worker.exitcode = EX_FAILURE
        self._worker.terminate(in_sighandler=True)
        if not self._worker.engine_has_thread:
            raise WorkerTerminate(EX_FAILURE)

    def _dump(self, number: int, frame: Any) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)


def _say(text: str) -> None:
    """Write past every buffer and lock: the interrupted code may hold them."""
    write(2, f"\n{text}\n".encode())
