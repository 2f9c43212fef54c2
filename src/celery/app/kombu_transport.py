"""Compatibility. A kombu transport over an app's broker: what kombu publishes and declares there goes to our port."""

from __future__ import annotations

import json
from collections import deque
from itertools import count
from queue import Empty
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from kombu import Connection
from kombu.transport import virtual

from celery.app.utils import sanitize_url
from celery.brokers.notices import to_envelope
from celery.message import Message
from celery.ports import Broadcasting, Depth, Notice, Publication
from celery.routing import QueueSpec, Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.ports import Broker, Consumer, Delivery, Listener

__all__ = ["Channel", "Transport", "connection"]


def connection(app: Celery, publish: Callable[[Any], None] | None = None, **given: Any) -> Connection:
    """A kombu connection on the broker that `app` publishes to. `publish` stands in for the broker's own."""
    broker = app.assembly.broker
    url = str(app.conf.broker_write_url or "amqp://")
    scheme = url.partition("://")[0].partition("+")[0].removesuffix("s")
    name = {"pyamqp": "amqp"}.get(scheme, scheme)
    made = type(
        "Transport",
        (Transport,),
        {
            "broker": broker,
            "publish": staticmethod(publish or broker.publish),
            "driver_type": name,
            "driver_name": name,
        },
    )
    return _Connection(None, **{**given, "transport": made})


class _Connection(Connection):  # type: ignore[misc]  # kombu is not typed
    """Shown as the broker's own URL: the transport is a class, which kombu would show in its place."""

    def as_uri(self, include_password: bool = False, mask: str = "**", *args: Any) -> str:
        shown = getattr(getattr(self.transport_cls, "broker", None), "url_text", None)
        uri: str = sanitize_url(shown, mask) if shown else super().as_uri(include_password, mask, *args)
        return uri


class Declared(NamedTuple):
    """What kombu's callers read of a declared queue."""

    queue: str
    message_count: int
    consumer_count: int


