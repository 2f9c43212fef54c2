"""Adapter. Memory that is free, but that the C library keeps, is given back to the system."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from celery.concurrency.retirement import resident_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.ports import Clock

__all__ = ["Tidying", "trim"]

#: Seconds between two looks.
_EVERY = 2.0
#: KiB above the least that was seen; what a worker's full window of messages takes, a trim of which would not last.
_SLACK = 16 << 10


def trim() -> bool:
    """Give back what can be given back; False where the C library has no way to (only glibc has)."""
    try:
        release = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    release(0)
    return True


class Tidying:
    """Sees that one large message does not make the worker's process large for good.

    glibc takes memory of many MB from the system for itself alone, and returns it when it is freed; but once it has
    seen a block of that size it takes the next ones from its heap, and keeps as much as twice that. The body of a chord
    with 20 MB of results left 60 MB behind.
    """

    def __init__(
        self, clock: Clock, resident: Callable[[], int] = resident_memory, trim: Callable[[], bool] = trim
    ) -> None:
        """`resident`: KiB that this process holds."""
        self._clock = clock
        self._resident = resident
        self._trim = trim
        self._least: int | None = None
        self._look_at = 0.0

    def look(self) -> None:
        """Called several times a second."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _EVERY
        held = self._resident()
        if self._least is None or held < self._least:
            self._least = held
        elif held > self._least + _SLACK and not self._trim():
            self._look_at = float("inf")
