"""Adapter. What brokers and backends of one `memory://` name share: queues, bindings and records of one process."""

from __future__ import annotations

import itertools
import os
import threading
from heapq import heappop, heappush
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from celery.brokers.bindings import Bindings
from celery.states import READY_STATES, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery.outcome import Record
    from celery.ports import Publication
    from celery.routing import QueueSpec

__all__ = ["Item", "Server", "server_of"]


class Item(Struct, order=True):
    """A message on its queue; compares by what comes first: `number` is unique, so nothing after it is compared."""

    priority: int
    number: int
    queue: str
    envelope: bytes
    redelivered: bool = False


class _Kept(Struct):
    state: str
    meta: bytes
    expires: float


class Server:
    """Queues and records. Every method that begins with "the lock is held" expects `with server.changed`."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: The lock of everything here; notified when a record is saved.
        self.changed = threading.Condition(threading.Lock())
        #: Called, with the lock held, when there may be something new to take.
        self.wakers: set[Callable[[], None]] = set()
        self._queues: dict[str, list[Item]] = {}
        self._bindings = Bindings()
        self._parked: list[tuple[float, Item]] = []
        self._numbers = itertools.count()
        self._records: dict[str, _Kept] = {}

    # ----------------------------------------------------------------------------------------------------- messages

    def declare(self, queues: Iterable[QueueSpec]) -> None:
        """The lock is held."""
        for queue in queues:
            self._queues.setdefault(queue.name, [])
            if queue.exchange:
                self._bindings.bind(queue.exchange, queue.exchange_type, queue.routing_key, queue.name)

    def publish(self, publications: Sequence[Publication]) -> None:
        """The lock is held."""
        for publication in publications:
            message, route = publication.message, publication.route
            if route.queue is not None and route.queue.declare and route.queue.name not in self._queues:
                self.declare([route.queue])
            exchange = route.exchange
            names = self._bindings.queues(exchange, route.routing_key) if exchange else (route.routing_key,)
            for queue in names:
                self.put(queue, message.to_envelope(), message.priority)
        self.wake()

    def put(self, queue: str, envelope: bytes, priority: int = 0) -> None:
        """The lock is held."""
        self.give_back(Item(priority, next(self._numbers), queue, envelope))

    def give_back(self, item: Item) -> None:
        """The lock is held. The item gets its old place."""
        heappush(self._queues.setdefault(item.queue, []), item)

    def take(self, queue: str) -> Item | None:
        """The lock is held."""
        waiting = self._queues.get(queue)
        return heappop(waiting) if waiting else None

    def park(self, item: Item, due: float) -> None:
        """The lock is held."""
        heappush(self._parked, (due, item))

    def release_due(self, now: float) -> float | None:
        """The lock is held. Parked items that are due take their old places; returns when the next one is due."""
        while self._parked and self._parked[0][0] <= now:
            self.give_back(heappop(self._parked)[1])
        return self._parked[0][0] if self._parked else None

    def depth(self, queue: str) -> int:
        """The lock is held."""
        return len(self._queues.get(queue, ()))

    def purge(self, queue: str) -> int:
        """The lock is held."""
        dropped = self.depth(queue)
        if dropped:
            self._queues[queue] = []
        return dropped

    def wake(self) -> None:
        """The lock is held."""
        for waker in self.wakers:
            waker()

    # ------------------------------------------------------------------------------------------------------ records

    def save(self, records: Iterable[Record], now: float, expires: float) -> None:
        """The lock is held. `expires`: wall-clock time; infinity: never."""
        kept = self._records
        for record in records:
            before = kept.pop(record.id, None)
            if before is not None and before.state == SUCCESS and before.expires > now:
                kept[record.id] = before
            else:
                kept[record.id] = _Kept(record.state, record.meta, expires)
        self.changed.notify_all()

    def load(self, id: str, now: float) -> bytes | None:
        """The lock is held."""
        kept = self._records.get(id)
        return kept.meta if kept is not None and kept.expires > now else None

    def ready(self, ids: Iterable[str], now: float) -> dict[str, bytes]:
        """The lock is held."""
        found = {}
        for id in ids:
            kept = self._records.get(id)
            if kept is not None and kept.state in READY_STATES and kept.expires > now:
                found[id] = kept.meta
        return found

    def forget(self, ids: Iterable[str]) -> None:
        """The lock is held."""
        for id in ids:
            self._records.pop(id, None)

    def drop_expired(self, now: float) -> None:
        """The lock is held. Drops records that have expired, oldest first, up to the first that has not."""
        while self._records:
            oldest = next(iter(self._records))
            if self._records[oldest].expires > now:
                return
            del self._records[oldest]


_servers: dict[str, Server] = {}
#: The same, by each URL that named one.
_by_url: dict[str, Server] = {}
_servers_lock = threading.Lock()


def server_of(url: str) -> Server:
    """The server of a `memory://name` URL; everybody in this process who names it gets the same."""
    known = _by_url.get(url)
    if known is not None:
        return known
    parts = urlsplit(url)
    name = (parts.netloc + parts.path).strip("/")
    with _servers_lock:
        server = _by_url[url] = _servers.setdefault(name, Server(name))
    return server


def _forget_servers() -> None:
    """A fork begins with empty servers: what its parent will run must not be run twice."""
    global _servers_lock  # one that another thread held at the fork would stay locked for ever
    _servers_lock = threading.Lock()
    _servers.clear()
    _by_url.clear()


os.register_at_fork(after_in_child=_forget_servers)
