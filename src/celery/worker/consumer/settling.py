"""Flow. Outcomes leave: records to the store, follow-ups to the broker, and only then the settlement of deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.message import Message
from celery.ports import Joining, Publication, Settled
from celery.routing import Route
from celery.worker.settlement import ACK, REJECT, REQUEUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.outcome import Record
    from celery.ports import Broker, Consumer, Delivery, ResultBackend

__all__ = ["Settler", "publications"]


def publications(follow: Sequence[tuple[str, str, bytes]]) -> list[Publication]:
    """The messages that follow from a run, ready to be published."""
    return [
        Publication(Message.from_envelope(envelope), Route(exchange, routing_key))
        for exchange, routing_key, envelope in follow
    ]


class Settler:
    """Gathers what is to be settled and settles it in batches.

    Where the consumer can settle together with the store (`ports.Joining`), a batch is one step. Elsewhere it is
    three, in the only order in which a kill between two of them repeats but never loses: the record is there before
    the follow-ups go out, and both before the broker forgets the message. A step that failed is done again by the next
    `settle`; those before it are not.
    """

    def __init__(self, consumer: Consumer, broker: Broker, store: ResultBackend | None) -> None:
        self._consumer = consumer
        self._broker = broker
        self._store = store
        self._joined: Joining | None = None
        if store is not None and isinstance(consumer, Joining) and consumer.join(store):
            self._joined = consumer
        self._batch: list[Settled] = []
        self._records: list[Record] = []
        self._publications: list[Publication] = []
        self._settlements: dict[str, list[Delivery]] = {ACK: [], REJECT: [], REQUEUE: []}

    def add(
        self,
        delivery: Delivery,
        disposition: str,
        record: Record | None = None,
        follow: Sequence[tuple[str, str, bytes]] = (),
    ) -> None:
        """Settle this one with the next `settle`."""
        if (record is None and not follow) or self._joined is None:
            if record is not None:
                self._records.append(record)
            if follow:
                self._publications.extend(publications(follow))
            if disposition in self._settlements:
                self._settlements[disposition].append(delivery)
        else:
            self._batch.append(Settled(delivery, disposition, record, publications(follow) if follow else ()))

    @property
    def pending(self) -> int:
        """How many deliveries, records and publications wait to be settled."""
        return (
            len(self._batch)
            + len(self._records)
            + len(self._publications)
            + sum(len(deliveries) for deliveries in self._settlements.values())
        )

    def settle(self) -> None:
        """Settle everything gathered. Raises `OperationalError`; then what is left is settled by the next call."""
        if self._batch:
            assert self._joined is not None
            self._joined.settle(self._batch)
            self._batch = []
        if self._records:
            if self._store is not None:
                self._store.save(self._records)
            self._records = []
        if self._publications:
            self._broker.publish(self._publications)
            self._publications = []
        self._settle_deliveries()

    def _settle_deliveries(self) -> None:
        settlements = self._settlements
        if settlements[ACK]:
            self._consumer.ack(settlements[ACK])
            settlements[ACK] = []
        if settlements[REJECT]:
            self._consumer.reject(settlements[REJECT], requeue=False)
            settlements[REJECT] = []
        if settlements[REQUEUE]:
            self._consumer.reject(settlements[REQUEUE], requeue=True)
            settlements[REQUEUE] = []
