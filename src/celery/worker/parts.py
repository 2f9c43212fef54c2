"""Application. The parts of a worker: what is started in order and stopped in reverse."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.ports import Pool
    from celery.worker.consumer.engine import Engine

__all__ = ["EnginePart", "Part", "Parts", "PoolPart"]

logger = logging.getLogger("celery.worker")

#: Seconds within which a signal is answered that came at the worst moment.
_SIGNALS_WITHIN = 0.5


class Part(Protocol):
    """One duty of a worker."""

    name: str

    def start(self) -> None:
        """Begin. What it has begun when it raises, it must undo itself."""

    def stop(self, deadline: float | None) -> None:
        """End, at the latest at `deadline` (monotonic seconds; None: when it is done). Idempotent."""


class PoolPart:
    """The pool. First to start: prefork forks before this process has threads or connections to inherit.

    Last to stop, though the engine has stopped it by then: only the engine can settle its last outcomes.
    """

    name = "Pool"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def start(self) -> None:
        self._pool.start()

    def stop(self, deadline: float | None) -> None:
        self._pool.stop(0.0 if deadline is None else deadline)


class EnginePart:
    """The engine: in the calling thread, where `start` then lasts as long as the worker; or in a thread of its own."""

    name = "Consumer"

    def __init__(self, engine: Engine, *, threaded: bool) -> None:
        self._engine = engine
        self._threaded = threaded
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._left_behind = False

    def start(self) -> None:
        if not self._threaded:
            self._engine.run()
            return
        # A daemon: a broker that does not answer must not keep the process.
        self._thread = threading.Thread(target=self._run, name="celery-engine", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the engine has ended. Raises what ended it."""
        if self._thread is not None:
            self._join(self._thread)
        if self._error is not None:
            raise self._error

    def stop(self, deadline: float | None) -> None:
        self._engine.stop(deadline)
        if self._thread is not None:
            self._join(self._thread)

    def _join(self, thread: threading.Thread) -> None:
        while thread.is_alive() and not self._engine.exit.overdue:
            # Not for ever: a signal that comes just before the wait has its handler run only after it.
            thread.join(_SIGNALS_WITHIN)
        if thread.is_alive() and not self._left_behind:
            self._left_behind = True
            logger.warning("The broker does not answer; what this worker held comes back when its lease ends")

    def _run(self) -> None:
        try:
            self._engine.run()
        except BaseException as exc:  # noqa: BLE001 - raised again where the worker was started
            self._error = exc


class Parts:
    """The list. Printed: `Pool, Consumer`."""

    def __init__(self, *parts: Part) -> None:
        self._parts = list(parts)
        self._started: list[Part] = []

    def start(self) -> None:
        """Start each, in order."""
        for part in self._parts:
            self._started.append(part)
            part.start()

    def stop(self, deadline: float | None = None) -> None:
        """Stop those that were started, last first: the engine gives back and settles before the pool goes."""
        while self._started:
            part = self._started.pop()
            try:
                part.stop(deadline)
            except Exception:
                logger.exception("Stopping the part %s failed; the others are stopped all the same", part.name)

    def __iter__(self) -> Iterator[Part]:
        """In the order in which they are started."""
        return iter(self._parts)

    def __str__(self) -> str:
        return ", ".join(part.name for part in self._parts)
