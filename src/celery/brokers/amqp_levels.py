"""Adapter. How RabbitMQ delays messages, in the layout of Celery 5.5 and later (`[route.21]`).

There are 28 levels, each a queue in which a message stays for 2ⁿ seconds, and each behind a topic exchange. A message's
routing key begins with its delay in binary: where there is a 1 it goes through the level's queue, where there is a 0
past it. At the end it comes to one exchange, to which real Celery binds topic exchanges: their queues get it then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.brokers.amqp_methods import exists, passive_queue
from celery.drivers.amqp_frames import method, short, table

if TYPE_CHECKING:
    from celery.drivers.amqp import Link
    from celery.routing import Binding, QueueSpec

__all__ = [
    "DELIVERY", "ENTRANCE", "LEVELS", "LONGEST", "bind_delays", "declare_levels", "declare_path", "delayed_key",
    "has_delays", "is_quorum",
]  # fmt: skip

LEVELS = 28
#: Seconds.
LONGEST = 2**LEVELS - 1
#: Where delayed messages are sent, and where they come out.
ENTRANCE, DELIVERY = f"celery_delayed_{LEVELS - 1}", "celery_delayed_delivery"


def _exchange(level: int) -> str:
    return f"celery_delayed_{level}" if level >= 0 else DELIVERY


def declare_path(link: Link) -> None:
    """Once for each connection: the exchanges of all levels, in one round trip, and the way past each level's queue in
    another."""
    if "delayed" in link.declared:
        return
    names = [_exchange(level) for level in range(-1, LEVELS)]
    link.send(b"".join(method(40, 10, b"\0\0" + short(n) + short("topic") + b"\x02\0\0\0\0") for n in names))
    for _ in names:
        link.answer({(40, 11)})
    passing = [(_exchange(level), _exchange(level - 1), _key(level, "0")) for level in range(LEVELS)]
    link.send(
        b"".join(
            method(40, 30, b"\0\0" + short(below) + short(above) + short(key) + b"\0\0\0\0\0")
            for above, below, key in passing
        )
    )
    for _ in passing:
        link.answer({(40, 31)})
    link.declared["delayed"] = None


def declare_levels(link: Link, delay: int, kind: str) -> None:
    """The queues that a message with this delay (seconds) stops at; they are of this kind where they are made."""
    for level in range(LEVELS):
        if delay >> level & 1:
            _declare_level(link, level, kind)


def delayed_key(delay: int, key: str) -> str:
    """The routing key with which a message is sent to `ENTRANCE`: `delay` seconds later it comes out at `DELIVERY`."""
    return ".".join(f"{delay:0{LEVELS}b}") + f".{key}"


def is_quorum(queue: QueueSpec) -> bool:
    """Whether a queue is declared as one."""
    return queue.arguments.get("x-queue-type") == "quorum"


def has_delays(queue: QueueSpec) -> bool:
    """Whether its messages are delayed by whoever sends them: it is a quorum queue on a topic exchange."""
    return is_quorum(queue) and any(map(_is_told_apart, queue.bound))


def _is_told_apart(binding: Binding) -> bool:
    """Celery binds with any words before the key: a key without a word of its own would get all that is delayed."""
    return binding.exchange.type == "topic" and not {"*", "#"}.issuperset(binding.routing_key.split("."))


def bind_delays(link: Link, queue: QueueSpec, kind: str) -> str:
    """Have there what a message needs that was delayed for this queue by a client, ours or real Celery: the levels, and
    the bindings of its topic exchanges. Returns the name of another exchange that it is bound to, "" if there is none.
    """
    topics = [binding for binding in queue.bound if _is_told_apart(binding)]
    if topics:
        declare_path(link)
        declare_levels(link, LONGEST, kind)
    for binding in topics:
        exchange, key = short(binding.exchange.name), short(f"#.{binding.routing_key}")
        link.call(method(40, 30, b"\0\0" + exchange + short(DELIVERY) + key + b"\0\0\0\0\0"), {(40, 31)})
        link.call(method(50, 20, b"\0\0" + short(queue.name) + exchange + key + b"\0\0\0\0\0"), {(50, 21)})
    return next((binding.exchange.name for binding in queue.bound if binding not in topics), "")


def _declare_level(link: Link, level: int, kind: str) -> None:
    """The queue of a level; one that is there is taken as it is."""
    name = _exchange(level)
    if name in link.declared:
        return
    if exists(link, passive_queue(name, channel=2), (50, 11)) is None:
        arguments: dict[str, Any] = {
            "x-queue-type": kind,
            "x-message-ttl": 1000 << level,
            "x-dead-letter-exchange": _exchange(level - 1),
        }
        if kind == "quorum":  # from one level to the next nothing is lost either
            arguments |= {"x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once"}
        link.call(method(50, 10, b"\0\0" + short(name) + b"\x02" + table(arguments)), {(50, 11)})
    key = short(_key(level, "1"))
    link.call(method(50, 20, b"\0\0" + short(name) + short(name) + key + b"\0\0\0\0\0"), {(50, 21)})
    link.declared[name] = None


def _key(level: int, bit: str) -> str:
    return "*." * (LEVELS - 1 - level) + bit + ".#"
