"""Flow. Deliveries that are not due yet."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from celery.ports import Deferring
from celery.worker.admission import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.message import Message
    from celery.ports import Consumer, Delivery

__all__ = ["WaitingRoom"]

#: Parked messages that are remembered, so that their coming back is not told as a second arrival: 1 MB at most.
_REMEMBERED = 10_000
#: Messages that are taken at once at most where all that comes is only to be parked.
_MOST_PARKED = 500


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
        #: Whether a message could only be parked although it is due: it is held back by something else.
        self.held_back: Callable[[Message], bool] = lambda message: False
        #: So many may be taken at once, although not so many can run: all that came lately was only to be parked.
        self.pace = 0

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

    def within(self, deliveries: Sequence[Delivery], room: int, now: float) -> list[Delivery]:
        """Those that are to be received, where more came than there is `room` for: what is to be parked, and so many
        of the rest.

        What can run and finds no room goes back to its place on the queue with the next `park`: it never waits here
        while another worker idles.
        """
        self.pace = 0
        taken: list[Delivery] = []
        for delivery in deliveries:
            message = delivery.message
            if message is not None and (_is_later(message, now) or self.held_back(message)):
                taken.append(delivery)
            elif room > 0:
                room -= 1
                taken.append(delivery)
            else:
                self.put_off(delivery, 0.0)
        return taken

    def park(self, asked: int = 0) -> None:
        """Park what is to be parked. Raises `OperationalError`; what was not parked is parked by the next call.

        `asked`: so many were asked for when these came. If that was all of them, twice as many may be next time.
        """
        if self.to_park:
            assert self._deferring is not None
            parked = len(self.to_park)
            self._deferring.defer(self.to_park)
            self.to_park = []
            self.pace = min(2 * asked, _MOST_PARKED) if parked == asked else 0

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

    def forget_lost(self) -> None:
        """Drop those that others have taken over."""
        self.heap = [entry for entry in self.heap if not entry[2].lost]
        heapify(self.heap)
        self.to_park = [entry for entry in self.to_park if not entry[0].lost]

    def clear(self) -> list[Delivery]:
        """Take out all that are in memory, to be given back."""
        taken = [delivery for _, _, delivery in self.heap] + [delivery for delivery, _ in self.to_park]
        self.heap, self.to_park = [], []
        return taken

    def _remember(self, mark: int) -> None:
        self._parked[mark] = None
        if len(self._parked) > _REMEMBERED:
            self._parked.popitem(last=False)


def _is_later(message: Message, now: float) -> bool:
    try:
        return message.eta is not None and moment(message.eta) > now
    except (ValueError, OverflowError):
        return False


def _fingerprint(message: Message) -> int:
    """Of the id and the time: the next attempt of a task bears the same id, but is another message."""
    return hash((message.id, message.eta))
