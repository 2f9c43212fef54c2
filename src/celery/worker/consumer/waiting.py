"""Flow. Deliveries that are not due yet."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from celery.ports import Deferring

if TYPE_CHECKING:
    from celery.ports import Consumer, Delivery

__all__ = ["WaitingRoom"]

#: What is due within this time is not worth a trip to the broker and back.
_SOON = 1.0
#: Ids of parked messages that are remembered, so that their coming back is not told as a second arrival.
_REMEMBERED = 10_000


class WaitingRoom:
    """Keeps deliveries until their time: parked in the broker where it can do that, else in memory.

    Also what waits in memory is still in this worker's custody at the broker, so it comes back after a kill.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._deferring = consumer if isinstance(consumer, Deferring) else None
        #: What waits in memory, the next one first: (wall-clock time, order, delivery).
        self.heap: list[tuple[float, int, Delivery]] = []
        self._order = count()
        self._parked: OrderedDict[str, None] = OrderedDict()
        #: What is still to be parked in the broker.
        self.to_park: list[tuple[Delivery, float]] = []

    def add(self, delivery: Delivery, until: float, now: float) -> bool:
        """Keep it until then (`[worker.28]`). True if it comes for the first time, as far as is remembered.

        What the broker gave back as due although it is not yet (its clock is ahead of ours) waits in memory: parking
        it again would only make it come again at once.
        """
        message = delivery.message
        known = message is not None and message.id in self._parked
        if self._deferring is not None and not known and until - now > _SOON:
            if message is not None:
                self._remember(message.id)
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

    def returned(self, task_id: str) -> bool:
        """Whether this one was parked by us before and is back now, due."""
        if task_id in self._parked:
            del self._parked[task_id]
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

    def _remember(self, task_id: str) -> None:
        self._parked[task_id] = None
        if len(self._parked) > _REMEMBERED:
            self._parked.popitem(last=False)
