"""Adapter. A flow of messages over AMQP: subscriptions that last as long as there is much to do.

While a worker has room for many messages and there are many, it does not ask for each: the queues send as many as it
has room for, and one more for each that is acknowledged, so that server, worker and children work at the same time.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from celery.drivers.amqp_frames import method, short, table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from celery.drivers.amqp import Link
    from celery.routing import QueueSpec

__all__ = ["Flow", "consume", "is_pushed", "is_standing", "prefetch"]

#: The largest prefetch count of the protocol.
_WIDEST = 0xFFFF
#: Seconds for which the shares of the queues stay as they were when it was opened.
_SHARES_HOLD = 0.5
#: Subscriptions of so many turns are remembered after their end, for what may still be on its way.
_REMEMBERED = 3


def prefetch(n: int) -> bytes:
    """From now on subscriptions get so many messages at a time; it is answered."""
    return method(60, 10, b"\0\0\0\0" + n.to_bytes(2, "big") + b"\0")


def consume(queue: QueueSpec, tag: str) -> bytes:
    """Subscribe; no answer wanted."""
    return method(60, 20, b"\0\0" + short(queue.name) + short(tag) + b"\x08" + table(queue.consumer_arguments))


def is_standing(queue: QueueSpec) -> bool:
    """Whether a subscription is to last: the queue goes with its last one, or the server is to know of consumers."""
    return queue.auto_delete or is_pushed(queue)


def is_pushed(queue: QueueSpec) -> bool:
    """Whether its messages come by subscription alone: the server chooses who gets them."""
    arguments = queue.arguments
    return bool(queue.consumer_arguments) or bool(
        arguments.get("x-single-active-consumer") or arguments.get("x-queue-type") == "stream"
    )


class Flow:
    """The subscriptions of one consumer over one connection: none at first, and when there is little to do."""

    def __init__(self) -> None:
        #: Messages that may be with us unacknowledged at a time; 0: it is closed.
        self.width = 0
        #: Queues that had nothing when it was opened: they may send one at a time.
        self._quiet: set[str] = set()
        self._quiet_have_sent = False
        self._opened_at = 0.0
        self._serial = count()
        #: Queue by subscription, those that have ended among them: their last messages may be on their way.
        self._queues: dict[str, QueueSpec] = {}
        self._tags: set[str] = set()
        #: Subscriptions by the times that it was closed, the last few.
        self._ended: deque[set[str]] = deque()
        #: The number of the first message that came by these subscriptions; None: none has.
        self._first: int | None = None
        self._unsettled = 0

    def open(self, link: Link, width: int, busy: Collection[str], queues: Sequence[QueueSpec]) -> None:
        """Subscribe to so many messages of the busy queues, in equal shares, and to one of each of the others."""
        quiet = [queue for queue in queues if queue.name not in busy]
        self._quiet = {queue.name for queue in quiet}
        self._opened_at = time.monotonic()
        shares = self._shares(width, [queue for queue in queues if queue.name in busy])
        self._subscribe(link, [(queue, 1) for queue in quiet] + shares)

    def widen(self, link: Link, room: int) -> None:
        """Let so many more come, but for those that may come already."""
        busy = [self._queues[tag] for tag in self._tags if self._queues[tag].name not in self._quiet]
        self._subscribe(
            link, self._shares(self._unsettled + room - self.width, list({q.name: q for q in busy}.values()))
        )

    def _shares(self, width: int, busy: Sequence[QueueSpec]) -> list[tuple[QueueSpec, int]]:
        share, rest = divmod(width, len(busy))
        return [(queue, n) for place, queue in enumerate(busy) if (n := min(share + (place < rest), _WIDEST))]

    def _subscribe(self, link: Link, shares: Sequence[tuple[QueueSpec, int]]) -> None:
        frames = []
        for queue, n in shares:
            tag = f"f{next(self._serial)}"
            frames.append(prefetch(n) + consume(queue, tag))
            self._tags.add(tag)
            self._queues[tag] = queue
            self.width += n
        link.send(b"".join(frames))
        for _ in frames:
            link.answer({(60, 11)})

    def close(self, link: Link) -> None:
        """End the subscriptions. What is on its way still comes."""
        if self.width:
            link.send(b"".join(method(60, 30, short(tag) + b"\x01") for tag in self._tags))
            self._ended.append(self._tags)
            if len(self._ended) > _REMEMBERED:
                for tag in self._ended.popleft():
                    del self._queues[tag]
            self._tags = set()
            self.width, self._quiet_have_sent, self._first, self._unsettled = 0, False, None, 0

    def came(self, tag: str, number: int) -> str:
        """A message has come; returns the name of its queue."""
        name = self._queues[tag].name
        if tag in self._tags:
            self._unsettled += 1
            if self._first is None:
                self._first = number
            self._quiet_have_sent = self._quiet_have_sent or name in self._quiet
        return name

    def settled(self, numbers: Sequence[int]) -> None:
        """These are with us no more; in order."""
        if self._first is not None:
            self._unsettled -= len(numbers) - bisect_left(numbers, self._first)

    def is_narrow(self, room: int) -> bool:
        """Whether there is room for many more than it lets come."""
        return 2 * (self._unsettled + room) > 3 * self.width

    @property
    def is_unfair(self) -> bool:
        """Whether a queue has long had less than its share, because it had nothing when this was opened."""
        return self._quiet_have_sent and time.monotonic() - self._opened_at > _SHARES_HOLD
