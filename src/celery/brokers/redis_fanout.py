"""Adapter. Tasks on fanout exchanges of Redis, in kombu's layout: they are published to a channel, and each worker that
hears one keeps his copy on a list of his own, in custody like any other message.

Who does not listen misses them, as with kombu. The lists go with the worker: he deletes them when he ends, and whoever
finds him dead does it for him.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celery.brokers.redis_ears import ChannelEar
from celery.drivers.redis_pool import run
from celery.message import MalformedMessage, Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.brokers.redis import RedisBroker
    from celery.brokers.redis_layout import Channels
    from celery.drivers.redis import Command, Endpoint, Link
    from celery.routing import QueueSpec

__all__ = ["FanoutEar", "FanoutQueues", "is_fanout"]

Copies = tuple["Sequence[str]", bytes]


def is_fanout(queue: QueueSpec) -> bool:
    """Whether a queue is bound to a fanout exchange."""
    return any(binding.exchange.type == "fanout" for binding in queue.bound)


class FanoutEar(ChannelEar[Copies]):
    """Hears messages, each with the names of the lists that are to have it."""

    def __init__(self, endpoint: Endpoint, channels: Channels, exchanges: Mapping[str, Sequence[str]]) -> None:
        self._names = {
            pattern.encode(): names for exchange, names in exchanges.items() for pattern in channels.all_of(exchange)
        }
        super().__init__(endpoint, [pattern.decode() for pattern in self._names], repeated=channels.several)

    def read(self, pattern: bytes, envelope: bytes) -> Copies | None:
        """See `ChannelEar.read`."""
        names = self._names.get(pattern)
        return (names, envelope) if names and self.is_new(envelope) else None


class FanoutQueues:
    """The fanout queues of one holder; false while there are none."""

    def __init__(self, broker: RedisBroker, holder: str) -> None:
        self._broker = broker
        self._layout = broker.layout
        self._holder = holder
        #: By the names under which their copies are kept.
        self._queues: dict[str, QueueSpec] = {}
        self._ear: FanoutEar | None = None

    def __bool__(self) -> bool:
        return self._ear is not None

    def add(self, queue: QueueSpec) -> str:
        """Listen for it too; returns the name under which its copies are kept."""
        name = self._layout.heard_by(self._holder, queue.name)
        self._queues[name] = queue
        # Written down first, for whoever finds us dead.
        self._broker.run([("SADD", self._layout.transient + self._holder, *self._things(name, queue))])
        self._listen()
        return name

    def remove(self, queue: str) -> str:
        """Listen for it no more, if we do; returns the name under which copies were kept."""
        name = self._layout.heard_by(self._holder, queue)
        if name in self._queues:
            self._broker.run(self._forgetting(name, self._queues.pop(name)))
            self._listen()
        return name

    def keep(self, link: Link) -> bool:
        """Put what was told by now on lists of our own, where it is in custody; whether there was anything. Raises
        `OperationalError`."""
        assert self._ear is not None
        heard = self._ear.collect()
        commands: list[Command] = [
            ("LPUSH", self._layout.list_of(name, _priority(envelope)), envelope)
            for names, envelope in heard
            for name in names
        ]
        if commands:
            run(link, commands)
        return bool(commands)

    def watch(self) -> tuple[int, float]:
        """A descriptor that becomes readable when something comes, and for how many seconds it may be waited for.
        Raises `OperationalError`."""
        assert self._ear is not None
        patience = self._ear.keep(time.monotonic())
        return self._ear.fileno(), patience

    def ending(self) -> list[Command]:
        """What takes everything away that goes with us."""
        commands = [command for one in self._queues.items() for command in self._forgetting(*one)]
        return [*commands, ("DEL", self._layout.transient + self._holder)] if commands else []

    def close(self) -> None:
        """Listen no more."""
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _listen(self) -> None:
        self.close()
        exchanges: dict[str, list[str]] = {}
        for name, queue in self._queues.items():
            for exchange in {b.exchange.name for b in queue.bound if b.exchange.type == "fanout"}:
                exchanges.setdefault(exchange, []).append(name)
        if exchanges:
            self._ear = FanoutEar(self._broker.endpoint, self._broker.channels, exchanges)

    def _things(self, name: str, queue: QueueSpec) -> list[str]:
        """Lists; and, where the queue goes with its consumer, its own, and its bindings: set and member."""
        separator = 2 * self._layout.separator
        if not queue.auto_delete:
            return self._layout.lists(name)
        bound = [key + separator + member for key, member in self._layout.bound(queue)]
        return [*self._layout.lists(name), *self._layout.lists(queue.name), *bound]

    def _forgetting(self, name: str, queue: QueueSpec) -> list[Command]:
        if not queue.auto_delete:
            return [("DEL", *self._layout.lists(name))]
        lists = [*self._layout.lists(name), *self._layout.lists(queue.name)]
        return [("DEL", *lists), *(("SREM", key, member) for key, member in self._layout.bound(queue))]


def _priority(envelope: bytes) -> int:
    try:
        return Message.from_envelope(envelope).priority
    except MalformedMessage:
        return 0  # its consumer tells of it
