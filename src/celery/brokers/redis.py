"""Adapter. Redis as a broker, in kombu's layout: real Celery may publish, consume and restore beside it."""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from celery.brokers.queue_options import Unrouted, without_effect
from celery.brokers.redis_layout import Channels, Layout
from celery.drivers.redis import open_endpoint
from celery.drivers.redis_pool import LinkPool, run
from celery.ports import Clock, Finding, Publication, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.brokers.redis_consumer import RedisConsumer
    from celery.brokers.redis_dead import RedisDeadLetters
    from celery.brokers.redis_inspecting import RedisInspection
    from celery.brokers.redis_listening import RedisListener
    from celery.drivers.redis import Command, Link
    from celery.ports import BrokerConfig, Notice
    from celery.routing import QueueSpec

__all__ = ["RedisBroker"]


class _Named(Struct, eq=False):
    """A message to a named exchange."""

    publication: Publication
    envelope: bytes
    #: Of the exchange; "": nobody knows, and it is taken for one whose bindings are kombu's.
    kind: str
    #: Of the command whose reply says whom it reaches.
    place: int
    names: list[str] = []


class RedisBroker:
    """Publishes, declares and counts over a small pool of connections; consumers get connections of their own."""

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self._config = config
        self._clock = clock
        self.endpoint = open_endpoint(config.url, config.options, config.ssl, config.connect_timeout, config.failover)
        self.layout = Layout(config.options, self.endpoint.prefix)
        sentinel = config.url.startswith("sentinel:")
        self.channels = Channels(config.options, self.endpoint.prefix, self.endpoint.db, sentinel=sentinel)
        self._pool = LinkPool(self.endpoint, _pool_limit(config))
        self.bounds = config.dead_letters
        #: kombu keeps what it holds under the tag that the publisher gave: no two messages may bear the same.
        self._mark = os.urandom(8).hex()
        self._numbers = count()
        #: What was bound to each named exchange when it was last looked at.
        self._bindings: dict[str, list[bytes]] = {}
        self._exchange_type_of = config.exchange_type_of
        self._unrouted = Unrouted()

    def publish(self, publications: Sequence[Publication]) -> None:
        """See `Broker.publish`: one round trip, and a second one for the bindings of a named exchange if unknown."""
        pool = self._pool
        link = pool.take()
        try:
            commands: list[Command] = []
            named: list[_Named] = []
            for publication in publications:
                self._add(link, commands, publication, named)
            replies = run(link, commands) if commands else []
            if named:
                self._follow_up(link, named, replies)
        finally:
            pool.give_back(link)

    def pushes(self, link: Link, publications: Sequence[Publication]) -> list[str | bytes]:
        """List and envelope of each, flat, for a script that publishes; declares their queues first over `link`."""
        flat: list[str | bytes] = []
        declarations: list[Command] = []
        for publication in publications:
            commands: list[Command] = []
            named: list[_Named] = []
            if publication.route.exchange:  # a script has no second look
                self._bindings.pop(publication.route.exchange, None)
            self._add(link, commands, publication, named)
            for command in commands:
                if command[0] == "LPUSH":
                    flat += (command[1], command[2])  # type: ignore[arg-type]
                elif command[0] != "SMEMBERS":
                    declarations.append(command)
            self._unrouted.note(one.publication for one in named if one.kind != "fanout" and not one.names)
        if declarations:
            run(link, declarations)
        return flat

    def _add(self, link: Link, commands: list[Command], publication: Publication, named: list[_Named]) -> None:
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
        kind = route.exchange_type or self._exchange_type_of(route.exchange)
        one = _Named(publication, envelope, kind, len(commands))
        named.append(one)
        if kind == "fanout":
            commands += [("PUBLISH", name, envelope) for name in self.channels.of(route.exchange, route.routing_key)]
            return
        # Taken from what was bound lately; what is bound now is asked for with it.
        one.names = self._route(link, one)
        commands.append(("SMEMBERS", self._key_of(one)))
        commands.extend(("LPUSH", self.layout.list_of(name, message.priority), envelope) for name in one.names)

    def _key_of(self, one: _Named) -> str:
        exchange = one.publication.route.exchange
        return (self.layout.headers if one.kind == "headers" else self.layout.bindings) + exchange

    def _route(self, link: Link, one: _Named) -> list[str]:
        """Queues bound to an exchange for a message, as far as is known."""
        route = one.publication.route
        members = self._bindings.get(route.exchange)
        if members is None:
            members = self._bindings[route.exchange] = list(run(link, [("SMEMBERS", self._key_of(one))])[0])
        found = self._match(one, members)
        queue = route.queue
        if queue is not None and queue.declare and queue.name not in found:  # declared in this very round trip
            mine = [member.encode() for key, member in self.layout.bound(queue) if key == self._key_of(one)]
            found += self._match(one, mine)
        return found

    def _match(self, one: _Named, members: Iterable[bytes]) -> list[str]:
        if one.kind == "headers":
            return self.layout.route_headers(members, one.publication.message.headers)
        return self.layout.route(members, one.publication.route.routing_key)

    def _follow_up(self, link: Link, named: Sequence[_Named], replies: Sequence[Any]) -> None:
        """Queues that were bound since we last looked get theirs; what reached nobody is dropped, as kombu does
        (`[redis.4]`), and told of."""
        more: list[Command] = []
        for one in named:
            message, route = one.publication.message, one.publication.route
            if one.kind == "fanout":
                reached = replies[one.place] > 0
            else:
                members = self._bindings[route.exchange] = list(replies[one.place])
                late = [name for name in self._match(one, members) if name not in one.names]
                more += [("LPUSH", self.layout.list_of(name, message.priority), one.envelope) for name in late]
                reached = bool(one.names or late)
            if not reached:
                self._unrouted.note_one(message.id, route.exchange, route.routing_key)
        if more:
            run(link, more)

    def _declare(self, link: Link, commands: list[Command], queue: QueueSpec) -> None:
        link.declared.add(queue.name)
        commands += [("SADD", key, member) for key, member in self.layout.bound(queue)]

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Exchange commands over any connection of the pool."""
        return self._pool.run(commands)

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
        without_effect(queues, self.endpoint.shown)
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

        return tell(self._pool, self.layout, self.channels, notices)

    def listen(self, mailboxes: Sequence[QueueSpec]) -> RedisListener:
        """See `Broadcasting.listen`."""
        from celery.brokers.redis_listening import RedisListener

        return RedisListener(self._pool, self.layout, self.channels, mailboxes)

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
