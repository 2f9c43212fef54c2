"""Adapter. Whether the children of a pool still answer: each is asked now and then, and its reader thread says so."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from celery.concurrency.frames import PING, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.concurrency.seat import Seat

__all__ = ["Beats"]

#: Seconds between two questions.
_EVERY = 5.0
_PING = frame(PING)


class Beats:
    """Asks, and knows who owes an answer. Whatever a child sends is one (`Seat.asked`)."""

    def __init__(self) -> None:
        self._next = 0.0

    def ask(self, seats: Iterable[Seat], watch: Callable[[Seat], None]) -> None:
        """Ask all that owe nothing, if it is time. `watch`: see to what could not be sent at once."""
        now = monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        for seat in seats:
            if seat.ready and not seat.closed and not seat.asked:
                seat.asked = now
                seat.send(_PING)
                watch(seat)

    def silent(self, seats: Iterable[Seat]) -> list[tuple[int, float]]:
        """Process ids of those that owe an answer, and since how many seconds."""
        now = monotonic()
        owing = [(seat.pid, seat.asked) for seat in seats]
        return [(pid, now - asked) for pid, asked in owing if asked]
