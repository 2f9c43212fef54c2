"""Adapter. Soft time limits in a prefork child: `SoftTimeLimitExceeded` inside the run that took too long.

The child's reader thread sees that the limit has passed and sends SIGUSR1 to the main thread, so that waiting system
calls end. Signal handlers run in the main thread, between two instructions of it: what the handler sees as the current
run is the current run. It raises only where the run may be interrupted; else the signal is sent again a little later.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.ports import Interruptible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType, FrameType

    from celery.ports import Runner

__all__ = ["SoftLimits"]

#: Seconds until the signal is sent again: at first, and at most. Each time doubled.
_AGAIN, _MOST_AGAIN = 0.005, 0.1


class _Limited:
    """A run with a soft limit."""

    __slots__ = ("key", "next", "pause", "warned")

    def __init__(self, key: int, due: float) -> None:
        self.key = key
        #: When the signal is sent, or sent again.
        self.next = due
        self.pause = _AGAIN
        self.warned = False


class SoftLimits:
    """Keeps the soft limits of one child (`[limit.2]`)."""

    def __init__(self, runner: Runner) -> None:
        self._interruptible: Mapping[CodeType, bool] = {}
        if isinstance(runner, Interruptible):
            self._interruptible = runner.interruptible
        #: The current run, as long as it has not been told.
        self._current: _Limited | None = None
        #: The run that the signal is meant for.
        self._meant: _Limited | None = None
        self._pid = 0
        self._exceeded: type[Exception] = TimeoutError

    def install(self) -> None:
        """In the child's main thread, before its first run."""
        self._pid = os.getpid()
        self._main = threading.get_ident()
        signal.signal(signal.SIGUSR1, self._handle)

    def arm(self, key: int, limit: float) -> None:
        """What begins now has so many seconds. To be called before anybody can see that it has begun: whoever looks
        when to look again must find the limit."""
        if not self._interruptible:
            return
        if self._exceeded is TimeoutError:
            # Slow to import, and few children need it.
            from billiard.exceptions import SoftTimeLimitExceeded

            self._exceeded = SoftTimeLimitExceeded
        self._current = _Limited(key, monotonic() + limit)

    def disarm(self) -> None:
        """It has ended."""
        self._current = None

    def left(self, now: float) -> float | None:
        """Seconds until `enforce` has something to do; None: nothing."""
        current = self._current
        return None if current is None else current.next - now

    def enforce(self, now: float) -> int | None:
        """In the reader thread: signal the main thread if its run is past its limit; the key of a run to which that
        happens for the first time."""
        current = self._current
        if current is None or now < current.next:
            return None
        current.next = now + current.pause
        current.pause = min(2 * current.pause, _MOST_AGAIN)
        self._meant = current
        signal.pthread_kill(self._main, signal.SIGUSR1)
        if current.warned:
            return None
        current.warned = True
        return current.key

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a fork of the user's: there it shall mean what it means elsewhere
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        current = self._current
        if current is not None and current is self._meant and self._may_interrupt(frame):
            self._current = None
            raise self._exceeded

    def _may_interrupt(self, frame: Any) -> bool:
        """Whether user code is running, and what is raised now would reach it: finalizers and logging would swallow
        it."""
        while frame is not None:
            code = frame.f_code
            verdict = self._interruptible.get(code)
            if verdict is not None:
                return verdict
            if code.co_name == "__del__" or code.co_filename == _LOGGING:
                return False
            frame = frame.f_back
        return False


_LOGGING = logging.Handler.emit.__code__.co_filename
