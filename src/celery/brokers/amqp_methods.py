"""Adapter. What AMQP brokers are told: queues, exchanges and bindings as kombu declares them, and task messages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.drivers.amqp_errors import closed
from celery.drivers.amqp_frames import long_tag, method, packed, properties_of, short, table
from celery.exceptions import ImproperlyConfigured
from celery.message import Message
from celery.routing import ExchangeSpec

if TYPE_CHECKING:
    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came
    from celery.routing import QueueSpec

__all__ = [
    "ASK", "ASKED", "CONFIRMED_WITHIN", "CONFIRMING", "HELD", "RETURNED", "Confirms", "acknowledged",
    "await_confirms", "declare", "declare_exchange", "declare_queue", "envelope_of", "exists", "given_back",
    "has_exchange", "mark_deaths", "message_of", "message_properties", "packed_message", "passive_queue", "publish",
    "ready_queue", "rejected", "returned_from", "synchronize", "with_confirms",
]  # fmt: skip

#: A header of ours on a copy of what somebody held before (parked, or requeued from the dead): how often its process
#: died. It runs alone, as what is redelivered does.
_DEATHS = "x-celery-deaths"
#: What no task is to see: that, and how often the server has handed it out from a quorum queue.
_HIDDEN = frozenset({_DEATHS, "x-delivery-count"})
#: Flags and arguments of a plain queue.
_DURABLE = b"\x02\0\0\0\0"
#: Headers that the server adds on the way through levels of delay.
_TRACES = ("x-death", "x-first-death-", "x-last-death-")
#: How the queues are called in which long runs are kept.
HELD = "celery.held."
#: Seconds within which the server must have confirmed what was published.
CONFIRMED_WITHIN = 30.0
#: What is said of published messages: confirmed, refused, returned.
CONFIRMING = frozenset({(60, 80), (60, 120), (60, 50)})
#: What comes back because there is no queue for it.
RETURNED = (60, 50)
#: A question that costs nothing, and is answered however long confirms take; and its answer.
ASK, ASKED = method(60, 10, b"\0\0\0\0\0\0\0"), (60, 11)
#: Milliseconds by which a message outlives its task's date: whoever comes to it meanwhile says that it has expired.
_GRACE = 60_000
#: Milliseconds to live, at most; more closes the channel.
_LONGEST_LIFE = 0xFFFFFFFF
#: Of an envelope's properties, what AMQP has other places for.
_OURS = frozenset({"delivery_info", "delivery_tag", "body_encoding"})


def publish(exchange: str, routing_key: str, *, mandatory: bool = False) -> bytes:
    """The method before a message; one that reaches no queue is dropped, as with kombu, or comes back: `mandatory`."""
    return method(60, 40, b"\0\0" + short(exchange) + short(routing_key) + bytes((mandatory,)))


def passive_queue(name: str, channel: int) -> bytes:
    """Asks whether there is such a queue, and how many messages wait in it."""
    return method(50, 10, b"\0\0" + short(name) + b"\x01\0\0\0\0", channel)


def acknowledged(tag: int, multiple: bool) -> bytes:
    """The message with that number is done with; `multiple`: and all before it."""
    return method(60, 80, long_tag(tag) + bytes((multiple,)))


def given_back(tag: int, multiple: bool = False) -> bytes:
    """The message with that number goes back to where it was."""
    return method(60, 90, long_tag(tag) + b"\1")


def rejected(tag: int, multiple: bool = False) -> bytes:
    """The message with that number goes where the queue's dead letters go."""
    return method(60, 90, long_tag(tag) + b"\0")


def synchronize(link: Link, timeout: float | None = None) -> None:
    """On return the server has read what was sent before, and what it had to say of that has come. Changes nothing:
    consumers may have any number of messages, as they do."""
    link.call(ASK, {ASKED}, timeout)


