"""Application. The two ways that events go: over the app's own broker, by its port; over any other by kombu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu import Connection, Producer

from celery import codecs
from celery.ports import Broadcasting, Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.app.base import Celery

__all__ = ["NoticeProducer", "connection_of", "own_carrier"]


class NoticeProducer:
    """Publishes as kombu's producer does, on the port: what is published is told to whoever listens now."""

    def __init__(self, carrier: Broadcasting, exchange: str, *, durable: bool = True) -> None:
        self._carrier = carrier
        self._exchange = exchange
        self._durable = durable

    def publish(
        self,
        body: Any,
        routing_key: str = "",
        *,
        serializer: str | None = None,
        headers: Mapping[str, Any] | None = None,
        delivery_mode: int | None = 1,
        **_: Any,
    ) -> None:
        """Raises `OperationalError` if the broker is away: an event is not worth waiting for it."""
        self.tell(codecs.encode(body, serializer), routing_key, headers, delivery_mode)

    def tell(
        self,
        encoded: tuple[str, str, bytes],
        routing_key: str,
        headers: Mapping[str, Any] | None,
        delivery_mode: int | None = 1,
    ) -> int | None:
        """As `publish`, of a body that is encoded: content type, content encoding and bytes. How many heard it
        (`Broadcasting.tell`)."""
        content_type, content_encoding, body = encoded
        notice = Notice(
            self._exchange,
            "topic",
            routing_key,
            body,
            content_type,
            content_encoding,
            dict(headers or {}),
            {"delivery_mode": delivery_mode or 1},
            durable=self._durable,
        )
        return self._carrier.tell([notice])

    def close(self) -> None:
        """Nothing to be done: the connections are the broker's."""


def connection_of(given: Any) -> Any:
    """The kombu connection of what may be a channel of one."""
    return given if given is None or isinstance(given, Connection) else given.connection.client


def own_carrier(app: Celery, given: Any) -> Broadcasting | None:
    """The app's own broker, if that is where `given` leads (a kombu connection or channel; None: to the app's), and if
    it carries notices."""
    carrier: Any = app.assembly.broker
    if not isinstance(carrier, Broadcasting):
        return None
    if given is None:
        return carrier
    connection = connection_of(given)
    embedded = getattr(connection.transport_cls, "broker", None)
    if embedded is not None:
        return carrier if embedded is carrier else embedded if isinstance(embedded, Broadcasting) else None
    own = app.connection_for_write()
    same = _address(connection) == _address(own)
    return carrier if same else None


def kombu_producer(app: Celery, connection: Any, channel: Any, exchange: Any, serializer: str) -> Producer:
    """A producer of kombu's for events."""
    return Producer(channel or connection, exchange=exchange, serializer=serializer, auto_declare=False)


def _address(connection: Any) -> tuple[Any, ...]:
    """What tells where it leads, and as whom."""
    options = dict(connection.transport_options or {})
    return connection.as_uri(include_password=True), connection.virtual_host, bool(connection.ssl), repr(options)
