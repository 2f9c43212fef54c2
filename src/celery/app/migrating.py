"""Application. Messages from one broker of ours to another, in batches: published there, then acknowledged here.

A kill in between leaves a batch in both places, never in none. Envelopes travel as they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.app.inspecting import message_of
from celery.message import Message
from celery.ports import Deferring, Depth, Inspectable, Publication
from celery.routing import QueueSpec, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from celery.ports import Broker, Consumer, Delivery, Resting

__all__ = ["Migration"]

#: Messages that are published, and acknowledged, at once.
_BATCH = 100


class Migration:
    """One move of messages between brokers."""

    def __init__(
        self,
        source: Broker,
        target: Broker,
        queues: Mapping[str, QueueSpec],
        *,
        tasks: Collection[str] = (),
        take: bool = False,
        limit: int | None = None,
        told: Callable[[Message], object] = lambda message: None,
    ) -> None:
        """`queues`: name at the source → queue at the target. `tasks`: only messages of these; none: of all.

        `take`: acknowledge at the source; otherwise what was published stays there too, in its old place. `told` hears
        of each message that was published.
        """
        self._source = source
        self._target = target
        self._queues = queues
        self._tasks = tasks
        self._take = take
        self._limit = limit
        self._told = told
        #: Messages published; that were not wanted; that are no task messages; that were taken by a worker of the
        #: source when they had been published already, and so may run twice.
        self.moved = self.passed = self.unreadable = self.twice = 0

    @property
    def expected(self) -> int:
        """How many messages lie at the source, as far as it can tell."""
        source = self._source
        if isinstance(source, Inspectable):
            return sum(
                one.waiting + one.parked for one in source.inspection.stats([*self._queues]) if self._has(one.name)
            )
        return sum(source.depth(name) for name in self._queues) if isinstance(source, Depth) else 0

    def run(self, timeout: float, *, forever: bool = False) -> None:
        """Move what waits until nothing has come for `timeout` seconds, then what is parked. `forever`: wait for more.

        Raises `OperationalError`; whatever was not acknowledged is at the source.
        """
        self._target.declare(list(self._queues.values()))
        consumer = self._source.consume([QueueSpec(name, routing_key=name) for name in self._queues])
        kept: list[Delivery] = []
        try:
            while self._left and ((deliveries := consumer.fetch(min(_BATCH, self._left), timeout)) or forever):
                kept += self._move(consumer, deliveries)
            self._move_parked()
        finally:
            if isinstance(consumer, Deferring) and kept:
                consumer.defer([(delivery, 0.0) for delivery in kept])
            consumer.close()

    @property
    def _left(self) -> int:
        return _BATCH if self._limit is None else self._limit - self.moved

    def _has(self, queue: str) -> bool:
        return queue in self._queues

    def _wants(self, message: Message) -> bool:
        return not self._tasks or message.task in self._tasks

    def _move(self, consumer: Consumer, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Publish a batch; returns what stays at the source."""
        chosen: list[tuple[str, Delivery, Message]] = []
        stays: list[Delivery] = []
        for delivery in deliveries:
            message = delivery.message
            if message is not None and self._wants(message):
                chosen.append((delivery.queue, delivery, message))
            else:
                stays.append(delivery)
                self.passed += message is not None
                self.unreadable += message is None
        self._publish([(queue, message) for queue, _, message in chosen])
        done = [delivery for _, delivery, _ in chosen]
        if self._take:
            consumer.ack(done)
            consumer.flush()
            return stays
        return stays + done

    def _move_parked(self) -> None:
        if not isinstance(self._source, Inspectable):
            return
        inspection, last = self._source.inspection, None
        while self._left and (page := inspection.parked([*self._queues], min(_BATCH, self._left), last)):
            last = page[-1]
            chosen: list[tuple[Resting, Message]] = []
            for one in page:
                message = message_of(one)
                if message is not None and self._wants(message):
                    chosen.append((one, message))
                else:
                    self.passed += 1
            self._publish([(one.queue, message) for one, message in chosen])
            if self._take and chosen:
                ids = [one.id for one, _ in chosen]
                self.twice += len(ids) - len(inspection.cancel(ids))

    def _publish(self, messages: Iterable[tuple[str, Message]]) -> None:
        publications = []
        for queue, message in messages:
            target = self._queues[queue]
            sent = message if target.name == queue else _readdressed(message, target.name)
            publications.append(Publication(sent, Route("", target.name, target)))
        self._target.publish(publications)
        for publication in publications:
            self.moved += 1
            self._told(publication.message)


def _readdressed(message: Message, queue: str) -> Message:
    """The same call, on its way to another queue: real Celery gives back by what stands in the envelope."""
    properties = {name: value for name, value in message.properties.items() if name not in _OF_THE_DELIVERY}
    return Message(
        message.headers,
        message.body,
        properties=properties,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        routing_key=queue,
        redelivered=message.redelivered,
    )


_OF_THE_DELIVERY = frozenset({"body_encoding", "delivery_info", "delivery_tag"})