def exists(link: Link, question: bytes, answer: tuple[int, int]) -> Came | None:
    """Ask on channel 2, which the server closes if there is no such thing: then None."""
    link.call(method(20, 10, b"\0", 2), {(20, 11)})
    came = link.call(question, {answer, (20, 40)})
    if came.kind == (20, 40):
        if came.arguments[:2] != struct.pack(">H", 404):
            raise closed(came.arguments, link.shown)
        return None
    link.call(method(20, 40, struct.pack(">HBHH", 200, 0, 0, 0), 2), {(20, 41)})
    return came


def declare_queue(link: Link, queue: QueueSpec) -> None:
    """Declare a queue, its exchanges and its bindings, once for each connection. Raises `ImproperlyConfigured`."""
    known = link.declared.get(queue.name)
    if known is queue or known == queue:
        return
    if not queue.no_declare:
        for binding in queue.bound:
            declare(link, binding.exchange)
        bits = 2 * queue.durable | 4 * queue.exclusive | 8 * queue.auto_delete
        link.call(method(50, 10, b"\0\0" + short(queue.name) + bytes((bits,)) + table(queue.arguments)), {(50, 11)})
        for binding in queue.bound:
            named = short(queue.name) + short(binding.exchange.name) + short(binding.routing_key)
            link.call(method(50, 20, b"\0\0" + named + b"\0" + table(binding.arguments)), {(50, 21)})
    link.declared[queue.name] = queue


def ready_queue(link: Link, name: str) -> None:
    """Nothing that is sent to the default exchange is to get lost because its queue is not there yet."""
    if name not in link.declared:
        if exists(link, passive_queue(name, channel=2), (50, 11)) is None:
            link.call(method(50, 10, b"\0\0" + short(name) + _DURABLE), {(50, 11)})
        link.declared[name] = None


def declare_exchange(link: Link, name: str, kind: str, *, durable: bool) -> None:
    """Once for each connection. One that is there is taken as it is: whether it is durable others have decided."""
    declare(link, ExchangeSpec(name, kind, durable))


def declare(link: Link, exchange: ExchangeSpec) -> None:
    """The same, with all that is to be said of it; nothing if others declare it."""
    key = f"exchange {exchange.name}"
    if key in link.declared or exchange.no_declare or exchange.name.startswith("amq."):
        return
    if not has_exchange(link, exchange.name):
        bits = 2 * exchange.durable | 4 * exchange.auto_delete
        named = b"\0\0" + short(exchange.name) + short(exchange.type)
        link.call(method(40, 10, named + bytes((bits,)) + table(exchange.arguments)), {(40, 11)})
    link.declared[key] = None


def has_exchange(link: Link, name: str) -> bool:
    """Whether it is there, of whatever type."""
    question = method(40, 10, b"\0\0" + short(name) + short("direct") + b"\x01\0\0\0\0", 2)
    return exists(link, question, (40, 11)) is not None


def with_confirms(link: Link) -> None:
    """Have the server confirm what is published from now on. Raises `ImproperlyConfigured` where it does not."""
    if link.published is not None:
        return
    if "publisher_confirms" not in link.capabilities:
        raise ImproperlyConfigured(
            f"broker_transport_options: confirm_publish needs publisher confirms, which {link.shown} does not offer"
        )
    link.call(method(85, 10, b"\0"), {(85, 11)})
    link.published = 0


def await_confirms(link: Link, n: int, timeout: float = CONFIRMED_WITHIN) -> None:
    """Wait until the last n messages are confirmed. Raises `OperationalError` if one is not, or was returned."""
    confirms = Confirms(link, n)
    while confirms.missing:
        confirms.take(link.answer(CONFIRMING, timeout))
    if confirms.refused:
        raise OperationalError(confirms.complaint)


class Confirms:
    """Which of the last n messages over a connection the server has confirmed."""

    def __init__(self, link: Link, n: int) -> None:
        assert link.published is not None
        self._shown = link.shown
        self._first = link.published + 1
        self._n = n
        link.published += n
        self.missing = set(range(self._first, link.published + 1))
        #: Places, from 0, of those that it has refused.
        self.refused: set[int] = set()

    def take(self, came: Came) -> None:
        """Raises `OperationalError` for a message that came back: there is no queue for it."""
        if came.kind == (60, 50):
            raise OperationalError(f"{self._shown} has no queue for a message: {came.arguments!r}")
        tag, multiple = int.from_bytes(came.arguments[:8], "big"), came.arguments[8] & 1
        told = {each for each in self.missing if each <= tag} if multiple else {tag} & self.missing
        if came.kind == (60, 120):
            self.refused |= {each - self._first for each in told}
        self.missing -= told

    @property
    def complaint(self) -> str:
        return f"{self._shown} has not accepted {len(self.refused)} of {self._n} messages (a queue is full, or away)"


