"""Domain. Where a message goes: queues, routes, and the rules that choose between them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DESTINATION", "Binding", "DefaultRoute", "ExchangeSpec", "MapRoute", "QueueSpec", "Route", "destination",
    "expand_route", "merge_options", "queue_spec",
]  # fmt: skip


class ExchangeSpec(Struct, frozen=True):
    """An exchange as brokers see it."""

    name: str
    #: "direct", "topic", "fanout" or "headers"; on AMQP whatever else its server knows.
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: It is there already, and declared by others.
    no_declare: bool = False


class Binding(Struct, frozen=True):
    """What of an exchange a queue gets."""

    exchange: ExchangeSpec
    routing_key: str = ""
    #: What a headers exchange looks at.
    arguments: Mapping[str, Any] = field(default_factory=dict)


class QueueSpec(Struct, frozen=True):
    """A queue as brokers see it. kombu's `Queue` is the user's vocabulary; this is the value that crosses the port."""

    name: str
    #: "" is the default exchange: messages arrive by queue name.
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    #: `x-…` arguments, passed through (`[route.22]`).
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: False for queues that a publisher must not declare (`Broadcast`, `[wire.18]`).
    declare: bool = True
    #: It is there already, and declared by others, with whatever it is bound to.
    no_declare: bool = False
    #: Handed on when a worker subscribes to it.
    consumer_arguments: Mapping[str, Any] = field(default_factory=dict)
    #: All its bindings, where `exchange`, `exchange_type` and `routing_key` do not say everything.
    bindings: tuple[Binding, ...] = ()

    @property
    def bound(self) -> tuple[Binding, ...]:
        """Its bindings; on the default exchange it needs none."""
        if self.bindings or not self.exchange:
            return self.bindings
        return (Binding(ExchangeSpec(self.exchange, self.exchange_type, self.durable), self.routing_key),)


class Route(Struct, frozen=True):
    """Where to publish: exchange and routing key, and the queue to declare first, if one is known."""

    exchange: str
    routing_key: str
    queue: QueueSpec | None = None
    #: Of the exchange, for brokers that have to be told; "": nobody said.
    exchange_type: str = ""


#: Options of a call that say where it goes; a call without any of them goes where its name goes.
DESTINATION = frozenset({"queue", "exchange", "routing_key", "exchange_type"})


class DefaultRoute(Struct, frozen=True):
    """What a destination falls back to where neither the call nor its queue says more (`[route.4]`)."""

    exchange: str = "celery"
    routing_key: str = "celery"


def queue_spec(queue: Any) -> QueueSpec:
    """The value of a kombu `Queue` (or of anything with its attributes); a `QueueSpec` is given back as it is.

    Raises `TypeError` for anything else.
    """
    if isinstance(queue, QueueSpec):
        return queue
    if not hasattr(queue, "name") or not hasattr(queue, "routing_key"):
        raise TypeError(f"expected a queue's name or a kombu.Queue, got {queue!r} ({type(queue).__name__})")
    exchange = getattr(queue, "exchange", None)
    return QueueSpec(
        name=queue.name,
        exchange=getattr(exchange, "name", "") or "",
        exchange_type=getattr(exchange, "type", None) or "direct",
        routing_key=queue.routing_key or "",
        durable=bool(getattr(queue, "durable", True)),
        auto_delete=bool(getattr(queue, "auto_delete", False)),
        exclusive=bool(getattr(queue, "exclusive", False)),
        arguments=_queue_arguments(queue),
        # A Broadcast queue is each worker's own: a publisher that declared it would be one more reader (`[wire.18]`).
        declare=not any(kind.__name__ == "Broadcast" for kind in type(queue).__mro__),
        no_declare=bool(getattr(queue, "no_declare", False)),
        consumer_arguments=dict(getattr(queue, "consumer_arguments", None) or {}),
        bindings=_bindings(queue, exchange),
    )


def _bindings(queue: Any, exchange: Any) -> tuple[Binding, ...]:
    """kombu's: those that were given as such, else the one to the queue's exchange, where that has anything special."""
    given = getattr(queue, "bindings", None)
    if given:
        found = [Binding(_exchange_spec(b.exchange), b.routing_key or "", dict(b.arguments or {})) for b in given]
        return tuple(sorted(found, key=repr))  # they come as a set
    arguments = dict(getattr(queue, "binding_arguments", None) or {})
    if not getattr(exchange, "name", ""):
        return ()
    spec = _exchange_spec(exchange)
    if not arguments and spec == ExchangeSpec(spec.name, spec.type, bool(getattr(queue, "durable", True))):
        return ()
    return (Binding(spec, queue.routing_key or "", arguments),)


def _exchange_spec(exchange: Any) -> ExchangeSpec:
    return ExchangeSpec(
        exchange.name,
        exchange.type or "direct",
        durable=bool(getattr(exchange, "durable", True)),
        auto_delete=bool(getattr(exchange, "auto_delete", False)),
        arguments=dict(getattr(exchange, "arguments", None) or {}),
        no_declare=bool(getattr(exchange, "no_declare", False) or getattr(exchange, "passive", False)),
    )


def _queue_arguments(queue: Any) -> dict[str, Any]:
    """`x-…` arguments; kombu keeps the common ones as attributes, times in seconds (`[route.22]`)."""
    arguments = dict(getattr(queue, "queue_arguments", None) or {})
    for attribute, argument, factor in _SPELLED_OUT:
        value = getattr(queue, attribute, None)
        if value is not None:
            arguments[argument] = int(value * factor)
    return arguments


_SPELLED_OUT = (
    ("expires", "x-expires", 1000),
    ("message_ttl", "x-message-ttl", 1000),
    ("max_length", "x-max-length", 1),
    ("max_length_bytes", "x-max-length-bytes", 1),
    ("max_priority", "x-max-priority", 1),
)


def destination(options: Mapping[str, Any], queue: QueueSpec | None, default: DefaultRoute) -> Route:
    """Exchange and routing key for a call with these options and this queue (`[wire.17]`).

    A queue on a direct exchange is reached by its name, through the anonymous exchange; its own exchange is used only
    where the call names both an exchange and a routing key. Other kinds of exchange are always used, under their name.
    """
    exchange, routing_key = _name(options.get("exchange")), options.get("routing_key")
    kind = options.get("exchange_type") or (queue.exchange_type if queue else "direct")
    said = options.get("exchange_type") or getattr(options.get("exchange"), "type", None) or ""
    if queue is None:
        return Route(exchange or default.exchange, routing_key or default.routing_key, None, said)
    if kind == "direct" and not (exchange and routing_key):
        return Route("", queue.name, queue)
    name = exchange or queue.exchange or default.exchange
    if not said and name == queue.exchange:
        said = queue.exchange_type
    return Route(name, routing_key or queue.routing_key or default.routing_key, queue, said)


def _name(exchange: Any) -> str | None:
    """The name of an exchange, given as text or as a kombu `Exchange`."""
    return exchange if exchange is None or isinstance(exchange, str) else exchange.name


def merge_options(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both together; `over` wins wherever it says anything but None (`[route.11]`)."""
    merged = dict(under)
    merged.update((key, value) for key, value in over.items() if value is not None)
    return merged


