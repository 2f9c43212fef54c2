"""Adapter. Where a message is sent over AMQP: queues and exchanges that must be there, and what reached no queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.brokers.amqp_levels import ENTRANCE, LONGEST, bind_delays, delayed_key, has_delays
from celery.brokers.amqp_methods import (
    RETURNED,
    declare,
    declare_queue,
    has_exchange,
    ready_queue,
    returned_from,
)
from celery.brokers.queue_options import Unrouted
from celery.drivers.amqp_errors import MissingQueue
from celery.drivers.amqp_frames import properties_of
from celery.routing import ExchangeSpec
from celery.worker.admission import moment

if TYPE_CHECKING:
    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came
    from celery.ports import BrokerConfig, Clock, Publication
    from celery.routing import Route

__all__ = ["Destinations"]


class Destinations:
    """Gets ready what messages are sent to. Whatever is sent to a named exchange comes back where no queue is bound for
    it, and is told of; it is dropped, as on other brokers."""

    def __init__(self, config: BrokerConfig, clock: Clock) -> None:
        self._exchange_type_of = config.exchange_type_of
        self._kind = config.options.get("delayed_queue_type") or "quorum"
        self._clock = clock
        self._unrouted = Unrouted()

    def ready(self, link: Link, publication: Publication) -> None:
        """Have there what the message is for. Raises `ImproperlyConfigured`, `OperationalError`."""
        route = publication.route
        queue = route.queue
        if queue is not None and queue.declare:
            declare_queue(link, queue)
        elif not route.exchange and route.routing_key not in link.declared:
            ready_queue(link, route.routing_key)
        if route.exchange and f"exchange {route.exchange}" not in link.declared:
            self._ready_exchange(link, route)
        if queue is not None and route.exchange and self._delay(link, publication):
            key = f"delays of {queue.name}"
            if key not in link.declared:
                bind_delays(link, queue, self._kind)
                link.declared[key] = None

    def _ready_exchange(self, link: Link, route: Route) -> None:
        """A message to an exchange that is not there would close the connection, and be lost with whatever went before
        it: the exchange is declared if its type is known."""
        if route.queue is not None and not route.queue.no_declare:
            for binding in route.queue.bound:
                declare(link, binding.exchange)
        kind = route.exchange_type or self._exchange_type_of(route.exchange)
        if kind:
            declare(link, ExchangeSpec(route.exchange, kind))
        elif not route.exchange.startswith("amq.") and not has_exchange(link, route.exchange):
            raise MissingQueue(
                f"{link.shown} has no exchange {route.exchange!r} for a message with the routing key "
                f"{route.routing_key!r}: declare a queue that is bound to it in task_queues, start a worker that does, "
                "or give its type with the option exchange_type"
            )
        link.declared[f"exchange {route.exchange}"] = None

    def _delay(self, link: Link, publication: Publication) -> int:
        """Whole seconds for which a message is kept by the server (`[route.21]`), as real Celery's clients have it: of
        quorum queues on topic exchanges. Of others, and the rest of a second, the worker takes care."""
        route, message = publication.route, publication.message
        if not route.exchange or message.eta is None or route.queue is None or not has_delays(route.queue):
            return 0
        if "exchange_exchange_bindings" not in link.capabilities:
            return 0
        try:
            delay: int = int(moment(message.eta) - self._clock.time())
        except (ValueError, OverflowError):
            return 0  # the worker says what is wrong
        return 0 if delay < 0 else min(delay, LONGEST)

    def address(self, link: Link, publication: Publication) -> tuple[str, str]:
        """Exchange and routing key: where its route leads, or where it is kept until then."""
        route = publication.route
        delay = self._delay(link, publication) if route.exchange else 0
        return (ENTRANCE, delayed_key(delay, route.routing_key)) if delay else (route.exchange, route.routing_key)

    def hear(self, link: Link) -> None:
        """What came back since this connection was last used."""
        if link.inbox:
            others = [came for came in link.inbox if came.kind != RETURNED]
            for came in link.inbox:
                if came.kind == RETURNED:
                    self.came_back(came)
            link.inbox.clear()
            link.inbox.extend(others)

    def came_back(self, came: Came) -> None:
        """Tell of a message that reached no queue."""
        try:
            properties = properties_of(came.properties)
        except ValueError:
            properties = {}
        id = (properties.get("headers") or {}).get("id") or properties.get("correlation_id") or "?"
        self._unrouted.note_one(str(id), *returned_from(came.arguments))