def returned_from(arguments: bytes) -> tuple[str, str]:
    """Exchange and routing key of a message that came back; before them stand a code and a text."""
    start = 3 + arguments[2]
    middle = start + 1 + arguments[start]
    exchange, key = arguments[start + 1 : middle], arguments[middle + 1 : middle + 1 + arguments[middle]]
    return exchange.decode("utf-8", "replace"), key.decode("utf-8", "replace")


def message_properties(message: Message) -> dict[str, Any]:
    """A message's properties as AMQP has them, headers among them."""
    found = {name: value for name, value in message.properties.items() if name not in _OURS}
    found["headers"] = message.headers
    found["content_type"], found["content_encoding"] = message.content_type, message.content_encoding
    found.setdefault("delivery_mode", 2)
    if found.get("priority") is None:  # a queue with priorities takes that as 0, and a task reads what was sent
        found.pop("priority", None)
    if found.get("expiration"):
        life = int(found["expiration"]) + _GRACE
        if life > _LONGEST_LIFE:
            del found["expiration"]
        else:
            found["expiration"] = str(life)
    return found


def packed_message(message: Message) -> bytes:
    """Properties and headers, as they travel."""
    return packed(message_properties(message))


def mark_deaths(properties: bytes, deaths: int) -> bytes:
    """For a copy of a task message that somebody held; what is none stays as it is."""
    try:
        found = properties_of(properties)
        if not (found.get("headers") or {}).get("task"):
            return properties
        return packed({**found, "headers": {**found["headers"], _DEATHS: deaths}})
    except ValueError:
        return properties


def message_of(came: Came, exchange: str, routing_key: str, redelivered: bool) -> Message:
    """The task message that came. Raises `ValueError`, `MalformedMessage` among them, saying what came instead."""
    properties = properties_of(came.properties)
    headers = properties.pop("headers", None) or {}
    if exchange == "celery_delayed_delivery":  # what it went through is nobody's concern
        exchange, routing_key = "", routing_key.split(".", 28)[-1].removeprefix("to:")
        headers = _untraced(headers)
    elif str(headers.get("x-first-death-queue", "")).startswith(HELD):
        headers = _untraced(headers)
    if not _HIDDEN.isdisjoint(headers):
        if _DEATHS in headers:
            redelivered, properties["delivery_info"] = True, {"deaths": headers[_DEATHS]}
        headers = {name: value for name, value in headers.items() if name not in _HIDDEN}
    properties.setdefault("priority", None)
    return Message(
        headers,
        came.body,
        content_type=properties.pop("content_type", None) or "application/data",
        content_encoding=properties.pop("content_encoding", None) or "binary",
        properties=properties,
        exchange=exchange,
        routing_key=routing_key,
        redelivered=redelivered,
    )


def _untraced(headers: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if not name.startswith(_TRACES)}


def envelope_of(came: Came, exchange: str, routing_key: str) -> bytes:
    """What came and is no protocol 2 message, as the envelope that its readers know; or its bytes, if that is all."""
    try:
        properties = properties_of(came.properties)
        headers = properties.pop("headers", None) or {}
        content_type = properties.pop("content_type", None)
        if content_type is None and not headers:
            return came.body
        return Message(
            headers,
            came.body,
            properties=properties,
            content_type=content_type or "application/data",
            content_encoding=properties.pop("content_encoding", None) or "binary",
            exchange=exchange,
            routing_key=routing_key,
            named=("?", "?"),
        ).to_envelope()
    except (ValueError, TypeError, OverflowError, RecursionError):
        return came.body