def expand_route(route: Any) -> dict[str, Any] | None:
    """A router's answer as options (`[route.10]`): a string, or a queue, is `{"queue": it}`; None is no answer.

    Raises `TypeError` for what is none of these.
    """
    if route is None:
        return None
    if isinstance(route, str) or hasattr(route, "routing_key"):
        return {"queue": route}
    try:
        return dict(route)
    except (TypeError, ValueError) as exc:
        raise TypeError(
            f"expected a route as a queue's name or as options ({{'queue': 'video', …}}), got {route!r}"
        ) from exc


class MapRoute:
    """Routes by task name: exact names first, then patterns in the order in which they were written (`[route.9]`).

    A pattern is a compiled regular expression, or text with a `*` in it: a glob over the whole name. Both match from
    the beginning of the name, and case matters.
    """

    def __init__(self, map: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        self.map: dict[str, Any] = {}
        self.patterns: dict[re.Pattern[str], Any] = {}
        for pattern, route in map.items() if isinstance(map, Mapping) else map:
            if isinstance(pattern, re.Pattern):
                self.patterns.setdefault(pattern, route)
            elif "*" in pattern:
                # Two globs may be one expression ("*" and "**"): the first one written wins here too.
                self.patterns.setdefault(re.compile(fnmatch.translate(pattern)), route)
            else:
                self.map[pattern] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """The options for a task of this name; None if nothing here matches. What else is passed is not looked at."""
        if name in self.map:
            return expand_route(self.map[name])
        for pattern, route in self.patterns.items():
            if pattern.match(name):
                return expand_route(route)
        return None

    def __repr__(self) -> str:
        return f"<MapRoute: {len(self.map)} names, {len(self.patterns)} patterns>"
