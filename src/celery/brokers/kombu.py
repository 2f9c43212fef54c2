"""Adapter. Every broker that kombu has a transport for and we have no adapter for: publishing, declaring, counting.

What holds is what the transport holds (docs/operate/brokers.md). Publishers share a few connections, each of one thread
at a time; consumers and listeners have connections of their own.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.brokers.kombu_consumer import KombuConsumer
from celery.brokers.kombu_listening import KombuListener
from celery.brokers.kombu_messages import declare_exchange, declare_queue, prepared, ready_queue
from celery.drivers.kombu import open_line, shown
from celery.ports import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.drivers.kombu import Line
    from celery.ports import BrokerConfig, Notice, Publication
    from celery.routing import QueueSpec

__all__ = ["KombuBroker", "KombuFanoutBroker", "kombu_broker"]

#: Seconds to wait for a connection that another thread publishes over.
_PATIENCE = 30.0


def kombu_broker(config: BrokerConfig) -> KombuBroker:
    """The broker of a configuration; nothing connects. Raises `ImproperlyConfigured`."""
    line = open_line(config)
    fanout = line.connection.supports_exchange_type("fanout")
    return (KombuFanoutBroker if fanout else KombuBroker)(config)


class KombuBroker:
    """See `ports.Broker`. Raises `OperationalError` for whatever a transport calls an error."""

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self.config = config
        self.clock = clock
        self.url_text = shown(config.url)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Line] = []
        self._places = threading.BoundedSemaphore(self.config.pool_limit) if self.config.pool_limit else None

    @contextmanager
    def line(self) -> Iterator[Line]:
        """A connection for this thread alone; one over which something failed is not used again."""
        if self._pid != os.getpid():
            self._begin()  # the parent's connections are the parent's
        places, idle = self._places, self._idle
        patience = self.config.pool_timeout or _PATIENCE
        if places is not None and not places.acquire(timeout=patience):
            raise OperationalError(
                f"all {self.config.pool_limit} connections to {self.url_text} were busy for {patience:g} s: raise "
                "broker_pool_limit or broker_pool_acquire_timeout, or publish from fewer threads"
            )
        try:
            line = idle.pop() if idle else open_line(self.config)
            try:
                with line.translated():
                    yield line
            except BaseException:
                line.close()
                raise
            if places is None:
                line.close()
            else:
                idle.append(line)
        finally:
            if places is not None:
                places.release()

    def publish(self, publications: Sequence[Publication]) -> None:
        """See `Broker.publish`."""
        if not publications:
            return
        with self.line() as line:
            for publication in publications:
                message, route = publication.message, publication.route
                if route.queue is not None and route.queue.declare:
                    declare_queue(line, route.queue)
                elif not route.exchange:
                    ready_queue(line, route.routing_key)
                elif kind := route.exchange_type or self.config.exchange_type_of(route.exchange):
                    declare_exchange(line, route.exchange, kind, durable=True)
                made = prepared(line, message.body, message)
                line.channel.basic_publish(made, exchange=route.exchange, routing_key=route.routing_key)

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """See `Broker.declare`."""
        with self.line() as line:
            for queue in queues:
                declare_queue(line, queue)

    def consume(self, queues: Sequence[QueueSpec]) -> KombuConsumer:
        """See `Broker.consume`."""
        return KombuConsumer(self.config, queues)

    def purge(self, queue: str) -> int:
        """See `Broker.purge`."""
        with self.line() as line:
            if _depth(line, queue) is None:
                return 0
            purged: int | None = line.channel.queue_purge(queue)
        return purged or 0

    def depth(self, queue: str) -> int:
        """See `Depth.depth`; 0 where the transport cannot count."""
        with self.line() as line:
            return _depth(line, queue) or 0

    def close(self) -> None:
        """See `Broker.close`."""
        if self._pid != os.getpid():
            self._begin()
        while self._idle:
            self._idle.pop().close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.url_text}>"


class KombuFanoutBroker(KombuBroker):
    """A broker whose transport has exchanges that everybody hears: it carries notices (`Broadcasting`)."""

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        super().__init__(config, clock=clock)
        self._lock = threading.Lock()
        #: How many listen at each mailbox.
        self._listening: Counter[str] = Counter()

    def tell(self, notices: Sequence[Notice]) -> None:
        """See `Broadcasting.tell`."""
        with self.line() as line:
            for notice in notices:
                if notice.exchange:
                    declare_exchange(line, notice.exchange, notice.exchange_type, durable=notice.durable)
                made = prepared(line, notice.body, notice, delivery_mode=1)
                line.channel.basic_publish(made, exchange=notice.exchange, routing_key=notice.routing_key)

    def listen(self, mailboxes: Sequence[QueueSpec]) -> KombuListener:
        """See `Broadcasting.listen`."""
        listener = KombuListener(self.config, mailboxes, self._left)
        with self._lock:
            self._listening.update(mailbox.name for mailbox in mailboxes)
        return listener

    def _left(self, mailboxes: Sequence[QueueSpec]) -> list[QueueSpec]:
        """Somebody listens no more; which of his mailboxes are nobody's now."""
        with self._lock:
            self._listening.subtract(mailbox.name for mailbox in mailboxes)
            return [mailbox for mailbox in mailboxes if self._listening[mailbox.name] <= 0]


def _depth(line: Line, queue: str) -> int | None:
    """Messages that wait; None: there is no such queue."""
    try:
        told: Any = line.channel.queue_declare(queue=queue, passive=True)
    except line.refusals:
        return None
    return int(told.message_count or 0)