class Channel(virtual.Channel):  # type: ignore[misc]  # kombu is not typed
    """Publishes on the broker port, declares queues there and takes from them; for whoever insists on kombu.

    A message that was taken is in the broker's custody until kombu acknowledges it: it goes back if the channel ends.
    """

    #: kombu would publish again what was not acknowledged; our broker gives it back itself.
    do_restore = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: dict[str, tuple[Consumer, Delivery]] = {}
        self._tags = count(1)
        self._kinds: dict[str, str] = {}
        self._queues: dict[str, dict[str, Any]] = {}
        self._taking: dict[str, Consumer] = {}
        #: Mailboxes, and what was heard there and is not taken yet.
        self._listening: dict[str, Listener] = {}
        self._bound: dict[str, QueueSpec] = {}
        self._heard: dict[str, deque[Notice]] = {}

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> Message:
        """Not yet addressed."""
        headers, properties = dict(headers or {}), dict(properties or {})
        if priority:
            properties["priority"] = priority
        task_id = headers.get("id") or properties.get("correlation_id") or "message"
        return Message(
            headers,
            body.encode() if isinstance(body, str) else bytes(body),
            properties=properties,
            content_type=content_type or "application/data",
            content_encoding=content_encoding or "binary",
            named=(headers.get("task") or "message", task_id),
        )

    def basic_publish(self, message: Message, exchange: str, routing_key: str, **_: Any) -> None:
        route = Route(exchange or "", routing_key or "")
        addressed = Message(
            message.headers,
            message.body,
            properties=message.properties,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            exchange=route.exchange,
            routing_key=route.routing_key,
            named=(message.task, message.id),
        )
        if route.exchange and "task" not in message.headers:
            self._tell(addressed)
        self.connection.publish([Publication(addressed, route)])

    def _tell(self, message: Message) -> None:
        """What is no task may be meant for those who listen now: a command, a reply, events."""
        broker = self.connection.broker
        if isinstance(broker, Broadcasting):
            notice = Notice(
                message.exchange,
                self._kinds.get(message.exchange, "direct"),
                message.routing_key,
                message.body,
                message.content_type,
                message.content_encoding,
                message.headers,
                message.properties,
            )
            broker.tell([notice])

    def exchange_declare(self, exchange: str | None = None, type: str = "direct", *_: Any, **__: Any) -> None:
        self._kinds[exchange or ""] = type

    def queue_declare(self, queue: str | None = None, passive: bool = False, **given: Any) -> Any:
        """Raises what kombu's callers expect of a passive look at a queue: nothing; a missing queue is empty."""
        name = queue or ""
        if not passive:
            self._queues[name] = given
            if not self._is_mailbox(name):
                self.connection.broker.declare([self._spec(name)])
        return Declared(name, self._size(name), 0)

    def queue_bind(self, queue: str, exchange: str | None = None, routing_key: str = "", *_: Any, **__: Any) -> None:
        spec = self._spec(queue, exchange or "", self._kinds.get(exchange or "", "direct"), routing_key)
        if spec.exchange and self._is_mailbox(queue):
            if self._bound.get(queue) == spec:
                return  # kombu declares again what it consumes from: what was heard meanwhile must stay
            before = self._listening.get(queue)
            self._listening[queue] = self.connection.broker.listen([spec])
            self._bound[queue] = spec
            heard = self._heard.setdefault(queue, deque())
            if before is not None:
                heard.extend(before.hear(0.0))
                before.close()
        else:
            self.connection.broker.declare([spec])

    def _is_mailbox(self, queue: str) -> bool:
        """A queue that goes with its consumer is one that notices are heard at, and nothing lies on."""
        given = self._queues.get(queue, {})
        return bool(given.get("auto_delete")) and isinstance(self.connection.broker, Broadcasting)

    def queue_purge(self, queue: str, **_: Any) -> int:
        if queue in self._listening:
            heard = self._hear(queue)
            count = len(heard)
            heard.clear()
            return count
        purged: int = self.connection.broker.purge(queue)
        return purged

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> int:
        """A queue is no more than the messages on it; at a mailbox nothing is heard any more."""
        listener = self._listening.pop(queue, None)
        self._bound.pop(queue, None)
        self._heard.pop(queue, None)
        if listener is not None:
            listener.close()
            return 0
        return 0 if if_empty and self._size(queue) else self.queue_purge(queue)

    def _purge(self, queue: str) -> int:
        return self.queue_purge(queue)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        """One message for a consumer of kombu's, or `Empty`."""
        if queue in self._listening:
            heard = self._hear(queue)
            if not heard:
                raise Empty
            told: dict[str, Any] = json.loads(to_envelope(heard.popleft()))
            return told
        consumer = self._taking.get(queue)
        if consumer is None:
            consumer = self._taking[queue] = self.connection.broker.consume([self._spec(queue)])
        deliveries = consumer.fetch(1, 0.0)
        if not deliveries:
            raise Empty
        message = deliveries[0].message
        envelope = deliveries[0].raw if message is None else message.to_envelope()
        try:
            read: dict[str, Any] = json.loads(envelope or b"{}")
            tag = read.setdefault("properties", {})["delivery_tag"] = f"{queue}.{next(self._tags)}"
        except (ValueError, TypeError, AttributeError):  # no message of kombu's: kept as a dead letter
            consumer.reject(deliveries, requeue=False)
            consumer.flush()
            raise Empty from None
        self._held[tag] = (consumer, deliveries[0])
        return read

    def _hear(self, queue: str) -> deque[Notice]:
        heard = self._heard[queue]
        heard.extend(self._listening[queue].hear(0.0))
        return heard

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self._acknowledge(message.delivery_tag)
        return message

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        def acknowledged(message: Any) -> Any:
            self._acknowledge(message.delivery_tag)
            return callback(message)

        taken = acknowledged if no_ack else callback
        return super().basic_consume(queue, no_ack, taken, consumer_tag, **kwargs)

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        self.qos.ack(delivery_tag)
        if multiple:  # all that were taken before it too
            for tag in list(self._held):
                self._acknowledge(tag)
                if tag == delivery_tag:
                    break
        else:
            self._acknowledge(delivery_tag)

    def basic_reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        self.qos.ack(delivery_tag)
        held = self._held.pop(delivery_tag, None)
        if held is not None:
            held[0].reject([held[1]], requeue=requeue)
            held[0].flush()

    def _acknowledge(self, tag: Any) -> None:
        held = self._held.pop(tag, None)
        if held is not None:
            held[0].ack([held[1]])
            held[0].flush()

    def close(self) -> None:
        consumers, self._taking = self._taking, {}
        listeners, self._listening = self._listening, {}
        self._bound.clear()
        self._held.clear()
        for consumer in consumers.values():  # gives back what was not acknowledged
            consumer.close()
        for listener in listeners.values():
            listener.close()
        super().close()

    def _size(self, queue: str) -> int:
        if queue in self._listening:
            return len(self._hear(queue))
        broker = self.connection.broker
        return broker.depth(queue) if isinstance(broker, Depth) else 0

    def _spec(self, name: str, exchange: str = "", kind: str = "direct", routing_key: str = "") -> QueueSpec:
        given = self._queues.get(name, {})
        return QueueSpec(
            name,
            exchange,
            kind,
            routing_key or name,
            durable=given.get("durable", True),
            auto_delete=given.get("auto_delete", False),
            exclusive=given.get("exclusive", False),
            arguments=given.get("arguments") or {},
        )


class Transport(virtual.Transport):  # type: ignore[misc]  # kombu is not typed
    """Nothing is opened here: the broker keeps its own connections."""

    Channel = Channel
    #: Seconds between two looks at the queues and mailboxes of those who wait for events of kombu's.
    polling_interval = 0.02
    #: There is no host, and kombu need not miss it.
    default_connection_params: ClassVar[dict[str, Any]] = {}
    broker: Broker
    publish: Callable[[Any], None]

    def establish_connection(self) -> Any:
        return self

    def close_connection(self, connection: Any) -> None:
        for channel in list(self.channels):
            channel.close()

    def driver_version(self) -> str:
        return "embedded"
