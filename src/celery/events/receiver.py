"""Application. The receiver: hears events, and hands each to whoever wants its type (`[event.15]`)."""

from __future__ import annotations

import logging
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from kombu import Exchange, Queue
from kombu.mixins import ConsumerMixin

from celery import codecs
from celery.app import app_or_default
from celery.events.event import get_exchange
from celery.events.ways import connection_of, own_carrier
from celery.exceptions import ImproperlyConfigured
from celery.producer import new_id
from celery.routing import Binding, ExchangeSpec, QueueSpec
from celery.utils.time import adjust_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from celery.ports import Listener, Notice

__all__ = ["EventReceiver"]

logger = logging.getLogger("celery.events.receiver")

#: A client's clock knows nothing of the cluster's: what it sent lies just before what is known here.
_CLIENT_CLOCK_SKEW = -1
_when_and_where = itemgetter("utcoffset", "timestamp")


class EventReceiver(ConsumerMixin):  # type: ignore[misc]  # kombu is not typed
    """Hears what is told from the moment that `capture` begins.

    `channel`: a connection of kombu's, or a channel of one. `handlers`: event type → function of the event; `"*"` for
    all types that have none of their own. `routing_key`: which events, `task.#` for instance. What else may be given
    stands in for the settings `event_queue_…`; times are seconds.

    A connection to the app's own broker is served by our own listening; any other one by kombu.
    """

    app: Any = None

    def __init__(
        self,
        channel: Any,
        handlers: Mapping[str, Callable[[Any], object]] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        app: Any = None,
        queue_prefix: str | None = None,
        accept: Collection[str] | None = None,
        queue_ttl: float | None = None,
        queue_expires: float | None = None,
        queue_exclusive: bool | None = None,
        queue_durable: bool | None = None,
    ) -> None:
        """Raises `ImproperlyConfigured` for a queue that is to be exclusive and durable."""
        self.app = app_or_default(app or self.app)
        conf = self.app.conf
        self.channel = channel
        self.handlers = {} if handlers is None else handlers
        self.routing_key = routing_key
        self.node_id = node_id or new_id()
        self.queue_prefix = queue_prefix or conf.event_queue_prefix
        if channel is None:  # a connection of kombu's would load its driver, for nothing
            self.exchange = Exchange(conf.event_exchange, type="topic")
        else:
            self.exchange = get_exchange(connection_of(channel), conf.event_exchange)
        #: The queue, as our own brokers see it.
        self.mailbox = self._make_mailbox(
            conf.event_queue_ttl if queue_ttl is None else queue_ttl,
            conf.event_queue_expires if queue_expires is None else queue_expires,
            exclusive=conf.event_queue_exclusive if queue_exclusive is None else queue_exclusive,
            durable=conf.event_queue_durable if queue_durable is None else queue_durable,
        )
        self.queue = Queue(
            self.mailbox.name,
            exchange=self.exchange,
            routing_key=self.routing_key,
            auto_delete=True,
            durable=self.mailbox.durable,
            exclusive=self.mailbox.exclusive,
            queue_arguments=dict(self.mailbox.arguments),
        )
        self.accept = {conf.event_serializer, "json"} if accept is None else accept
        self.clock = self.app.clock
        self.adjust_clock = self.clock.adjust
        self.forward_clock = self.clock.forward

    def _make_mailbox(self, ttl: float | None, expires: float | None, *, exclusive: bool, durable: bool) -> QueueSpec:
        if exclusive and durable:
            raise ImproperlyConfigured(
                "expected a queue of events that is exclusive or durable, got both: choose one of "
                "event_queue_exclusive and event_queue_durable"
            )
        times = {"x-message-ttl": ttl, "x-expires": expires}
        return QueueSpec(
            f"{self.queue_prefix}.{self.node_id}",
            self.exchange.name,
            "topic",
            self.routing_key,
            durable=durable,
            exclusive=exclusive,
            auto_delete=True,
            arguments={name: int(seconds * 1000) for name, seconds in times.items() if seconds is not None},
            # The exchange is durable whatever the queue is: a worker that finds another one there ends.
            bindings=(Binding(ExchangeSpec(self.exchange.name, "topic"), self.routing_key),),
        )

    @property
    def connection(self) -> Any:
        """The kombu connection; None: the app's broker is listened at, without one."""
        return connection_of(self.channel)

    # -- capturing ---------------------------------------------------------------------------------------------------

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """Hear events and call their handlers, until `should_stop` is true.

        `limit`: after so many turns, each of which is a message or a second of silence. `timeout`: raises
        `TimeoutError` after so many seconds of silence. `wakeup`: have all workers send a heartbeat first. Raises
        `OperationalError` (or what kombu's transport raises) when the broker is lost.
        """
        for _ in self.consume(limit=limit, timeout=timeout, wakeup=wakeup):
            pass

    def itercapture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> Iterator[Any]:
        """As `capture`, pausing after each message."""
        return self.consume(limit=limit, timeout=timeout, wakeup=wakeup)

    def consume(
        self, limit: int | None = None, timeout: float | None = None, safety_interval: float = 1, **kwargs: Any
    ) -> Iterator[Any]:
        """What `capture` and `itercapture` run."""
        carrier = own_carrier(self.app, self.channel)
        if carrier is None or self._brings_consumers():
            yield from super().consume(limit, timeout, safety_interval, **kwargs)
            return
        listener = carrier.listen([self.mailbox])
        try:
            self.on_consume_ready(self.connection, self.channel, [], **kwargs)
            yield from self._listen(listener, limit, timeout, safety_interval)
        finally:
            listener.close()
        self.on_consume_end(self.connection, self.channel)

    def _listen(self, listener: Listener, limit: int | None, timeout: float | None, interval: float) -> Iterator[None]:
        left, silence = limit or -1, 0.0
        while left and not self.should_stop:
            self.on_iteration()
            notices = listener.hear(interval)
            if not notices:
                left -= 1
                silence += interval
                if timeout and silence >= timeout:
                    raise TimeoutError(f"no event within {timeout} seconds")
                continue
            silence = 0.0
            for notice in notices:
                self.read(notice)
                yield
                left -= 1
                if not left or self.should_stop:
                    return

    def read(self, notice: Notice) -> None:
        """Hand on the events of a notice. One that cannot be read is told of, and passed over: anybody can send one."""
        try:
            accepted = codecs.accept_types(self.accept)
            body = codecs.decode(notice.body, notice.content_type, notice.content_encoding, accepted)
        except Exception as exc:  # noqa: BLE001 - whatever a decoder raises
            logger.warning("An event cannot be read, and is passed over: %r", exc)
            return
        self._receive(body, notice)

    def _brings_consumers(self) -> bool:
        return type(self).get_consumers is not EventReceiver.get_consumers

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803 - its public name
        """kombu's consumers, where its connection is listened at."""
        return [Consumer(queues=[self.queue], callbacks=[self._receive], no_ack=True, accept=self.accept)]

    def on_consume_ready(
        self, connection: Any, channel: Any, consumers: Any, wakeup: bool = True, **kwargs: Any
    ) -> None:
        """From here on nothing is missed."""
        if wakeup:
            self.wakeup_workers(channel=channel)

    def wakeup_workers(self, channel: Any = None) -> None:
        """Ask all workers for a heartbeat, so that they are known at once."""
        self.app.control.broadcast("heartbeat", connection=self.connection)

    # -- what comes --------------------------------------------------------------------------------------------------

    def process(self, type: str, event: Any) -> None:
        """Hand the event to its handler."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def event_from_message(
        self,
        body: Any,
        localize: bool = True,
        now: Callable[[], float] = time.time,
        tzfields: Callable[[Any], tuple[float, float]] = _when_and_where,
        adjust_timestamp: Callable[[float, float], float] = adjust_timestamp,
        CLIENT_CLOCK_SKEW: int = _CLIENT_CLOCK_SKEW,  # noqa: N803 - its public name
    ) -> tuple[str, Any]:
        """Type and event of a message's body, which is changed: the time is made a local one, `local_received` added,
        and the logical clock set by it (`[wireev.6]`, `[wireev.7]`)."""
        kind: str = body["type"]
        if kind == "task-sent":
            body["clock"] = (self.clock.value or 1) + CLIENT_CLOCK_SKEW
            self.adjust_clock(body["clock"])
        elif body.get("clock") is None:
            body["clock"] = self.forward_clock()
        else:
            self.adjust_clock(body["clock"])
        if localize and "utcoffset" in body and "timestamp" in body:
            offset, timestamp = tzfields(body)
            body["timestamp"] = adjust_timestamp(timestamp, offset)
        body["local_received"] = now()
        return kind, body

    def _receive(self, body: Any, message: Any) -> None:
        for event in body if isinstance(body, list) else (body,):
            try:
                kind, known = self.event_from_message(event)
            except (KeyError, TypeError, AttributeError) as exc:
                logger.warning("Expected an event, a mapping with a type, got %.200r: %r", event, exc)
                continue
            self.process(kind, known)
