"""Application. The dispatcher: tells events to whoever listens now (`[event.14]`)."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, ClassVar

from celery.app import app_or_default
from celery.events.event import Event, get_exchange, group_from
from celery.events.ways import NoticeProducer, connection_of, kombu_producer, own_carrier
from celery.utils.nodenames import anon_nodename
from celery.utils.time import utcoffset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["EventDispatcher"]

#: How many messages wait at most for a broker that is away; the oldest go first.
_OFFLINE_LIMIT = 10_000


class Groups(set[str]):
    """A set that tells when it is changed."""

    on_change: set[Callable[[], object]]

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__(names)
        self.on_change = set()

    def changed(self) -> None:
        for listener in list(self.on_change):
            listener()

    def add(self, name: str) -> None:
        super().add(name)
        self.changed()

    def discard(self, name: object) -> None:
        super().discard(name)
        self.changed()

    def remove(self, name: str) -> None:
        super().remove(name)
        self.changed()

    def update(self, *names: Iterable[str]) -> None:
        super().update(*names)
        self.changed()

    def clear(self) -> None:
        super().clear()
        self.changed()

    def replace(self, names: Iterable[str]) -> None:
        super().clear()
        self.update(names)


class EventDispatcher:
    """Tells events. Thread-safe.

    `connection` may be any connection of kombu's; None: to the app's broker. Events of a group in `buffer_group` are
    gathered, and told as one list: by `flush`, or when `buffer_limit` of them have come. `groups`: only these; empty:
    all. What cannot be sent is kept until it can, if `buffer_while_offline`: the last 10,000.
    """

    DISABLED_TRANSPORTS: ClassVar[set[str]] = {"sql"}
    app: Any = None
    #: Functions that are called, without arguments, when this is enabled or disabled.
    on_enabled: set[Callable[[], object]]
    on_disabled: set[Callable[[], object]]

    def __init__(
        self,
        connection: Any = None,
        hostname: str | None = None,
        enabled: bool = True,
        channel: Any = None,
        buffer_while_offline: bool = True,
        app: Any = None,
        serializer: str | None = None,
        groups: Iterable[str] | None = None,
        delivery_mode: int = 1,
        buffer_group: Iterable[str] | None = None,
        buffer_limit: int = 24,
        on_send_buffered: Callable[[], object] | None = None,
    ) -> None:
        self.app = app_or_default(app or self.app)
        self.connection = connection
        self.channel = channel
        self.hostname = hostname or anon_nodename()
        self.buffer_while_offline = buffer_while_offline
        self.serializer = serializer or self.app.conf.event_serializer
        self._groups = Groups(groups or ())
        self.delivery_mode = delivery_mode
        self.buffer_group = frozenset(buffer_group or ())
        self.buffer_limit = buffer_limit
        self.on_send_buffered = on_send_buffered
        self.mutex = threading.RLock()
        self.clock = self.app.clock
        self.pid = os.getpid()
        self.tzoffset = [-time.timezone, -time.altzone]
        self.headers = {"hostname": self.hostname}
        self.on_enabled, self.on_disabled = set(), set()
        #: How many messages were dropped because the broker was away for too long.
        self.dropped = 0
        self.enabled = False
        self.producer: Any = None
        self._exchange_name = self.app.conf.event_exchange
        self._group_buffer: dict[str, list[Any]] = defaultdict(list)
        self._outbound: deque[tuple[Any, str]] = deque()
        if enabled and not self._is_disabled_here():
            self.enable()

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def groups(self) -> Groups:
        """Groups of events that are told; empty: all. May be changed at any time."""
        return self._groups

    @groups.setter
    def groups(self, groups: Iterable[str]) -> None:
        self._groups.replace(groups)

    # -- on and off --------------------------------------------------------------------------------------------------

    def enable(self) -> None:
        """Send from now on. Connects to nothing yet."""
        self.producer = self._make_producer()
        self.enabled = True
        for callback in list(self.on_enabled):
            callback()

    def disable(self) -> None:
        """Send nothing from now on."""
        if self.enabled:
            self.enabled = False
            self._release()
            for callback in list(self.on_disabled):
                callback()

    def close(self) -> None:
        """Let go of the connection; what is gathered is not sent. Idempotent."""
        self._release()

    def _release(self) -> None:
        with self.mutex:
            producer, self.producer = self.producer, None
        if producer is not None:
            producer.close()

    def _is_disabled_here(self) -> bool:
        if self.connection is None and self.channel is None:
            return False
        connection = connection_of(self.connection if self.connection is not None else self.channel)
        return connection.transport.driver_type in self.DISABLED_TRANSPORTS

    def _make_producer(self) -> Any:
        given = self.connection if self.connection is not None else self.channel
        carrier = own_carrier(self.app, given)
        if carrier is not None:
            return NoticeProducer(carrier, self._exchange_name)
        connection = connection_of(given) or self.app.connection_for_write()
        exchange = get_exchange(connection, name=self._exchange_name)
        return kombu_producer(self.app, connection, self.channel, exchange, self.serializer)

    @property
    def publisher(self) -> Any:
        """The producer, by its old name."""
        return self.producer

    @publisher.setter
    def publisher(self, producer: Any) -> None:
        self.producer = producer

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(
        self,
        type: str,
        blind: bool = False,
        utcoffset: Callable[[], float] = utcoffset,
        retry: bool = False,
        retry_policy: dict[str, Any] | None = None,
        Event: Callable[..., Any] = Event,  # noqa: N803 - its public name
        **fields: Any,
    ) -> Any:
        """Tell an event, if events of its group are told at all. `blind`: without ticking the logical clock."""
        if not self.enabled:
            return
        group = group_from(type)
        if self.groups and group not in self.groups:
            return
        if group not in self.buffer_group:
            self.publish(
                type, fields, self.producer, blind, Event, utcoffset=utcoffset, retry=retry, retry_policy=retry_policy
            )
            return
        with self.mutex:
            waiting = self._group_buffer[group]
            waiting.append(self._event(type, fields, blind, Event, utcoffset))
            full = len(waiting) >= self.buffer_limit
        if full:
            self.flush()
        elif self.on_send_buffered is not None:
            self.on_send_buffered()

    def publish(
        self,
        type: str,
        fields: dict[str, Any],
        producer: Any,
        blind: bool = False,
        Event: Callable[..., Any] = Event,  # noqa: N803 - its public name
        **kwargs: Any,
    ) -> Any:
        """Tell an event by this producer, whatever is enabled."""
        offset = kwargs.pop("utcoffset", utcoffset)
        with self.mutex:
            event = self._event(type, fields, blind, Event, offset)
            self._publish(event, producer, type.replace("-", "."), **kwargs)

    def _event(
        self, type: str, fields: dict[str, Any], blind: bool, make: Callable[..., Any], offset: Callable[[], float]
    ) -> Any:
        clock = None if blind else self.clock.forward()
        return make(type, hostname=self.hostname, utcoffset=offset(), pid=self.pid, clock=clock, **fields)

    def _publish(
        self, event: Any, producer: Any, routing_key: str, retry: bool = False, retry_policy: Any = None, **_: Any
    ) -> None:
        try:
            self._hand_over(event, producer, routing_key, retry, retry_policy)
        except Exception:
            if not self.buffer_while_offline:
                raise
            self._outbound.append((event, routing_key))
            while len(self._outbound) > _OFFLINE_LIMIT:
                self._outbound.popleft()
                self.dropped += 1

    def _hand_over(
        self, event: Any, producer: Any, routing_key: str, retry: bool = False, retry_policy: Any = None
    ) -> None:
        if isinstance(producer, NoticeProducer):
            producer.publish(
                event, routing_key, serializer=self.serializer, headers=self.headers, delivery_mode=self.delivery_mode
            )
            return
        exchange = get_exchange(connection_of(producer.channel), name=self._exchange_name)
        producer.publish(
            event,
            routing_key=routing_key,
            exchange=exchange.name,
            retry=retry,
            retry_policy=retry_policy,
            declare=[exchange],
            serializer=self.serializer,
            headers=self.headers,
            delivery_mode=self.delivery_mode,
        )

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what is kept from when the broker was away (`errors`), and what is gathered (`groups`).

        Raises what the first one raises that cannot be sent; it is still kept.
        """
        with self.mutex:
            while errors and self._outbound:
                event, routing_key = self._outbound[0]
                self._hand_over(event, self.producer, routing_key)
                self._outbound.popleft()
            ready = [group for group, waiting in self._group_buffer.items() if waiting] if groups else []
            for group in ready:
                self._publish(self._group_buffer.pop(group), self.producer, f"{group}.multi")

    def send_all(self, type: str, fields_of_each: Iterable[dict[str, Any]]) -> None:
        """Tell events of one type as one list."""
        group = group_from(type)
        if self.enabled and (not self.groups or group in self.groups):
            with self.mutex:
                events = [self._event(type, fields, False, Event, utcoffset) for fields in fields_of_each]
                self._publish(events, self.producer, f"{group}.multi")

    def tell_many(self, group: str, encoded: tuple[str, str, bytes]) -> int | None:
        """Tell a list of events of one group that is encoded already; returns how many heard it, None if that is not
        known. Raises `OperationalError`; nothing is kept."""
        with self.mutex:
            if isinstance(self.producer, NoticeProducer):
                return self.producer.tell(encoded, f"{group}.multi", self.headers, self.delivery_mode)
            elif self.producer is not None:
                content_type, content_encoding, body = encoded
                exchange = get_exchange(connection_of(self.producer.channel), name=self._exchange_name)
                self.producer.publish(
                    body,
                    routing_key=f"{group}.multi",
                    exchange=exchange.name,
                    declare=[exchange],
                    content_type=content_type,
                    content_encoding=content_encoding,
                    headers=self.headers,
                    delivery_mode=self.delivery_mode,
                )
        return None

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Take over what another dispatcher could not send."""
        self._outbound.extend(other.kept())

    def kept(self) -> Sequence[tuple[Any, str]]:
        """What could not be sent: events (or lists of them) and routing keys."""
        return list(self._outbound)
