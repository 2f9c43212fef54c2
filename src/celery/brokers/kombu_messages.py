"""Adapter. What kombu's channels are told, and what they give: queues, exchanges, task messages and notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celery.message import Message
from celery.ports import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.drivers.kombu import Line
    from celery.routing import QueueSpec

__all__ = [
    "declare_exchange",
    "declare_exchanges",
    "declare_queue",
    "envelope_of",
    "message_of",
    "notice_of",
    "prepared",
    "ready_queue",
]

#: Of what travels, what kombu writes anew.
_KOMBUS = frozenset({"delivery_info", "delivery_tag", "body_encoding", "priority"})


class _Addressed(Protocol):
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def properties(self) -> Mapping[str, Any]: ...
    @property
    def content_type(self) -> str: ...
    @property
    def content_encoding(self) -> str: ...


def prepared(line: Line, body: bytes, message: _Addressed, **properties: Any) -> Any:
    """A message or notice as the channel of a line takes it."""
    properties |= {name: value for name, value in message.properties.items() if name not in _KOMBUS}
    properties.setdefault("delivery_mode", 2)
    return line.channel.prepare_message(
        body,
        priority=message.properties.get("priority") or 0,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=dict(message.headers),
        properties=properties,
    )


def declare_queue(line: Line, queue: QueueSpec) -> None:
    """Declare a queue, its exchanges and its bindings, once for each line."""
    known = line.declared.get(queue.name)
    if known is queue or known == queue:
        return
    line.declared[queue.name] = queue
    if queue.no_declare:
        return
    declare_exchanges(line, queue)
    line.channel.queue_declare(
        queue=queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments) or None,
    )
    for binding in queue.bound:
        line.channel.queue_bind(
            queue.name, binding.exchange.name, binding.routing_key, arguments=dict(binding.arguments) or None
        )


def declare_exchanges(line: Line, queue: QueueSpec) -> None:
    """Those that a queue is bound to. A publisher needs them too: it is here that kombu finds out their types."""
    for exchange in (binding.exchange for binding in queue.bound):
        if not exchange.no_declare:
            declare_exchange(line, exchange.name, exchange.type, durable=exchange.durable)


def ready_queue(line: Line, name: str) -> None:
    """What is sent to the default exchange is not to get lost because its queue is not there yet."""
    if name not in line.declared:
        line.channel.queue_declare(queue=name, durable=True, exclusive=False, auto_delete=False)
        line.declared[name] = None


def declare_exchange(line: Line, name: str, kind: str, *, durable: bool) -> None:
    """Once for each line."""
    key = f"exchange {name}"
    if key not in line.declared:
        line.channel.exchange_declare(exchange=name, type=kind, durable=durable, auto_delete=False)
        line.declared[key] = None


def message_of(came: Any) -> Message:
    """The task message in one of kombu's. Raises `ValueError`, `MalformedMessage` among them."""
    if came.errors:
        raise ValueError(f"it cannot be decompressed: {came.errors[0]!r}")
    return _message(came, redelivered=_is_redelivered(came, came.delivery_info or {}))


def envelope_of(came: Any) -> bytes:
    """What came and is no protocol 2 message, as the envelope that its readers know; or its body, if that is all."""
    if not came.headers and not came.content_type:
        return _body(came)
    return _message(came, named=("?", "?")).to_envelope()


def _message(came: Any, *, redelivered: bool = False, named: tuple[str, str] | None = None) -> Message:
    info = came.delivery_info or {}
    return Message(
        _headers(came),
        _body(came),
        properties=_properties(came),
        content_type=came.content_type or "application/data",
        content_encoding=came.content_encoding or "binary",
        exchange=info.get("exchange") or "",
        routing_key=info.get("routing_key") or "",
        redelivered=redelivered,
        named=named,
    )


def notice_of(came: Any, exchange_type: str) -> Notice:
    """The notice in a message of kombu's."""
    info = came.delivery_info or {}
    return Notice(
        info.get("exchange") or "",
        exchange_type,
        info.get("routing_key") or "",
        _body(came),
        came.content_type or "application/data",
        came.content_encoding or "binary",
        _headers(came),
        {name: value for name, value in (came.properties or {}).items() if name not in _KOMBUS},
    )


def _headers(came: Any) -> dict[str, Any]:
    """Without the compression: kombu has undone it."""
    headers = dict(came.headers or {})
    if not came.errors:
        headers.pop("compression", None)
    return headers


def _body(came: Any) -> bytes:
    body = came.body
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def _properties(came: Any) -> dict[str, Any]:
    return {name: value for name, value in (came.properties or {}).items() if name == "priority" or name not in _KOMBUS}


def _is_redelivered(came: Any, info: Mapping[str, Any]) -> bool:
    """AMQP says it with the delivery; kombu's own brokers in the message as it lay there, which it has no name for."""
    raw = getattr(came, "_raw", None)
    return bool(info.get("redelivered") or (isinstance(raw, dict) and raw.get("redelivered")))
