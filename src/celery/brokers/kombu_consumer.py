"""Adapter. Taking messages from a broker of kombu's: what is fetched is held, unacknowledged, until it is settled."""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from celery.brokers.kombu_courier import Courier
from celery.brokers.kombu_messages import envelope_of, message_of
from celery.ports import Delivery
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import BrokerConfig
    from celery.routing import QueueSpec

__all__ = ["KombuConsumer"]

#: Seconds that a fetch which is not to wait gives the first look at the queues.
_FIRST_LOOK = 0.5


class KombuConsumer:
    """See `ports.Consumer`. Owned by one thread; its courier has another."""

    def __init__(self, config: BrokerConfig, queues: Sequence[QueueSpec]) -> None:
        """Connects. Raises `OperationalError`, `ImproperlyConfigured`."""
        self._pid = os.getpid()
        self._closed = False
        self._number = 0
        #: What is in our custody, by tag, in the order in which it came, as kombu has it.
        self._held: dict[tuple[int, int], tuple[Delivery, Any]] = {}
        self._lost: list[Delivery] = []
        self._courier = Courier(config, queues)
        self._abandoned = weakref.finalize(self, self._courier.abandon)
        try:
            self._courier.connect()
        except BaseException:
            self._courier.end([])
            raise

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """See `Consumer.fetch`. Raises `OperationalError`; the next call connects again."""
        courier = self._connected()
        if limit <= 0:
            wait_readable(until_readable, timeout)
            return []
        taken = self._taken(limit)
        if taken:
            return taken
        began = time.monotonic()
        asked = courier.want(limit)
        try:
            while not courier.inbox and courier.trouble is None:
                patience = timeout if courier.looked >= asked else max(timeout, _FIRST_LOOK)
                remaining = began + patience - time.monotonic()
                if remaining <= 0:
                    break
                ready = wait_readable((courier.readable, *until_readable), remaining)
                courier.drain()
                if any(descriptor != courier.readable for descriptor in ready):
                    break
        finally:
            courier.enough()
        self._check()
        return self._taken(limit)

    def _taken(self, limit: int) -> list[Delivery]:
        inbox = self._courier.inbox
        taken: list[Delivery] = []
        while inbox and len(taken) < limit:
            try:
                generation, queue, came = inbox.popleft()
            except IndexError:  # the connection has just been lost
                break
            self._courier.fetched += 1
            self._number += 1
            tag = generation, self._number
            try:
                delivery = Delivery(tag, queue, message_of(came))
            except ValueError as exc:
                error = f"expected the headers of a task message or a message envelope: {exc}"
                delivery = Delivery(tag, queue, None, envelope_of(came), error)
            self._held[tag] = delivery, came
            taken.append(delivery)
        return taken

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Consumer.ack`: done as soon as the courier is back from its look."""
        self._settle(deliveries, "ack")

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        """See `Consumer.reject`. What is not given back is dropped, unless the transport has a place for it."""
        self._settle(deliveries, "requeue" if requeue else "reject")

    def _settle(self, deliveries: Sequence[Delivery], how: str) -> None:
        self._find_lost()
        found = [held[1] for delivery in deliveries if (held := self._held.pop(delivery.tag, None)) is not None]
        if found:
            self._courier.settle(found, how)

    def flush(self) -> None:
        """See `Consumer.flush`. Raises `OperationalError`."""
        self._courier.do(lambda: None)
        self._check()

    def lost(self) -> list[Delivery]:
        """See `Fenced.lost`: what came over a connection that is gone."""
        self._find_lost()
        lost, self._lost = self._lost, []
        return lost

    def _find_lost(self) -> None:
        generation = self._courier.generation
        for tag in [tag for tag in self._held if tag[0] != generation]:
            delivery, _ = self._held.pop(tag)
            delivery.lost = True
            self._lost.append(delivery)

    def add_queue(self, queue: QueueSpec) -> None:
        """Declare a queue and take from it too. Raises `OperationalError`."""
        self._connected().add(queue)

    def cancel_queue(self, name: str) -> None:
        """Take from a queue no more."""
        self._courier.cancel(name)

    def _connected(self) -> Courier:
        if self._courier.trouble is not None:
            self._find_lost()
            self._courier.connect()
        return self._courier

    def _check(self) -> None:
        if self._courier.trouble is not None:
            self._find_lost()
            raise self._courier.trouble

    def close(self) -> None:
        """See `Consumer.close`. In a fork nothing is done: the connection is the parent's."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        self._abandoned.detach()
        self._find_lost()
        held = [came for _, came in self._held.values()]
        self._held.clear()
        self._courier.end(held)
