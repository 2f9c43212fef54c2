"""Flow. Deliveries that are not due yet."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from celery.ports import Deferring

if TYPE_CHECKING:
    from celery.message import Message
    from celery.ports import Consumer, Delivery

__all__ = ["WaitingRoom"]

#: Parked messages that are remembered, so that their coming back is not told as a second arrival: 1 MB at most.
_REMEMBERED = 10_000


class WaitingRoom:
    """Keeps deliveries until their time: parked in the broker where it can do that, else in memory.

    Where the broker parks, nothing waits here, however soon it is due: it would wait behind what runs here while
    another worker idles, and a worker that is killed would keep it from its time for a lease. What waits in memory is
    in this worker's custody at the broker, so it comes back after a kill.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._deferring = consumer if isinstance(consumer, Deferring) else None
        #: What waits in memory, the next one first: (wall-clock time, order, delivery).
        self.heap: list[tuple[float, int, Delivery]] = []
        self._order = count()
        #: Fingerprints of what was parked, the oldest first.
        self._parked: OrderedDict[int, None] = OrderedDict()
        #: What is still to be parked in the broker.
        self.to_park: list[tuple[Delivery, float]] = []

    def add(self, delivery: Delivery, until: float) -> bool:
        """Keep it until then (`[worker.28]`). True if it comes for the first time, as far as is remembered.

        What the broker gave back as due although it is not yet (its clock is ahead of ours) waits in memory: parking
        it again would only make it come again at once.
        """
        message = delivery.message
        mark = None if message is None else _fingerprint(message)
        known = mark in self._parked
        if self._deferring is not None and not known:
            if mark is not None:
                self._remember(mark)
            self.to_park.append((delivery, until))
        else:
            heappush(self.heap, (until, next(self._order), delivery))
        return not known

    @property
    def parks(self) -> bool:
        """Whether deliveries can be parked in the broker, where every worker gets at them when they are due."""
        return self._deferring is not None

    def put_off(self, delivery: Delivery, until: float) -> None:
        """Have it parked in the broker, for whichever worker is the first to take it then. Only where `parks`."""
        self.to_park.append((delivery, until))

    def park(self) -> None:
        """Park what is to be parked. Raises `OperationalError`; what was not parked is parked by the next call."""
        if self.to_park:
            assert self._deferring is not None
            self._deferring.defer(self.to_park)
            self.to_park = []

    def returned(self, message: Message) -> bool:
        """Whether this one was parked by us before and is back now, due."""
        mark = _fingerprint(message)
        if mark in self._parked:
            del self._parked[mark]
            return True
        return False

    def due(self, now: float) -> list[Delivery]:
        """Take out those whose time has come."""
        taken = []
        while self.heap and self.heap[0][0] <= now:
            taken.append(heappop(self.heap)[2])
        return taken

    def clear(self) -> list[Delivery]:
        """Take out all that are in memory, to be given back."""
        taken = [delivery for _, _, delivery in self.heap] + [delivery for delivery, _ in self.to_park]
        self.heap, self.to_park = [], []
        return taken

    def _remember(self, mark: int) -> None:
        self._parked[mark] = None
        if len(self._parked) > _REMEMBERED:
            self._parked.popitem(last=False)


def _fingerprint(message: Message) -> int:
    """Of the id and the time: the next attempt of a task bears the same id, but is another message."""
    return hash((message.id, message.eta))
