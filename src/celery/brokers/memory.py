"""Adapter. The broker `memory://`: queues within one process, shared by every app that names the same URL."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING

from celery.backends.memory import MemoryBackend
from celery.brokers.dead_letters import Overflow, cut, priority_of
from celery.brokers.memory_inspecting import MemoryInspection
from celery.brokers.memory_listening import MemoryListener, tell
from celery.brokers.queue_options import without_effect
from celery.drivers.memory import server_of
from celery.message import MalformedMessage, Message, mark_redelivered
from celery.ports import DeadLetter, Delivery, SystemClock
from celery.waits import read, wait_readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.drivers.memory import Item, Server
    from celery.outcome import Arrival, Record
    from celery.ports import (
        BrokerConfig,
        Clock,
        DeadLetterBounds,
        Firing,
        Full,
        Notice,
        Publication,
        ResultBackend,
        Settled,
    )
    from celery.routing import QueueSpec

__all__ = ["MemoryBroker", "MemoryConsumer", "MemoryDeadLetters"]


class MemoryBroker:
    """Moves messages between the threads of a process (`[broker.18]`).

    They are lost when the process ends, and a forked child begins with none: with it go the solo and thread pools.
    """

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self.server = server_of(config.url)
        self._clock = clock
        self.url_text = config.url if "://" in config.url else "memory://"
        self._bounds = config.dead_letters
        self.dead_letters = MemoryDeadLetters(self.server, self._bounds, clock)

    def publish(self, publications: Sequence[Publication]) -> None:
        with self.server.changed:
            dropped = self.server.publish(publications, self._clock.time())
        if dropped:
            self.server.unrouted.note(dropped)

    def consume(self, queues: Sequence[QueueSpec]) -> MemoryConsumer:
        without_effect(queues, self.url_text)
        return MemoryConsumer(self.server, queues, self._clock, self._bounds)

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        with self.server.changed:
            self.server.declare(queues)

    def purge(self, queue: str) -> int:
        with self.server.changed:
            return self.server.purge(queue)

    def depth(self, queue: str) -> int:
        """Messages waiting in the queue."""
        with self.server.changed:
            return self.server.depth(queue)

    @property
    def inspection(self) -> MemoryInspection:
        """See `Inspectable`."""
        return MemoryInspection(self.server)

    def tell(self, notices: Sequence[Notice]) -> int:
        """See `Broadcasting.tell`."""
        return tell(self.server, notices)

    def listen(self, mailboxes: Sequence[QueueSpec]) -> MemoryListener:
        """See `Broadcasting.listen`."""
        return MemoryListener(self.server, mailboxes)

    def close(self) -> None:
        """There is nothing to close: the messages stay for whoever names the URL next."""


class MemoryDeadLetters:
    """See `DeadLetters`."""

    def __init__(self, server: Server, bounds: DeadLetterBounds, clock: Clock) -> None:
        self._server = server
        self._bounds = bounds
        self._clock = clock

    def queues(self) -> list[str]:
        with self._server.changed:
            self._expire()
            return self._server.dead.queues()

    def counts(self) -> dict[str, int]:
        with self._server.changed:
            self._expire()
            return self._server.dead.counts()

    def newest(self, queue: str, limit: int, before: str = "") -> list[DeadLetter]:
        with self._server.changed:
            self._expire()
            return self._server.dead.newest(queue, limit, before)

    def find(self, ids: Sequence[str]) -> list[DeadLetter]:
        with self._server.changed:
            return self._server.dead.find(ids)

    def requeue(self, ids: Sequence[str]) -> int:
        with self._server.changed:
            letters = self._server.dead.take(ids)
            for letter in letters:
                self._server.put(letter.queue, letter.envelope, priority_of(letter.envelope), deaths=0)
        return len(letters)

    def discard(self, ids: Sequence[str]) -> int:
        with self._server.changed:
            return len(self._server.dead.take(ids))

    def _expire(self) -> None:
        self._server.dead.expire(self._clock.time() - self._bounds.age)


class MemoryConsumer:
    """Takes messages from queues of this process. Settles at once, so `flush` has nothing to do."""

    def __init__(self, server: Server, queues: Sequence[QueueSpec], clock: Clock, bounds: DeadLetterBounds) -> None:
        self._server = server
        self._bounds = bounds
        self._overflow = Overflow()
        self._clock = clock
        self._names = [queue.name for queue in queues]
        self._queues = {queue.name: queue for queue in queues}
        self._held: dict[int, Item] = {}
        self._tags = 0
        self._backend: MemoryBackend | None = None
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        self._open = True
        with server.changed:
            for queue in self._queues.values():
                server.attend(queue)
            server.consumers += 1
            server.holding.append(self._held)

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """See `Consumer.fetch`. Parked messages are due by the clock's `time`, the wait ends by its `monotonic`."""
        deadline = self._clock.monotonic() + timeout
        while True:
            with self._server.changed:
                items, due = self._server.take(self._names, limit, self._clock.time())
                remaining = deadline - self._clock.monotonic()
                if items or remaining <= 0:
                    break
                self._server.waiting.add(self._writable)
            wait = remaining if due is None else min(remaining, max(0.0, due - self._clock.time()))
            before = self._clock.monotonic()
            readable = self._wait(wait, until_readable)
            if readable - {self._readable}:
                return []
            if not readable and (wait == remaining or self._clock.monotonic() == before):
                deadline = before  # no further wait, also where a clock stands still, but a last look
        return [self._deliver(item) for item in items]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._held.pop(delivery.tag, None)

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        pairs = [(delivery, item) for delivery in deliveries if (item := self._held.pop(delivery.tag, None))]
        if pairs:
            with self._server.changed:
                if requeue:
                    self._server.give_back([_given_back(delivery, item) for delivery, item in pairs])
                else:
                    self._bury(pairs)

    def begun(self, deliveries: Sequence[Delivery]) -> None:
        """See `Blaming.begun`. The messages die with the process: there is nobody left to blame them."""

    def defer(self, deliveries: Sequence[tuple[Delivery, float]]) -> None:
        """See `Deferring.defer`."""
        items = [(due, item) for delivery, due in deliveries if (item := self._held.pop(delivery.tag, None))]
        with self._server.changed:
            self._server.park(items)

    def join(self, backend: ResultBackend) -> bool:
        """See `Joining.join`: true for a `MemoryBackend` of the same name."""
        self._backend = backend if isinstance(backend, MemoryBackend) and backend.server is self._server else None
        return self._backend is not None

    def settle(self, settled: Sequence[Settled]) -> Sequence[Full]:
        """See `Joining.settle`."""
        full: list[Full] = []
        dropped: list[Publication] = []
        with self._server.changed:
            for one in settled:
                item = self._held.pop(one.delivery.tag, None)
                if item is None and one.disposition != "done":
                    continue
                if item is not None and one.disposition == "requeue":
                    self._server.give_back([_given_back(one.delivery, item)])
                elif item is not None and one.disposition == "reject":
                    self._bury([(one.delivery, item)])
                if one.record is not None:
                    assert self._backend is not None, "settle with a record needs join first"
                    self._backend.put([one.record])
                if one.publications:
                    dropped += self._server.publish(one.publications, self._clock.time())
                if one.further is not None:
                    full += self._put_further(one.further.records, one.further.arrivals)
        if dropped:
            self._server.unrouted.note(dropped)
        return full

    def fire(self, firings: Sequence[Firing]) -> Sequence[Full]:
        """See `Joining.fire`."""
        full: list[Full] = []
        dropped: list[Publication] = []
        barriers = self._server.barriers
        with self._server.changed:
            for one in firings:
                if barriers.take(one.barrier):
                    dropped += self._server.publish(one.publications, self._clock.time())
                    barriers.fired(one.barrier, one.failed, self._clock.time())
                    full += self._put_further(one.records, one.arrivals)
        if dropped:
            self._server.unrouted.note(dropped)
        return full

    def _put_further(self, records: Sequence[Record], arrivals: Sequence[Arrival]) -> list[Full]:
        assert self._backend is not None, "settle with records or arrivals needs join first"
        if records:
            self._backend.put(records)
        return self._backend.barriers.put(arrivals)

    def others(self, *, ask: bool = False) -> int:
        """See `Accompanied.others`."""
        return self._server.consumers - 1

    def flush(self) -> None:
        """Everything was settled when it was asked for."""

    def add_queue(self, queue: QueueSpec) -> None:
        without_effect([queue], "memory://")
        with self._server.changed:
            if queue.name in self._queues:
                self._server.declare([queue])
            else:
                self._server.attend(queue)
                self._queues[queue.name] = queue
                self._names.append(queue.name)

    def cancel_queue(self, name: str) -> None:
        if name in self._names:
            self._names.remove(name)
            with self._server.changed:
                self._server.leave(self._queues.pop(name))

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with self._server.changed:
            self._server.consumers -= 1
            self._server.waiting.discard(self._writable)
            self._server.give_back(self._held.values())
            for queue in self._queues.values():
                self._server.leave(queue)
            self._server.holding = [held for held in self._server.holding if held is not self._held]
        self._held.clear()
        os.close(self._readable)
        os.close(self._writable)

    def _bury(self, pairs: Sequence[tuple[Delivery, Item]]) -> None:
        for delivery, item in pairs:
            reason, traceback = cut(delivery.error, delivery.traceback)
            deaths = max(item[4], 0) + delivery.died
            letter = DeadLetter("", item[2], item[3], reason, traceback, self._clock.time(), deaths)
            self._overflow.note(item[2], self._server.dead.bury(letter, self._bounds))

    def _deliver(self, item: Item) -> Delivery:
        _, _, queue, envelope, deaths = item
        self._tags += 1
        self._held[self._tags] = item
        try:
            message = Message.from_envelope(envelope if deaths < 0 else mark_redelivered(envelope, deaths))
        except MalformedMessage as exc:
            return Delivery(self._tags, queue, None, envelope, str(exc))
        return Delivery(self._tags, queue, message)

    def _wait(self, seconds: float, until_readable: Sequence[int]) -> set[int]:
        """Until there may be something to take (`_readable`), or a descriptor ends it; empty: the time is over."""
        descriptors = (self._readable, *until_readable)
        if hasattr(select, "poll"):  # as `wait_readable` does, a call less
            poll = select.poll()
            for fd in descriptors:
                poll.register(fd, select.POLLIN)
            readable = {fd for fd, _ in poll.poll(ceil(seconds * 1000))}
        else:
            readable = set(wait_readable(descriptors, seconds))
        with self._server.changed:
            self._server.waiting.discard(self._writable)
            with suppress(BlockingIOError):
                read(self._readable, 4096)
        return readable


def _given_back(delivery: Delivery, item: Item) -> Item:
    """The item with one death more, if it died."""
    priority, number, queue, envelope, deaths = item
    return (priority, number, queue, envelope, max(deaths, 0) + 1) if delivery.died else item
