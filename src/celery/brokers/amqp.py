"""Adapter. RabbitMQ, and whatever else speaks AMQP 0-9-1, as a broker: publishing, declaring and counting.

Publishers share a few connections, each of one thread at a time; consumers and listeners have connections of their own.
Of what only RabbitMQ can do nothing is used but what the server grants when a connection is opened.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.brokers.amqp_consumer import AmqpConsumer
from celery.brokers.amqp_convoy import Convoy
from celery.brokers.amqp_dead import AmqpDeadLetters
from celery.brokers.amqp_delay import NEEDED, DelayingConsumer
from celery.brokers.amqp_listening import AmqpListener, tell
from celery.brokers.amqp_methods import await_confirms, declare_queue, exists, passive_queue
from celery.brokers.amqp_publishing import PATIENCE, NotTaking, await_taking, frames_of_message
from celery.brokers.amqp_routing import Destinations
from celery.drivers.amqp import Endpoint
from celery.drivers.amqp_frames import method, short
from celery.drivers.amqp_pulse import heartbeat_of
from celery.ports import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.drivers.amqp import Link
    from celery.ports import BrokerConfig, Notice, Publication
    from celery.routing import QueueSpec

__all__ = ["AmqpBroker"]


class AmqpBroker:
    """See `ports.Broker`. With the transport option `confirm_publish` it returns once the server has confirmed
    (`[broker.9]`); else once the message is on its way there."""

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self._clock = clock
        self.config = config
        self.endpoint = Endpoint(config)
        self.url_text = self.endpoint.shown
        self._destinations = Destinations(config, clock)
        self._confirm = bool(config.options.get("confirm_publish"))
        self._confirmed_within = float(config.options.get("confirm_timeout") or PATIENCE)
        self._pool_patience = float(config.options.get("pool_acquire_timeout") or PATIENCE)
        #: Whether it was said which options change nothing.
        self._advised = False
        self._letters = AmqpDeadLetters(self.link, config.dead_letters, clock)
        self._pid = os.getpid()
        self._idle: list[Link] = []
        self._places: threading.BoundedSemaphore | None = None
        self._convoy = Convoy(self.endpoint, self._confirmed_within, self._destinations)
        #: The process, and its connections that nobody uses: for when it ends, or nobody can publish any more.
        self._kept: list[Any] = [self._pid, self._idle]
        self._begin()
        weakref.finalize(self, _part, self._kept)

    def _begin(self) -> None:
        """With no connections: those that were there are the parent's."""
        for stranger in self._idle:
            stranger.hang_up()
        self._convoy.hang_up()
        self._pid = os.getpid()
        self._idle = []
        if self._kept[0] != self._pid:
            atexit.register(
                _part, self._kept
            )  # a finalizer that was made before the fork is not called in a pool's child
        self._kept[:] = self._pid, self._idle
        self._places = threading.BoundedSemaphore(self.config.pool_limit) if self.config.pool_limit else None
        self._convoy = Convoy(self.endpoint, self._confirmed_within, self._destinations)

    @contextmanager
    def link(self, patience: float = 30.0) -> Iterator[Link]:
        """A connection for this thread alone, on which the server may take so many seconds over an answer.

        Raises `OperationalError`.
        """
        if self._pid != os.getpid():
            self._begin()
        places, idle = self._places, self._idle
        if places is not None and not places.acquire(timeout=self._pool_patience):
            raise OperationalError(
                f"all {self.config.pool_limit} connections to {self.url_text} were busy for {self._pool_patience:g} s: "
                "raise broker_pool_limit or broker_pool_acquire_timeout, or publish from fewer threads"
            )
        try:
            link = self._take(idle)
            link.patience = patience
            try:
                yield link
            except NotTaking:  # nothing was sent; who keeps the connection learns when it is over
                idle.append(link)
                raise
            except BaseException:
                link.hang_up()  # an answer may be on its way, which nobody else is to take for his own
                raise
            if places is None or link.closed:
                link.close()
            else:
                idle.append(link)
        finally:
            if places is not None:
                places.release()

    def _take(self, idle: list[Link]) -> Link:
        while idle:
            try:
                link = idle.pop()
            except IndexError:
                break
            if not link.is_stale():
                return link
            link.hang_up()
        return self.endpoint.connect()

    def idle_link(self) -> Link | None:
        """A connection that nobody needs now, if there is one; it is the caller's until `keep`."""
        while self._pid == os.getpid() and self._idle:
            link = self._idle.pop()
            if not link.is_stale():
                return link
        return None

    def keep(self, link: Link) -> None:
        """Give an idle connection back."""
        self._idle.append(link)

    def publish(self, publications: Sequence[Publication]) -> None:
        """See `Broker.publish`. Raises `OperationalError`, within some ten seconds whatever is wrong."""
        if not publications:
            return
        if self._confirm:
            if self._pid != os.getpid():
                self._begin()
            self._convoy.publish(publications)
            return
        with self.link(PATIENCE) as link:
            self.publish_over(link, publications)

    def publish_over(self, link: Link, publications: Sequence[Publication]) -> None:
        """Publish over this connection; where that one has been asked for confirms, all are confirmed on return."""
        await_taking(link)
        self._destinations.hear(link)
        frames = []
        for publication in publications:
            self._destinations.ready(link, publication)
            frames.append(frames_of_message(link, publication, self._destinations))
        link.send(b"".join(frames))
        if link.published is not None:
            await_confirms(link, len(publications), self._confirmed_within)
        else:
            link.unheard = True

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """See `Broker.declare`. Raises `ImproperlyConfigured` for one that is there with others, naming both."""
        with self.link() as link:
            for queue in queues:
                declare_queue(link, queue)

    def consume(self, queues: Sequence[QueueSpec]) -> AmqpConsumer:
        """See `Broker.consume`."""
        if not self._advised:
            from celery.brokers.amqp_advice import advise

            self._advised = True
            advise(self.config.options)
        link = self.endpoint.connect(heartbeat=heartbeat_of(self.config))
        kind = DelayingConsumer if link.capabilities >= NEEDED else AmqpConsumer
        return kind(self, queues, link, clock=self._clock)

    def purge(self, queue: str) -> int:
        """See `Broker.purge`."""
        with self.link() as link:
            if exists(link, passive_queue(queue, channel=2), (50, 11)) is None:
                return 0
            came = link.call(method(50, 30, b"\0\0" + short(queue) + b"\0"), {(50, 31)})
        return int.from_bytes(came.arguments[:4], "big")

    def depth(self, queue: str) -> int:
        """See `Depth.depth`."""
        with self.link() as link:
            came = exists(link, passive_queue(queue, channel=2), (50, 11))
        return 0 if came is None else int.from_bytes(came.arguments[-8:-4], "big")

    @property
    def dead_letters(self) -> AmqpDeadLetters:
        """See `Burying`; it needs publisher confirms."""
        return self._letters

    def tell(self, notices: Sequence[Notice]) -> int | None:
        """See `Broadcasting.tell`: an exchange does not say how many queues it has put a notice on, but of those for
        everybody and on topics (events) it says if it was none."""
        with self.link(PATIENCE) as link:
            return tell(link, notices)

    def listen(self, mailboxes: Sequence[QueueSpec]) -> AmqpListener:
        """See `Broadcasting.listen`."""
        return AmqpListener(self.endpoint, mailboxes)

    def close(self) -> None:
        """See `Broker.close`."""
        self._convoy.close()
        while self._idle:
            link = self._idle.pop()
            link.close()
            self._destinations.hear(link)

    def __repr__(self) -> str:
        return f"<AmqpBroker: {self.url_text}>"


def _part(kept: list[Any]) -> None:
    """The process ends: what was published without confirms is read by the server before its connection is."""
    pid, idle = kept
    if pid == os.getpid():
        while idle:
            idle.pop().close()
