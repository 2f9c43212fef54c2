"""Application. The queues that an app knows, and which of them a worker takes from ([route.1] to [route.7]).

kombu's `Queue` is what users give and get; inside, a queue that nobody described with kombu is a `QueueSpec`, so that
an app without such descriptions never loads kombu. Whoever asks for `queues[name]` gets a `kombu.Queue`, made then.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from celery.routing import QueueSpec, queue_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kombu import Exchange, Queue

__all__ = ["Queues", "kombu_queue"]

#: Words of a queue's description that a `QueueSpec` has a place for; with any other one kombu reads the description.
_PLAIN = frozenset({"exchange", "exchange_type", "routing_key", "binding_key"})
_QUEUE_TYPES = ("classic", "quorum")


class Queues(MutableMapping[str, "Queue"]):
    """Name or alias → queue. `queues` are kombu queues, or a mapping of names to kombu queues or to their options.

    With `create_missing`, looking up an unknown name adds a queue with an exchange and a routing key of the same name
    (`autoexchange(name)` makes the exchange, if given); such a queue is not taken from until it is selected.
    Looking up raises KeyError for unknown names otherwise, and ValueError if `create_missing_queue_type` is neither
    "classic" nor "quorum".
    """

    def __init__(
        self,
        queues: Any = None,
        default_exchange: Any = None,
        create_missing: bool = True,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[..., Any] | None = None,
        max_priority: int | None = None,
        default_routing_key: str | None = None,
    ) -> None:
        self.default_exchange = default_exchange
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.autoexchange = autoexchange
        self.max_priority = max_priority
        self.default_routing_key = default_routing_key
        self.aliases: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        #: Called whenever queues are added, replaced or removed.
        self.on_change: Callable[[], None] | None = None
        self._entries: dict[str, QueueSpec | Queue] = {}
        #: Types of their exchanges; None: nobody has asked since they changed.
        self._types: dict[str, str] | None = None
        for name, described in _described(queues):
            if isinstance(described, Mapping):
                self._keep(name, self._describe(name, dict(described)))
            else:
                self._keep(name, self._complete(described))
        self._configured = dict.fromkeys(self._entries)
        self._selected = dict(self._configured)

    def begin_with(self, spec: QueueSpec) -> None:
        """Have this queue as if it had been configured: it is taken from unless others are selected."""
        self._keep(spec.name, spec)
        self._configured[spec.name] = self._selected[spec.name] = None

    # -- look-up -----------------------------------------------------------------------------------------------------

    def entry(self, name: str) -> QueueSpec | Queue:
        """The queue as it is kept, which costs no kombu. Adds a missing one, or raises KeyError."""
        found = self._entries.get(name)
        if found is None:
            found = self.aliases.get(name)
        if found is None:
            if not self.create_missing:
                raise KeyError(name)
            found = self._missing_spec(name)
            self._keep(name, found)
        return found

    def spec(self, name: str) -> QueueSpec:
        """The value of a queue that brokers understand. Adds a missing one, or raises KeyError."""
        return queue_spec(self.entry(name))

    def exchange_type(self, exchange: str) -> str:
        """The type of the exchange of this name that queues here are bound to; "" if none is."""
        if self._types is None:
            specs = map(queue_spec, list(self._entries.values()))
            self._types = {b.exchange.name: b.exchange.type for spec in specs for b in spec.bound}
        return self._types.get(exchange, "")

    def __getitem__(self, name: str) -> Queue:
        entry = self.entry(name)
        if isinstance(entry, QueueSpec):
            entry = self._entries[name] = kombu_queue(entry)
        return entry

    def __setitem__(self, name: str, queue: Queue) -> None:
        self._keep(name, queue)

    def __delitem__(self, name: str) -> None:
        del self._entries[name]
        self._selected.pop(name, None)
        self._changed()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict: an unknown name is not added."""
        return self[name] if name in self._entries or name in self.aliases else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Queues: {', '.join(self._entries)}>"

    # -- adding ------------------------------------------------------------------------------------------------------

    def add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add a kombu queue, or one described by its name and options. It is not taken from; see `select_add`."""
        if not isinstance(queue, str):
            self._keep(queue.name, self._complete(queue))
            return self[queue.name]
        return self.add_compat(queue, **kwargs)

    def add_compat(self, name: str, **options: Any) -> Queue:
        """Add a queue described as in a `task_queues` mapping: `exchange`, `exchange_type`, `routing_key` (or
        `binding_key`), and further options as `kombu.Queue.from_dict` knows them."""
        self._keep(name, self._describe(name, options))
        return self[name]

    def new_missing(self, name: str) -> Queue:
        """What an unknown queue of this name would be. It is not added."""
        return kombu_queue(self._missing_spec(name))

    # -- selection ---------------------------------------------------------------------------------------------------

    @property
    def consume_from(self) -> dict[str, Queue]:
        """The queues that a worker of this process takes from."""
        return {name: self[name] for name in self._selected}

    def consume_specs(self) -> list[QueueSpec]:
        """The same as brokers understand them."""
        return [self.spec(name) for name in self._selected]

    def select(self, include: Iterable[str] | str | None) -> None:
        """Take from these queues only (all as before, if there are none of them). Adds missing ones, or KeyError."""
        if include:
            names = _names(include)
            for name in names:
                self.entry(name)
            self._selected = dict.fromkeys(names)

    def select_add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add a queue and take from it too."""
        added = self.add(queue, **kwargs)
        self._selected[added.name] = None
        return added

    def deselect(self, exclude: Iterable[str] | str | None) -> None:
        """Take from these queues no more; names that were not taken from are passed over."""
        for name in _names(exclude or ()):
            self._selected.pop(name, None)

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """The selected queues as the worker's banner lists them, in order of their names."""
        specs = sorted(self.consume_specs(), key=lambda spec: spec.name)
        lines = [f".> {s.name:<16} exchange={s.exchange}({s.exchange_type}) key={s.routing_key}" for s in specs]
        pad = " " * indent
        text = "\n".join(pad + line for line in lines)
        return text if indent_first else text[indent:]

    def carry_over(self, old: Queues) -> None:
        """Take what was added or selected by hand from the queues that these replace."""
        for name, entry in old._entries.items():
            if name not in old._configured:
                self._entries.setdefault(name, entry)
        if old._selected != old._configured:
            self._selected = dict(old._selected)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _keep(self, name: str, entry: QueueSpec | Queue) -> None:
        self._entries[name] = entry
        alias = getattr(entry, "alias", None)
        if alias:
            self.aliases[alias] = entry
        self._changed()

    def _changed(self) -> None:
        self._types = None
        if self.on_change is not None:
            self.on_change()

    def _complete(self, queue: Queue) -> Queue:
        """Fill in what the user's queue leaves open. The very object is kept: others may hold it."""
        if self.default_exchange is not None and not (queue.exchange and queue.exchange.name):
            queue.exchange = _exchange(*self._default_exchange())
        if not queue.routing_key:
            queue.routing_key = self.default_routing_key or ""
        if self.max_priority is not None:
            queue.queue_arguments = {"x-max-priority": self.max_priority} | (queue.queue_arguments or {})
        return queue

    def _describe(self, name: str, options: dict[str, Any]) -> QueueSpec | Queue:
        exchange, kind = self._default_exchange()
        if options.get("exchange") is not None:
            exchange, kind = options["exchange"], options.get("exchange_type") or "direct"
        key = options.get("binding_key") or options.get("routing_key") or name
        if _PLAIN.issuperset(options) and isinstance(exchange, str):
            return QueueSpec(name, exchange, kind, key, arguments=self._priority_arguments())
        from kombu import Queue

        text = exchange if isinstance(exchange, str) else exchange.name
        queue = Queue.from_dict(name, **{**options, "exchange": text, "exchange_type": kind, "binding_key": key})
        if not isinstance(exchange, str):
            queue.exchange = exchange
        return self._complete(queue)

    def _missing_spec(self, name: str) -> QueueSpec:
        arguments = self._priority_arguments()
        kind = self.create_missing_queue_type
        if kind and kind not in _QUEUE_TYPES:
            raise ValueError(f"Invalid queue type '{kind}'. Valid types are 'classic' and 'quorum'.")
        if kind == "quorum":
            arguments["x-queue-type"] = "quorum"
        exchange_type = self.create_missing_queue_exchange_type or "direct"
        if self.autoexchange is not None:
            made = self.autoexchange(name, type=exchange_type)
            return QueueSpec(name, made.name, made.type, name, arguments=arguments)
        return QueueSpec(name, name, exchange_type, name, arguments=arguments)

    def _priority_arguments(self) -> dict[str, Any]:
        return {} if self.max_priority is None else {"x-max-priority": self.max_priority}

    def _default_exchange(self) -> tuple[Any, str]:
        default = self.default_exchange
        if default is None or isinstance(default, str):
            return default or "", "direct"
        if isinstance(default, tuple):
            return default
        return default.name, default.type


def kombu_queue(spec: QueueSpec) -> Queue:
    """The kombu `Queue` of a value."""
    from kombu import Queue

    return Queue(
        spec.name,
        _exchange(spec.exchange, spec.exchange_type),
        spec.routing_key,
        durable=spec.durable,
        auto_delete=spec.auto_delete,
        exclusive=spec.exclusive,
        queue_arguments=dict(spec.arguments) or None,
    )


def _exchange(name: str, kind: str) -> Exchange:
    from kombu import Exchange

    return Exchange(name, kind)


def _described(queues: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(queues, Mapping):
        return queues.items()
    return [(queue.name, queue) for queue in queues or ()]


def _names(names: Iterable[str] | str) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
