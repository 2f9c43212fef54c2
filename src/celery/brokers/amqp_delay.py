"""Adapter. Parking messages on RabbitMQ, in the layout of Celery 5.5 and later (`[route.21]`).

There are 28 levels, each a queue in which a message stays for 2ⁿ seconds, and each behind a topic exchange. A message's
routing key begins with its delay in binary: where there is a 1 it goes through the level's queue, where there is a 0
past it. At the end it comes to an exchange to which we bind the queue itself, so that queues on direct exchanges,
Celery's default, have delays too. Real workers find their own layout.
"""

from __future__ import annotations

import math
import re
import weakref
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from celery.brokers.amqp_consumer import AmqpConsumer
from celery.brokers.amqp_leases import LEASE, Leases
from celery.brokers.amqp_methods import (
    await_confirms,
    exists,
    mark_deaths,
    packed_message,
    passive_queue,
    with_confirms,
)
from celery.drivers.amqp_frames import framed, method, short, table
from celery.ports import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.amqp import AmqpBroker
    from celery.drivers.amqp import Link
    from celery.message import Message
    from celery.ports import Delivery
    from celery.routing import QueueSpec

__all__ = ["NEEDED", "DelayingConsumer"]

#: What a server must grant.
NEEDED = frozenset({"publisher_confirms", "exchange_exchange_bindings"})
_LEVELS = 28
_DELIVERY = "celery_delayed_delivery"
#: A word that a binding takes as it is, with room for the delay before it.
_PLAIN = re.compile(r"[^*#]{1,190}\Z")


class DelayingConsumer(AmqpConsumer):
    """A consumer that parks. A parked message is nobody's: no consumer timeout hits it, and no worker's death.

    It keeps what is held for long in queues of ours (`Leases`)."""

    def __init__(
        self,
        broker: AmqpBroker,
        queues: Sequence[QueueSpec],
        link: Link,
        *,
        clock: Clock = SystemClock(),  # noqa: B008
    ) -> None:
        super().__init__(broker, queues, link, clock=clock)
        duration = float(broker.config.options.get("lease_timeout") or LEASE)
        self._leases = Leases(broker.endpoint, self.held, self._early, self._queues, duration)
        self._leases.link = link
        self._lock = self._leases.lock
        weakref.finalize(self, self._leases.stop)

    def defer(self, deliveries: Sequence[tuple[Delivery, float]]) -> None:
        """See `Deferring.defer`; to the next whole second, of at most 2²⁸ - 1.

        Published and confirmed, then acknowledged: whoever is killed in between leaves a second copy, but loses none.
        What is due takes its old place, which here means that it is marked as redelivered. When its time comes, a
        message is put at the end of its queue.
        """
        now = self._clock.time()
        if self._leases is not None:
            self._defer_moved(self._leases, deliveries)
        mine = [(delivery, due) for delivery, due in deliveries if delivery.tag in self.held]
        ready = [delivery for delivery, due in mine if due <= now or delivery.message is None]
        later = [(delivery, due) for delivery, due in mine if due > now and delivery.message is not None]
        if later:
            link = self._connected()
            if later[0][0].tag in self.held:  # or the connection that they came over is gone
                self._prepare(link)
                frames = [self._parked(link, d.queue, d.message, due) for d, due in later if d.message]
                link.send(b"".join(frames))
                await_confirms(link, len(frames))
                self.ack([delivery for delivery, _ in later])
        if ready:
            self.reject(ready, requeue=True)

    def _defer_moved(self, leases: Leases, deliveries: Sequence[tuple[Delivery, float]]) -> None:
        """What was held for long is given back instead: whoever takes it next parks it."""
        moved = leases.of([delivery for delivery, _ in deliveries])
        if moved:
            self.reject(moved, requeue=True)

    def _prepare(self, link: Link) -> None:
        if "delayed" not in link.declared:
            with_confirms(link)
            _declare_path(link)
            link.declared["delayed"] = None

    def _parked(self, link: Link, queue: str, message: Message, due: float) -> bytes:
        """The frames that park a message; first, once for each connection, the levels that it stops at are declared."""
        delay = min(max(math.ceil(due - self._clock.time()), 1), 2**_LEVELS - 1)
        for level in range(_LEVELS):
            if delay >> level & 1:
                _declare_level(link, level, self._broker.config.options.get("delayed_queue_type") or "quorum")
        word = queue if _PLAIN.match(queue) else sha256(queue.encode()).hexdigest()
        binding = f"delayed to {queue}"
        if binding not in link.declared:
            key = short("*." * _LEVELS + word)
            link.call(method(50, 20, b"\0\0" + short(queue) + short(_DELIVERY) + key + b"\0\0\0\0\0"), {(50, 21)})
            link.declared[binding] = None
        routing_key = ".".join(f"{delay:0{_LEVELS}b}") + f".{word}"
        head = method(60, 40, b"\0\0" + short(_exchange(_LEVELS - 1)) + short(routing_key) + b"\x01")
        properties = packed_message(message)
        if message.deaths:
            properties = mark_deaths(properties, message.deaths)
        return head + framed(properties, message.body, link.frame_max)


def _exchange(level: int) -> str:
    return f"celery_delayed_{level}" if level >= 0 else _DELIVERY


def _declare_path(link: Link) -> None:
    """The exchanges of all levels, in one round trip, and the way past each level's queue in another."""
    names = [_exchange(level) for level in range(-1, _LEVELS)]
    link.send(b"".join(method(40, 10, b"\0\0" + short(n) + short("topic") + b"\x02\0\0\0\0") for n in names))
    for _ in names:
        link.answer({(40, 11)})
    passing = [(_exchange(level), _exchange(level - 1), _key(level, "0")) for level in range(_LEVELS)]
    link.send(
        b"".join(
            method(40, 30, b"\0\0" + short(below) + short(above) + short(key) + b"\0\0\0\0\0")
            for above, below, key in passing
        )
    )
    for _ in passing:
        link.answer({(40, 31)})


def _declare_level(link: Link, level: int, kind: str) -> None:
    """The queue of a level; one that is there is taken as it is."""
    name = _exchange(level)
    if name in link.declared:
        return
    if exists(link, passive_queue(name, channel=2), (50, 11)) is None:
        arguments: dict[str, Any] = {
            "x-queue-type": kind,
            "x-message-ttl": 1000 << level,
            "x-dead-letter-exchange": _exchange(level - 1),
        }
        if kind == "quorum":  # from one level to the next nothing is lost either
            arguments |= {"x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once"}
        link.call(method(50, 10, b"\0\0" + short(name) + b"\x02" + table(arguments)), {(50, 11)})
    key = short(_key(level, "1"))
    link.call(method(50, 20, b"\0\0" + short(name) + short(name) + key + b"\0\0\0\0\0"), {(50, 21)})
    link.declared[name] = None


def _key(level: int, bit: str) -> str:
    return "*." * (_LEVELS - 1 - level) + bit + ".#"
