"""Adapter. The broker `memory://`: queues within one process, shared by every app that names the same URL."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING

from celery.backends.memory import MemoryBackend
from celery.drivers.memory import server_of
from celery.message import MalformedMessage, Message, mark_redelivered
from celery.ports import Delivery, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.drivers.memory import Item, Server
    from celery.ports import BrokerConfig, Clock, Publication, ResultBackend, Settled
    from celery.routing import QueueSpec

__all__ = ["MemoryBroker", "MemoryConsumer"]


class MemoryBroker:
    """Moves messages between the threads of a process (`[broker.18]`).

    They are lost when the process ends, and a forked child begins with none: with it go the solo and thread pools.
    """

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self._url = config.url
        self._clock = clock
        self.url_text = config.url if "://" in config.url else "memory://"

    @property
    def server(self) -> Server:
        """Looked up each time: a fork has one of its own."""
        return server_of(self._url)

    def publish(self, publications: Sequence[Publication]) -> None:
        server = self.server
        with server.changed:
            server.publish(publications)

    def consume(self, queues: Sequence[QueueSpec]) -> MemoryConsumer:
        return MemoryConsumer(self.server, queues, self._clock)

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        server = self.server
        with server.changed:
            server.declare(queues)

    def purge(self, queue: str) -> int:
        server = self.server
        with server.changed:
            return server.purge(queue)

    def depth(self, queue: str) -> int:
        """Messages waiting in the queue."""
        server = self.server
        with server.changed:
            return server.depth(queue)

    def close(self) -> None:
        """There is nothing to close: the messages stay for whoever names the URL next."""


class MemoryConsumer:
    """Takes messages from queues of this process. Settles at once, so `flush` has nothing to do."""

    def __init__(self, server: Server, queues: Sequence[QueueSpec], clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._names: list[str] = []
        self._held: dict[int, Item] = {}
        self._tags = 0
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)
        self._open = True
        with server.changed:
            server.wakers.add(self._wake)
        for queue in queues:
            self.add_queue(queue)

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """See `Consumer.fetch`. Parked messages are due by the clock's `time`, the wait ends by its `monotonic`."""
        deadline = self._clock.monotonic() + timeout
        while True:
            self._drain()
            taken, due = self._take(limit)
            remaining = deadline - self._clock.monotonic()
            if taken or remaining <= 0:
                return taken
            wait = remaining if due is None else min(remaining, max(0.0, due - self._clock.time()))
            readable = self._wait(wait, until_readable)
            if readable and readable != {self._readable}:
                return []
            if not readable and wait == remaining:
                return self._take(limit)[0]

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._let_go(delivery)

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        items = [item for delivery in deliveries if (item := self._let_go(delivery))]
        if requeue and items:
            self._give_back(items)

    def defer(self, deliveries: Sequence[tuple[Delivery, float]]) -> None:
        """See `Deferring.defer`."""
        with self._server.changed:
            for delivery, due in deliveries:
                if item := self._let_go(delivery):
                    self._server.park(item, due)
            self._server.wake()

    def join(self, backend: ResultBackend) -> bool:
        """See `Joining.join`: true for a `MemoryBackend` of the same name."""
        self._backend = backend if isinstance(backend, MemoryBackend) and backend.server is self._server else None
        return self._backend is not None

    def settle(self, settled: Sequence[Settled]) -> None:
        """See `Joining.settle`."""
        with self._server.changed:
            for one in settled:
                self._settle(one)
            self._server.wake()

    def flush(self) -> None:
        """Everything was settled when it was asked for."""

    def add_queue(self, queue: QueueSpec) -> None:
        with self._server.changed:
            self._server.declare([queue])
        if queue.name not in self._names:
            self._names.append(queue.name)

    def cancel_queue(self, name: str) -> None:
        if name in self._names:
            self._names.remove(name)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with self._server.changed:
            self._server.wakers.discard(self._wake)
        self._give_back(list(self._held.values()))
        self._held.clear()
        os.close(self._readable)
        os.close(self._writable)

    def _take(self, limit: int) -> tuple[list[Delivery], float | None]:
        """Up to `limit` messages, and when the next parked one is due."""
        items: list[Item] = []
        with self._server.changed:
            due = self._server.release_due(self._clock.time())
            empty = 0
            while len(items) < limit and empty < len(self._names):
                name = self._names.pop(0)
                self._names.append(name)
                item = self._server.take(name)
                if item is None:
                    empty += 1
                else:
                    empty = 0
                    items.append(item)
        return [self._deliver(item) for item in items], due

    def _deliver(self, item: Item) -> Delivery:
        self._tags += 1
        self._held[self._tags] = item
        try:
            message = Message.from_envelope(mark_redelivered(item.envelope) if item.redelivered else item.envelope)
        except MalformedMessage as exc:
            return Delivery(self._tags, item.queue, None, item.envelope, str(exc))
        return Delivery(self._tags, item.queue, message)

    def _settle(self, one: Settled) -> None:
        """The lock is held."""
        item = self._let_go(one.delivery)
        if item is None and one.disposition != "done":
            return
        if item is not None and one.disposition == "requeue":
            item.redelivered = True
            self._server.give_back(item)
        if one.record is not None:
            assert self._backend is not None, "settle with a record needs join first"
            self._backend.put([one.record])
        self._server.publish(one.publications)

    def _let_go(self, delivery: Delivery) -> Item | None:
        return self._held.pop(delivery.tag, None)

    def _give_back(self, items: Sequence[Item]) -> None:
        with self._server.changed:
            for item in items:
                item.redelivered = True
                self._server.give_back(item)
            self._server.wake()

    def _wait(self, seconds: float, until_readable: Sequence[int]) -> set[int]:
        poll = select.poll()
        poll.register(self._readable, select.POLLIN)
        for fd in until_readable:
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll(ceil(seconds * 1000))}

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full: it wakes anyway
            os.write(self._writable, b"\0")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._readable, 65536)
