"""Flow. Callers that do not wait longer than they said, whatever it is that takes long (`task_publish_timeout`).

Timeouts of sockets end reads and writes one by one, and a resolver of names not at all. So what may take long is done
in a thread of its own: if it is not over in time, the caller goes, and the thread ends when it ends.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from celery import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Haste"]

logger = logging.getLogger("celery.producer")

#: Threads that are kept for the next ones, or a few more.
_KEPT = 10


class _Errand:
    """What is done for one caller."""

    __slots__ = ("begun", "do", "error", "left", "over", "what")

    def __init__(self, do: Callable[[], None], what: str) -> None:
        self.do = do
        self.what = what
        self.error: BaseException | None = None
        self.over = threading.Lock()
        self.over.acquire()
        self.begun = time.monotonic()
        #: Its caller has gone.
        self.left = False

    def run(self) -> None:
        try:
            self.do()
        except BaseException as exc:  # noqa: BLE001  raised in the caller's thread
            self.error = exc
        self.over.release()
        if self.left:
            outcome = "was done after all" if self.error is None else f"failed ({self.error})"
            logger.warning("%s %s, %.1f s after it began", self.what, outcome, time.monotonic() - self.begun)


class Haste:
    """Does things within so many seconds, or lets their callers go. Thread-safe; a forked child begins anew."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: list[SimpleQueue[_Errand]] = []

    def do(self, do: Callable[[], None], what: str) -> None:
        """Returns when it is done. Raises what it raises, and `OperationalError` if it is not over in time: it goes on
        then, and nobody knows what comes of it; `what` names it."""
        if self._pid != os.getpid():
            self._begin()
        errand = _Errand(do, what)
        try:
            hand = self._idle.pop()
        except IndexError:
            hand = SimpleQueue()
            threading.Thread(target=self._serve, args=[hand], name="celery-haste", daemon=True).start()
        hand.put(errand)
        in_time = errand.over.acquire(timeout=self.seconds)
        errand.left = not in_time
        if not in_time and not errand.over.acquire(blocking=False):  # else it was over in that very moment
            raise exceptions.OperationalError(
                f"{what} took longer than task_publish_timeout = {self.seconds:g} s: it may still get there. The "
                "broker is slow, or away without a word; `celery check` looks at it"
            )
        if errand.error is not None:
            raise errand.error

    def _serve(self, hand: SimpleQueue[_Errand]) -> None:
        while True:
            hand.get().run()
            if len(self._idle) >= _KEPT:
                return
            self._idle.append(hand)
