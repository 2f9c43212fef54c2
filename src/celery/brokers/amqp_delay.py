"""Adapter. Parking messages on RabbitMQ, in the layout of Celery 5.5 and later (`[route.21]`).

At the end of its way (`amqp_levels`) a message comes to an exchange to which we bind the queue itself: queues on direct
exchanges, Celery's default, have delays too. Real workers find their own layout.
"""

from __future__ import annotations

import logging
import math
import re
import weakref
from hashlib import sha256
from typing import TYPE_CHECKING

from celery.brokers.amqp_consumer import AmqpConsumer
from celery.brokers.amqp_leases import LEASE, Leases
from celery.brokers.amqp_levels import (
    DELIVERY,
    ENTRANCE,
    LEVELS,
    LONGEST,
    bind_delays,
    declare_levels,
    declare_path,
    delayed_key,
    is_quorum,
)
from celery.brokers.amqp_methods import await_confirms, mark_deaths, packed_message, with_confirms
from celery.drivers.amqp_frames import framed, method, short
from celery.ports import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.amqp import AmqpBroker
    from celery.drivers.amqp import Link
    from celery.message import Message
    from celery.ports import Delivery
    from celery.routing import QueueSpec

__all__ = ["NEEDED", "DelayingConsumer"]

logger = logging.getLogger("celery.brokers.amqp")

#: What a server must grant.
NEEDED = frozenset({"publisher_confirms", "exchange_exchange_bindings"})
#: A word that a binding takes as it is, with room for the delay before it.
_PLAIN = re.compile(r"[^*#]{1,180}\Z")


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
        self._kind = broker.config.options.get("delayed_queue_type") or "quorum"
        #: Queues that have what native delayed delivery needs.
        self._delays: set[str] = set()
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
                with_confirms(link)
                declare_path(link)
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

    def _stand_by(self, link: Link, queue: QueueSpec) -> None:
        """Declare a queue, and what brings it the messages that clients delay by themselves (`[route.21]`)."""
        super()._stand_by(link, queue)
        if queue.name not in self._delays and any(map(is_quorum, (queue, *self._queues.values()))):
            found = bind_delays(link, queue, self._kind)
            self._delays.add(queue.name)
            if found and is_quorum(queue):
                logger.warning(
                    "Queue %s is bound to %s, which has no native delayed delivery: delayed tasks go to a worker, and "
                    "are parked by it. One of real Celery would keep them in its memory: where there are such workers, "
                    "give the queue a topic exchange.", queue.name, found,
                )  # fmt: skip

    def _parked(self, link: Link, queue: str, message: Message, due: float) -> bytes:
        """The frames that park a message; first, once for each connection, the levels that it stops at are declared."""
        delay = min(max(math.ceil(due - self._clock.time()), 1), LONGEST)
        declare_levels(link, delay, self._kind)
        # Not the name alone: it might be the routing key of another queue, which Celery's own binding would serve too.
        word = "to:" + (queue if _PLAIN.match(queue) else sha256(queue.encode()).hexdigest())
        binding = f"delayed to {queue}"
        if binding not in link.declared:
            key = short("*." * LEVELS + word)
            link.call(method(50, 20, b"\0\0" + short(queue) + short(DELIVERY) + key + b"\0\0\0\0\0"), {(50, 21)})
            link.declared[binding] = None
        head = method(60, 40, b"\0\0" + short(ENTRANCE) + short(delayed_key(delay, word)) + b"\x01")
        properties = packed_message(message)
        if message.deaths:
            properties = mark_deaths(properties, message.deaths)
        return head + framed(properties, message.body, link.frame_max)
