"""Adapter. What brokers and backends of one `memory://` name share: queues, bindings and records of one process."""

from __future__ import annotations

import os
import threading
from collections import Counter
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from celery.brokers.bindings import Bindings
from celery.brokers.queue_options import Unrouted
from celery.drivers.memory_barriers import MemoryBarriers
from celery.drivers.memory_dead import Cemetery
from celery.states import READY_STATES, SUCCESS
from celery.waits import write

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Sequence

    from celery.brokers.memory_listening import MemoryListener
    from celery.outcome import Record
    from celery.ports import Publication
    from celery.routing import QueueSpec

__all__ = ["Item", "Server", "marks", "server_of"]

#: A message on its queue: (priority, number, queue, envelope, deaths); the number is its place among equals, the deaths
#: are -1 where nobody has held it yet.
Item: TypeAlias = tuple[int, int, str, bytes, int]


class Server:
    """Queues and records. Every method expects that the caller holds the lock: `with server.changed`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Begin with nothing (also the lock: in a fork, another thread of the parent may have had it)."""
        #: The lock of everything here; notified when a record is saved.
        self.changed = threading.Condition(threading.Lock())
        #: Descriptors of the consumers that wait: a byte to each when there may be something to take.
        self.waiting: set[int] = set()
        #: How many consumers are open.
        self.consumers = 0
        #: What each of them holds, by its tags.
        self.holding: list[dict[int, Item]] = []
        self._queues: dict[str, list[Item]] = {}
        self._bindings = Bindings()
        #: To be told without the lock: a handler of log records may publish.
        self.unrouted = Unrouted()
        #: How many take from a queue that goes with the last of them.
        self._users: Counter[str] = Counter()
        self._parked: list[tuple[float, Item]] = []
        self._number = 0
        #: id → (state, document, wall-clock time of expiry)
        self._records: dict[str, tuple[str, bytes, float]] = {}
        self.dead = Cemetery()
        self.barriers = MemoryBarriers()
        #: id → where those who watch it gather (state, document) of each record.
        self.listeners: dict[str, list[deque[tuple[str, bytes]]]] = {}
        #: Those who hear notices.
        self.notice_listeners: list[MemoryListener] = []

    # ----------------------------------------------------------------------------------------------------- messages

    def declare(self, queues: Iterable[QueueSpec]) -> None:
        """Bind queues to their exchanges; on the default exchange a queue needs nothing."""
        for queue in queues:
            if not queue.no_declare:
                for binding in queue.bound:
                    self._bindings.bind(binding, queue.name)

    def attend(self, queue: QueueSpec) -> None:
        """Somebody takes from a queue, which is bound now."""
        self.declare([queue])
        if queue.auto_delete:
            self._users[queue.name] += 1

    def leave(self, queue: QueueSpec) -> None:
        """He does no more: one that is deleted with its last consumer goes, and what lies in it."""
        if queue.auto_delete:
            self._users[queue.name] -= 1
            if self._users[queue.name] <= 0:
                del self._users[queue.name]
                self._bindings.unbind(queue.name)
                self._queues.pop(queue.name, None)
                self._parked = [one for one in self._parked if one[1][2] != queue.name]
                heapify(self._parked)

    def publish(self, publications: Sequence[Publication], now: float) -> list[Publication]:
        """Put messages on their queues, in order, and wake those who wait. Returns those that reached none."""
        dropped: list[Publication] = []
        mark = f"@{now:.3f}"  # read by `brokers.inspecting.sent_at`
        for publication in publications:
            message, route = publication.message, publication.route
            names: Sequence[str] = (route.routing_key,)
            if route.exchange:
                if route.queue is not None and route.queue.declare:
                    self.declare([route.queue])
                names = self._bindings.queues(route.exchange, route.routing_key, message.headers)
                if not names:
                    dropped.append(publication)
            for name in names:
                self._number += 1
                envelope = message.to_envelope(f"{message.id}.{message.retries}{mark}")
                item = (message.priority, self._number, name, envelope, -1)
                heappush(self._queues.setdefault(name, []), item)
        if self.waiting:
            self.wake()
        return dropped

    def put(self, queue: str, envelope: bytes, priority: int = 0, *, deaths: int = -1) -> None:
        """Put bytes on a queue, whatever they are."""
        self._number += 1
        heappush(self._queues.setdefault(queue, []), (priority, self._number, queue, envelope, deaths))
        self.wake()

    def take(self, names: list[str], limit: int, now: float) -> tuple[list[Item], float | None]:
        """Up to `limit` items, in turn from each queue, and when the next parked one is due.

        `names` is turned so that the next call begins where this one ended.
        """
        items = self._take_due(names, limit, now) if self._parked else []
        empty = 0
        while len(items) < limit and empty < len(names):
            name = names.pop(0)
            names.append(name)
            waiting = self._queues.get(name)
            if waiting:
                items.append(heappop(waiting))
                empty = 0
            else:
                empty += 1
        return items, self._parked[0][0] if self._parked else None

    def _take_due(self, names: list[str], limit: int, now: float) -> list[Item]:
        """Parked items whose time has come, the earliest first, but none before a more urgent one of its queue. Those
        of other queues join them as if they came now."""
        items: list[Item] = []
        parked = self._parked
        while parked and parked[0][0] <= now and len(items) < limit:
            priority, _, queue, envelope, redelivered = item = heappop(parked)[1]
            waiting = self._queues.setdefault(queue, [])
            if queue not in names:
                self._number += 1
                heappush(waiting, (priority, self._number, queue, envelope, redelivered))
            elif waiting and waiting[0][0] < priority:
                heappush(waiting, item)
            else:
                items.append(item)
        return items

    def give_back(self, items: Iterable[Item]) -> None:
        """Items take their old places, marked redelivered."""
        for priority, number, queue, envelope, deaths in items:
            item = (priority, number, queue, envelope, max(deaths, 0))
            heappush(self._queues.setdefault(queue, []), item)
        self.wake()

    def park(self, items: Iterable[tuple[float, Item]]) -> None:
        """Keep items away from their queues until their wall-clock times; with a time of 0 each takes its old place."""
        for due, item in items:
            if due > 0:
                heappush(self._parked, (due, item))
            else:
                heappush(self._queues.setdefault(item[2], []), item)
        self.wake()

    def depth(self, queue: str) -> int:
        return len(self._queues.get(queue, ()))

    def purge(self, queue: str) -> int:
        return len(self._queues.pop(queue, ()))

    def wake(self) -> None:
        """Let those who wait look again."""
        for fd in self.waiting:
            write(fd, b"\0")
        self.waiting.clear()

    def census(self) -> tuple[dict[str, list[Item]], Counter[str], Counter[str]]:
        """What waits, by queue, and how many messages of each queue are held and parked."""
        held = Counter(item[2] for items in self.holding for item in list(items.values()))
        waiting = {queue: list(items) for queue, items in self._queues.items()}
        return waiting, held, Counter(item[2] for _, item in self._parked)

    def parked(self) -> list[tuple[float, Item]]:
        """What is parked, with its due time."""
        return list(self._parked)

    def unpark(self, numbers: set[int]) -> list[int]:
        """Drop what is parked under these numbers; returns those that were."""
        dropped = [one[1][1] for one in self._parked if one[1][1] in numbers]
        self._parked = [one for one in self._parked if one[1][1] not in numbers]
        heapify(self._parked)
        return dropped

    @property
    def mark(self) -> int:
        """What `drop_since` counts from."""
        return self._number

    def drop_since(self, mark: int) -> None:
        """Drop every message that was put here after the mark and that nobody holds."""
        for queue, items in self._queues.items():
            kept = [item for item in items if item[1] <= mark]
            heapify(kept)
            self._queues[queue] = kept
        self._parked = [one for one in self._parked if one[1][1] <= mark]
        heapify(self._parked)

    # ------------------------------------------------------------------------------------------------------ records

    def save(self, records: Iterable[Record], now: float, expires: float) -> None:
        """Keep records, newest last; SUCCESS is final. `expires`: wall-clock time; infinity: never."""
        kept = self._records
        for record in records:
            before = kept.pop(record.id, None)
            if before is not None and before[0] == SUCCESS and before[2] > now:
                kept[record.id] = before
            else:
                kept[record.id] = (record.state, record.meta, expires)
                for told in self.listeners.get(record.id, ()) if self.listeners else ():
                    told.append((record.state, record.meta))
        self.changed.notify_all()

    def load(self, id: str, now: float) -> bytes | None:
        kept = self._records.get(id)
        return kept[1] if kept is not None and kept[2] > now else None

    def ready(self, ids: Iterable[str], now: float) -> dict[str, bytes]:
        """The documents of those that are in a ready state."""
        found = {}
        for id in ids:
            kept = self._records.get(id)
            if kept is not None and kept[0] in READY_STATES and kept[2] > now:
                found[id] = kept[1]
        return found

    def deafen(self, id: str, told: deque[tuple[str, bytes]]) -> None:
        """Tell this listener no more."""
        others = [one for one in self.listeners.pop(id, ()) if one is not told]
        if others:
            self.listeners[id] = others

    def forget(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._records.pop(id, None)

    def drop_expired(self, now: float) -> None:
        """Drop barriers, groups and records that have expired; records oldest first, up to the first that has not."""
        self.barriers.drop_expired(now)
        while self._records:
            oldest = next(iter(self._records))
            if self._records[oldest][2] > now:
                return
            del self._records[oldest]


_servers: dict[str, Server] = {}
_servers_lock = threading.Lock()


def server_of(url: str) -> Server:
    """The server of a `memory://name` URL; everybody in this process who names it gets the same."""
    parts = urlsplit(url)
    name = (parts.netloc + parts.path).strip("/")
    with _servers_lock:
        if name not in _servers:
            _servers[name] = Server(name)
        return _servers[name]


def marks() -> dict[str, int]:
    """The mark of each server of this process, by its name."""
    with _servers_lock:
        return {name: server.mark for name, server in _servers.items()}


def _empty_servers() -> None:
    """A fork begins with empty servers: what its parent will run must not be run twice."""
    global _servers_lock  # one that another thread held at the fork would stay locked for ever
    _servers_lock = threading.Lock()
    for server in _servers.values():
        server.reset()


os.register_at_fork(after_in_child=_empty_servers)
