"""Application. What commands and plugins know as the consumer of a worker."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.routing import queue_spec
from celery.utils.collections import AttributeDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.worker.worker import WorkController

__all__ = ["Consumer", "Prefetch", "state_for"]

logger = logging.getLogger("celery.worker.consumer")


class Consumer:
    """A worker by the names that commands expect: `state.consumer`."""

    def __init__(self, worker: WorkController) -> None:
        self.controller = worker

    @property
    def app(self) -> Any:
        return self.controller.app

    @property
    def hostname(self) -> str:
        return str(self.controller.hostname)

    @property
    def pool(self) -> Any:
        return self.controller.pool

    @property
    def event_dispatcher(self) -> Any:
        """Tells monitors."""
        return self.controller.event_dispatcher

    @property
    def gossip(self) -> Any:
        """Knows the other workers; None where nothing does."""
        return self.controller.gossip

    @property
    def qos(self) -> Prefetch:
        """How many messages are held at most."""
        return Prefetch(self.controller)

    def call_soon(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have this called in the thread of the worker's loop."""
        self.controller.consumer.commands.post(partial(function, *args, **kwargs))

    def reset_rate_limits(self) -> None:
        """Read the rates of all tasks anew; whatever waits for one is looked at again."""
        self.call_soon(self.controller.consumer.orders.limits_changed)

    def add_task_queue(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **options: Any,
    ) -> None:
        """Take from a queue too (`[control.34]`), in the thread of the worker's loop.

        A queue that the app knows is taken as it is known; of any other, options are those of `kombu.Queue`, and both
        exchange and routing key bear the queue's name unless they are given. Raises `OperationalError`.
        """
        queues = self.app.amqp.queues
        if queue in queues:
            entry = queues[queue]
        else:
            given = {
                "exchange": queue if exchange is None else exchange,
                "exchange_type": exchange_type or "direct",
                "routing_key": queue if routing_key is None else routing_key,
            }
            entry = queues.add(queue, **given, **options)
        self.controller.consumer.orders.add_queue(queue_spec(entry))
        queues.select_add(entry)
        logger.info("Taking from the queue %s too", queue)

    def cancel_task_queue(self, queue: str) -> None:
        """Take from a queue no more (`[control.35]`), in the thread of the worker's loop."""
        self.app.amqp.queues.deselect([queue])
        self.controller.consumer.orders.cancel_queue(queue)
        logger.info("Taking from the queue %s no more", queue)


class Prefetch:
    """The bound of what a worker holds, by the names that commands of users know."""

    def __init__(self, worker: WorkController) -> None:
        self._worker = worker

    @property
    def value(self) -> int:
        """Messages; 0: as many as the pool has a use for."""
        return self._worker.prefetch or 0

    prefetch_count = value

    def increment_eventually(self, n: int = 1) -> int:
        """Hold so many more. Without a bound there is nothing to change."""
        if self._worker.prefetch:
            self._worker.prefetch += max(0, n)
        return self.value

    def decrement_eventually(self, n: int = 1) -> bool:
        """Hold so many fewer, but 1 at least."""
        if self._worker.prefetch:
            self._worker.prefetch = max(1, self._worker.prefetch - n)
        return True

    def set(self, count: int) -> int:
        """Hold so many; 0: as many as the pool has a use for."""
        self._worker.prefetch = count or None
        return self.value


def state_for(worker: WorkController) -> Any:
    """The `state` that every command is called with: `app`, `hostname`, `consumer` and `tset` (`[control.37]`)."""
    return AttributeDict(app=worker.app, hostname=worker.hostname, consumer=Consumer(worker), tset=set)
