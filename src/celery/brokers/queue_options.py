"""Adapter. What brokers tell of queues: options that do nothing there, and messages that reach nobody."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from celery.ports import Publication
    from celery.routing import QueueSpec

__all__ = ["Unrouted", "without_effect"]

logger = logging.getLogger("celery.brokers")

#: Destinations that are remembered as told of; then it begins anew.
_MOST = 1000
#: What is about RabbitMQ's own kinds of queues, and changes nothing of what comes out of one here.
_HARMLESS = frozenset({"x-queue-type", "x-max-priority", "x-queue-mode", "x-queue-version"})


class Unrouted:
    """Tells of messages that reached no queue, once for each destination."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def note(self, publications: Iterable[Publication]) -> None:
        """These are dropped, as everywhere else."""
        for publication in publications:
            self.note_one(publication.message.id, publication.route.exchange, publication.route.routing_key)

    def note_one(self, id: str, exchange: str, routing_key: str) -> None:
        """This one is."""
        if (exchange, routing_key) in self._told:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add((exchange, routing_key))
        logger.warning(
            "Message %s reached no queue, and is dropped: nothing is bound to the exchange %r for the routing key %r. "
            "Start a worker that takes from such a queue, or declare one in task_queues. This is told once.",
            id, exchange, routing_key,
        )  # fmt: skip


def without_effect(queues: Iterable[QueueSpec], broker: str, effective: Collection[str] = ()) -> None:
    """Name the options of these queues that this broker passes over."""
    for queue in queues:
        wanted = [*queue.arguments, *(f"consumer_arguments[{name!r}]" for name in queue.consumer_arguments)]
        passed = sorted(name for name in wanted if name not in _HARMLESS and name not in effective)
        if passed:
            logger.warning("Queue %s: %s has no effect on %s", queue.name, ", ".join(passed), broker)
