"""Adapter. Redis as a broker, in kombu's layout: real Celery may publish, consume and restore beside it."""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING

from celery.brokers.redis_layout import Channels, Layout
from celery.drivers.redis import open_endpoint
from celery.drivers.redis_pool import LinkPool, run
from celery.ports import Clock, Finding, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.redis_consumer import RedisConsumer
    from celery.brokers.redis_dead import RedisDeadLetters
    from celery.brokers.redis_inspecting import RedisInspection
    from celery.brokers.redis_listening import RedisListener
    from celery.drivers.redis import Command, Link
    from celery.ports import BrokerConfig, Notice, Publication
    from celery.routing import QueueSpec

__all__ = ["RedisBroker"]

#: Seconds for which the bindings of a named exchange are remembered.
_BINDINGS_KEPT = 5.0


class RedisBroker:
    """Publishes, declares and counts over a small pool of connections; consumers get connections of their own."""

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self._config = config
        self._clock = clock
        self.endpoint = open_endpoint(config.url, config.options, config.ssl, config.connect_timeout, config.failover)
        self.layout = Layout(config.options, self.endpoint.prefix)
        sentinel = config.url.startswith("sentinel:")
        self._channels = Channels(config.options, self.endpoint.prefix, self.endpoint.db, sentinel=sentinel)
        self._pool = LinkPool(self.endpoint, _pool_limit(config))
        self.bounds = config.dead_letters
        #: kombu keeps what it holds under the tag that the publisher gave: no two messages may bear the same.
        self._mark = os.urandom(8).hex()
        self._numbers = count()
        self._bindings: dict[str, tuple[float, list[bytes]]] = {}

    def publish(self, publications: Sequence[Publication]) -> None:
        """See `Broker.publish`: one round trip, and a second one for the bindings of a named exchange if unknown."""
        pool = self._pool
        link = pool.take()
        try:
            commands: list[Command] = []
            for publication in publications:
                self._add(link, commands, publication)
            if commands:
                run(link, commands)
        finally:
            pool.give_back(link)

    def pushes(self, link: Link, publications: Sequence[Publication]) -> list[str | bytes]:
        """List and envelope of each, flat, for a script that publishes; declares their queues first over `link`."""
        flat: list[str | bytes] = []
        declarations: list[Command] = []
        for publication in publications:
            commands: list[Command] = []
            self._add(link, commands, publication)
            for command in commands:
                if command[0] == "LPUSH":
                    flat += (command[1], command[2])  # type: ignore[arg-type]
                else:
                    declarations.append(command)
        if declarations:
            run(link, declarations)
        return flat

    def _add(self, link: Link, commands: list[Command], publication: Publication) -> None:
        route, message = publication.route, publication.message
        queue = route.queue
        if queue is not None and queue.declare and queue.name not in link.declared:
            self._declare(link, commands, queue)
        # The time is read by `inspecting.sent_at`: kombu has no other place for it.
        tag = f"{os.getpid()}-{self._mark}-{next(self._numbers)}@{self._clock.time():.3f}"
        envelope = message.to_envelope(tag)
        if not route.exchange:
            commands.append(("LPUSH", self.layout.list_of(route.routing_key, message.priority), envelope))
            return
        names = self._route(link, route.exchange, route.routing_key, queue)
        commands.extend(("LPUSH", self.layout.list_of(name, message.priority), envelope) for name in names)

    def _route(self, link: Link, exchange: str, key: str, queue: QueueSpec | None) -> list[str]:
        """Queues bound to an exchange for a key. Nothing bound: the message is dropped, as kombu does (`[redis.4]`)."""
        kept = self._bindings.get(exchange)
        now = self._clock.monotonic()
        if kept is None or kept[0] < now:
            members = list(run(link, [("SMEMBERS", self.layout.bindings + exchange)])[0])
            kept = self._bindings[exchange] = (now + _BINDINGS_KEPT, members)
        found = self.layout.route(kept[1], key)
        mine = queue is not None and queue.exchange == exchange and queue.name not in found
        if mine and queue is not None and self.layout.route([self.layout.binding(queue).encode()], key):
            found.append(queue.name)  # declared in this very round trip
        return found

    def _declare(self, link: Link, commands: list[Command], queue: QueueSpec) -> None:
        link.declared.add(queue.name)
        if queue.exchange and queue.declare:
            member = self.layout.binding(queue)
            commands.append(("SADD", self.layout.bindings + queue.exchange, member))
            commands.append(("SADD", self.layout.permanent + queue.exchange, member))

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Bind queues where kombu looks for bindings; lists need no declaration."""
        link = self._pool.take()
        try:
            commands: list[Command] = []
            for queue in queues:
                self._declare(link, commands, queue)
            if commands:
                run(link, commands)
        finally:
            self._pool.give_back(link)

    def consume(self, queues: Sequence[QueueSpec]) -> RedisConsumer:
        """See `Broker.consume`."""
        from celery.brokers.redis_advice import advise
        from celery.brokers.redis_consumer import RedisConsumer

        advise(self._config.options, self._pool)
        return RedisConsumer(self, self._config.node, queues, clock=self._clock)

    def purge(self, queue: str) -> int:
        """See `Broker.purge`."""
        lists = self.layout.lists(queue)
        commands: list[Command] = [("MULTI",), *(("LLEN", key) for key in lists), ("DEL", *lists), ("EXEC",)]
        counts: list[int] = self._pool.run(commands)[-1]
        return sum(counts[:-1])

    def depth(self, queue: str) -> int:
        """See `Depth.depth`."""
        counts: list[int] = self._pool.run([("LLEN", key) for key in self.layout.lists(queue)])
        return sum(counts)

    @property
    def dead_letters(self) -> RedisDeadLetters:
        """See `Burying`."""
        from celery.brokers.redis_dead import RedisDeadLetters

        return RedisDeadLetters(self._pool, self.layout, self.bounds, self._clock)

    def tell(self, notices: Sequence[Notice]) -> int | None:
        """See `Broadcasting.tell`."""
        from celery.brokers.redis_listening import tell

        return tell(self._pool, self.layout, self._channels, notices)

    def listen(self, mailboxes: Sequence[QueueSpec]) -> RedisListener:
        """See `Broadcasting.listen`."""
        from celery.brokers.redis_listening import RedisListener

        return RedisListener(self._pool, self.layout, self._channels, mailboxes)

    @property
    def inspection(self) -> RedisInspection:
        """See `Inspectable`."""
        from celery.brokers.redis_inspecting import RedisInspection

        return RedisInspection(self._pool, self.layout)

    def examine(self) -> Sequence[Finding]:
        """See `Examinable`."""
        from celery.brokers.redis_advice import on_options
        from celery.drivers.redis_checks import examine

        return [*(Finding("doubtful", text) for text in on_options(self._config.options)), *examine(self._pool)]

    def server_time(self) -> float:
        """See `Examinable.server_time`."""
        from celery.drivers.redis_checks import server_time

        return server_time(self._pool)

    def close(self) -> None:
        """See `Broker.close`."""
        self._pool.close()

    def __repr__(self) -> str:
        return f"<RedisBroker: {self.endpoint.shown}>"


def _pool_limit(config: BrokerConfig) -> int | None:
    """`broker_pool_limit`, or fewer if the transport option `max_connections` says so."""
    most = config.options.get("max_connections")
    if not most or not config.pool_limit:
        return config.pool_limit
    return min(config.pool_limit, int(most))
