"""Flow. How the engine is to end: asked for from other threads and from signal handlers."""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING

from celery.exceptions import WorkerTerminate

if TYPE_CHECKING:
    from celery.ports import Clock, Consumer

__all__ = ["Leave", "close"]

logger = logging.getLogger("celery.worker.consumer")

#: Seconds that a broker which does not answer may hold up an end that was to be quick.
_PATIENCE = 5.0
#: Seconds that children of a warm stop have for what they do at their end (`worker_process_shutdown`, `atexit`).
_LAST_HOOKS = 5.0


class Leave:
    """Whether, how and by when to stop. All times are monotonic."""

    def __init__(self, clock: Clock, grace: float | None) -> None:
        """`grace`: seconds that a stop without a deadline waits for what runs; None: as long as that takes."""
        self._clock, self._grace = clock, grace
        self._deadline: float | None = None
        #: Not before the deadline, even if nothing runs.
        self.linger = False
        #: Nothing more is to be taken.
        self.asked = False
        #: What runs is to be cut short.
        self.terminating = False

    def ask(self, deadline: float | None, *, linger: bool) -> None:
        """Let what runs finish, until the deadline. Asked for again without one, nothing changes."""
        if self.terminating or (self.asked and deadline is None):
            return
        if deadline is None and self._grace is not None:
            deadline = self._clock.monotonic() + self._grace
        self._deadline, self.linger = deadline, linger
        self.asked = True

    def terminate(self) -> None:
        if not self.terminating:
            self._deadline = min(self._clock.monotonic(), inf if self._deadline is None else self._deadline)
        self.terminating = self.asked = True

    def heed(self, exc: BaseException) -> None:
        """What was raised in the loop to end it: `WorkerTerminate`, or a request to finish what runs."""
        if isinstance(exc, WorkerTerminate):
            self.terminate()
        else:
            self.ask(None, linger=False)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return inf if self._deadline is None else self._deadline - self._clock.monotonic()

    @property
    def overdue(self) -> bool:
        """It should have ended some time ago: the broker does not answer (`[shutdown.16]`)."""
        return self.asked and self.left < -_PATIENCE

    @property
    def pool_deadline(self) -> float:
        """Nothing runs any more in a warm stop; but children have hooks to run before they end."""
        return self._clock.monotonic() + (0.0 if self.terminating else max(0.0, min(self.left, _LAST_HOOKS)))


def close(consumer: Consumer) -> None:
    """The last thing that an engine does. Never raises."""
    try:
        consumer.close()
    except Exception as exc:  # noqa: BLE001 - what is still held comes back when its lease ends
        logger.warning("Closing the broker's consumer failed; what it held comes back by itself: %r", exc)
