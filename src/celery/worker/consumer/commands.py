"""Flow. Calls that other threads have the engine make: what touches broker, pool or books belongs to its thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.worker.consumer.wakeup import WakeUp

__all__ = ["Commands", "Late"]

logger = logging.getLogger("celery.worker.consumer")


class Late(TimeoutError):
    """The engine has not come round in time. It makes the call all the same, when it does."""


class _Asked:
    """A call, and what came of it."""

    __slots__ = ("alone", "call", "done", "error", "value")

    def __init__(self, call: Callable[[], Any], *, alone: bool = False) -> None:
        self.call = call
        #: Nobody waits for what comes of it.
        self.alone = alone
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = threading.Event()

    def make(self) -> None:
        try:
            self.value = self.call()
        except Exception as exc:
            self.error = exc
            if self.alone:
                logger.error("A command failed in the worker's loop: %r", exc, exc_info=exc)
        finally:
            self.done.set()


class Commands:
    """The calls that wait. `ask` from any thread; `make` is the engine's."""

    def __init__(self, wake: WakeUp) -> None:
        self._wake = wake
        #: Made at the next turn.
        self.waiting: deque[_Asked] = deque()
        self._owner: int | None = None
        self._over = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """The calling thread is the engine's from now on."""
        self._owner = threading.get_ident()

    def make(self) -> None:
        """Make the calls that wait, in order."""
        while self.waiting:
            self.waiting.popleft().make()

    def end(self) -> None:
        """There are no more turns: make what waits, and let nothing wait any more."""
        with self._lock:
            self._over = True
        self.make()

    def ask(self, call: Callable[[], Any], seconds: float) -> Any:
        """Have this call made, and return what it returns or raise what it raises; in the engine's thread, at once.

        Raises `Late` if it was not made within so many seconds, `RuntimeError` if the engine has ended.
        """
        if self._owner == threading.get_ident():
            return call()
        asked = _Asked(call)
        with self._lock:
            if self._over:
                raise RuntimeError("expected a worker that runs; it has stopped")
            self.waiting.append(asked)
        self._wake.set()
        if not asked.done.wait(seconds):
            asked.alone = True
            raise Late(f"the worker has not come round to it within {seconds} s; it does so as soon as it can")
        if asked.error is not None:
            raise asked.error
        return asked.value

    def post(self, call: Callable[[], Any]) -> None:
        """Have this call made at the next turn. What it raises is logged; an engine that has ended makes none."""
        with self._lock:
            if not self._over:
                self.waiting.append(_Asked(call, alone=True))
        self._wake.set()
