"""Entrance. Moving messages between brokers and queues through kombu (`[contrib.2]`).

Everywhere a message is published first and acknowledged then: a kill in between leaves it in both places, never in
none.
Between two of our own brokers `celery migrate` takes a shorter way (`celery.app.migrating`).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu import Queue, eventloop
from kombu.utils.encoding import ensure_bytes

from celery.app import app_or_default
from celery.utils.nodenames import worker_direct
from celery.utils.text import str_to_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = (
    "State", "StopFiltering", "expand_dest", "filter_callback", "filter_status", "migrate_task", "migrate_tasks",
    "move", "move_by_idmap", "move_by_taskmap", "move_direct", "move_direct_by_id", "move_direct_by_idmap",
    "move_direct_by_taskmap", "move_task_by_id", "prepare_queues", "republish", "start_filter", "task_id_eq",
    "task_id_in",
)  # fmt: skip

#: Properties that the new message gets anew.
_OF_THE_OLD = frozenset(
    {"application_headers", "body_encoding", "content_encoding", "content_type", "delivery_info", "delivery_tag",
     "headers"}
)  # fmt: skip


class StopFiltering(Exception):
    """Raised by a filter or a callback: enough."""


class State:
    """How far a filter has come."""

    #: Messages seen.
    count = 0
    #: Messages moved.
    filtered = 0
    #: How many there were at the beginning, about; 0: nobody knows.
    total_apx = 0

    @property
    def strtotal(self) -> str:
        """`total_apx` as text, "?" if it is not known."""
        return str(self.total_apx) if self.total_apx else "?"

    def __repr__(self) -> str:
        return f"^{self.filtered}" if self.filtered else f"{self.count}/{self.strtotal}"


def republish(
    producer: Any,
    message: Any,
    exchange: str | None = None,
    routing_key: str | None = None,
    remove_props: Iterable[str] | None = None,
) -> None:
    """Publish a message as it came, headers and properties included; to where it came from unless told otherwise.

    `remove_props`: properties to be left out. It is compressed as it was.
    """
    left_out = _OF_THE_OLD | set(remove_props or ())
    properties = {name: value for name, value in (message.properties or {}).items() if name not in left_out}
    if properties.get("expiration"):  # milliseconds as text; kombu takes seconds
        properties["expiration"] = int(properties["expiration"]) / 1000
    headers, info = dict(message.headers or {}), message.delivery_info
    compression = headers.pop("compression", None)
    producer.publish(
        ensure_bytes(message.body),
        exchange=info["exchange"] if exchange is None else exchange,
        routing_key=info["routing_key"] if routing_key is None else routing_key,
        compression=compression,
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        **properties,
    )


def migrate_task(producer: Any, body_: Any, message: Any, queues: Mapping[str, str] | None = None) -> None:
    """Publish a message to the queue of the same name, or to the one that `queues` names for it."""
    named, info = queues or {}, message.delivery_info
    republish(
        producer,
        message,
        exchange=named.get(info["exchange"], info["exchange"]),
        routing_key=named.get(info["routing_key"], info["routing_key"]),
    )


def filter_callback(callback: Callable[[Any, Any], Any], tasks: Iterable[str]) -> Callable[[Any, Any], Any]:
    """The callback for messages of these tasks only; of none given, for all."""
    wanted = frozenset(tasks)

    def filtered(body: Any, message: Any) -> Any:
        return callback(body, message) if not wanted or _task_of(body, message) in wanted else None

    return filtered


def _task_of(body: Any, message: Any) -> Any:
    return (message.headers or {}).get("task") or (body.get("task") if isinstance(body, dict) else None)


def _id_of(body: Any, message: Any) -> Any:
    return (message.headers or {}).get("id") or (body.get("id") if isinstance(body, dict) else None)


def task_id_eq(task_id: str, body: Any, message: Any) -> bool:
    """Whether it is the message of this task."""
    return bool(_id_of(body, message) == task_id)


def task_id_in(ids: Iterable[str], body: Any, message: Any) -> bool:
    """Whether it is the message of one of these."""
    return _id_of(body, message) in ids


def prepare_queues(queues: Any) -> dict[str, str]:
    """`"a:b,c"`, or a list of such words, as a mapping: what lies on a goes to b, what lies on c to c."""
    if isinstance(queues, str):
        queues = queues.split(",")
    if isinstance(queues, dict):
        return queues
    pairs = (word.partition(":") for word in queues or ())
    return {name: to or name for name, _, to in pairs}


def expand_dest(ret: Any, exchange: str | None, routing_key: str | None) -> tuple[Any, Any]:
    """Where to, by what a predicate gave: its exchange and routing key, or the default ones."""
    try:
        to_exchange, to_key = ret
    except (TypeError, ValueError):
        return exchange, routing_key
    return to_exchange, to_key


def filter_status(state: State, body: Any, message: Any, **kwargs: Any) -> None:
    """A callback that prints each message that was moved."""
    print(f"Moving task {state.filtered}/{state.strtotal}: {_task_of(body, message)}[{_id_of(body, message)}]")  # noqa: T201


def start_filter(
    app: Any,
    conn: Any,
    filter: Callable[[Any, Any], Any],
    limit: int | None = None,
    timeout: float | None = 1.0,
    ack_messages: bool = False,
    tasks: Any = None,
    queues: Any = None,
    callback: Callable[[State, Any, Any], Any] | None = None,
    forever: bool = False,
    on_declare_queue: Callable[[Any], Any] | None = None,
    consume_from: Any = None,
    state: State | None = None,
    accept: Any = None,
    **kwargs: Any,
) -> State:
    """Show each message that waits to `filter(body, message)`.

    Ends when nothing has come for `timeout` seconds (unless `forever`), after `limit` messages, or where something
    raises `StopFiltering`. A message that is neither acknowledged by the filter nor by `ack_messages` goes back.
    `callback(state, body, message)` is called after the filter.
    """
    state, named = state or State(), prepare_queues(queues)
    wanted = frozenset(str_to_list(tasks) or ())
    sources = [_queue(app, one) for one in consume_from or named or app.amqp.queues.consume_from]
    with conn.channel() as channel:  # of its own: what is not acknowledged goes back when it is closed
        bound = [queue(channel) for queue in sources]
        for queue in bound:
            if on_declare_queue is not None:
                on_declare_queue(queue)
            state.total_apx += _waiting(queue)
        shown = _Shown(filter, wanted, ack_messages, callback, limit, state)
        consumer = app.amqp.TaskConsumer(
            channel, queues=bound, accept=accept, auto_declare=False, on_decode_error=_pass_over, callbacks=[shown]
        )
        with suppress(TimeoutError, StopFiltering), consumer:
            for _ in eventloop(conn, timeout=timeout, ignore_timeouts=forever):
                pass
    return state


class _Shown(NamedTuple):
    """What is done with each message of a filter."""

    filter: Callable[[Any, Any], Any]
    wanted: frozenset[str]
    ack: bool
    callback: Callable[[State, Any, Any], Any] | None
    limit: int | None
    state: State

    def __call__(self, body: Any, message: Any) -> None:
        state = self.state
        state.count += 1
        if not self.wanted or _task_of(body, message) in self.wanted:
            self.filter(body, message)
            if self.ack and not message.acknowledged:
                message.ack()
            if self.callback is not None:
                self.callback(state, body, message)
        if self.limit and state.count >= self.limit:
            raise StopFiltering


def _pass_over(message: Any, exc: Exception) -> None:
    """What cannot be decoded here stays where it is."""


def _waiting(queue: Any) -> int:
    """Declares the queue; how many messages wait there, if the transport says."""
    declared = queue.queue_declare(passive=False)
    return int(getattr(declared, "message_count", 0) or 0)


def _queue(app: Any, queue: Any) -> Any:
    return queue if isinstance(queue, Queue) else app.amqp.queues[queue]


def migrate_tasks(
    source: Any,
    dest: Any,
    migrate: Callable[..., Any] = migrate_task,
    app: Any = None,
    queues: Any = None,
    **kwargs: Any,
) -> State:
    """Publish to the connection `dest` what waits at the connection `source`; other keywords as for `start_filter`.

    Without `ack_messages` it stays at the source too.
    """
    app, named = app_or_default(app), prepare_queues(queues)
    producer = app.amqp.Producer(dest, auto_declare=False)

    def declare(queue: Any) -> None:
        name = named.get(queue.name, queue.name)
        target = Queue(
            name,
            exchange=queue.exchange.__class__(queue.exchange.name, type=queue.exchange.type),
            routing_key=name if queue.routing_key == queue.name else queue.routing_key,
        )
        target(producer.channel).declare()

    return start_filter(
        app, source, partial(migrate, producer, queues=named), queues=named, on_declare_queue=declare, **kwargs
    )


def move(
    predicate: Callable[[Any, Any], Any],
    connection: Any = None,
    exchange: str | None = None,
    routing_key: str | None = None,
    source: Any = None,
    app: Any = None,
    callback: Callable[[State, Any, Any], Any] | None = None,
    limit: int | None = None,
    transform: Callable[[Any], Any] | None = None,
    **kwargs: Any,
) -> State:
    """Move the messages that the predicate picks to another queue of the same broker.

    `predicate(body, message)` gives something false to leave a message where it is; true, and it goes to `exchange`
    with `routing_key`; a pair of these; or a `kombu.Queue`, which is declared. `transform` turns what it gave into one
    of these. `source`: the queues to look at. `limit`: at most so many are moved; `callback` is told of each.
    """
    app = app_or_default(app)
    with app.connection_or_acquire(connection) as conn:
        producer = app.amqp.Producer(conn, auto_declare=False)
        state = State()

        def show(body: Any, message: Any) -> None:
            picked = predicate(body, message)
            if not picked:
                return
            picked = transform(picked) if transform is not None else picked
            if isinstance(picked, Queue):
                picked(producer.channel).declare()
                picked = picked.exchange.name, picked.routing_key
            republish(producer, message, *expand_dest(picked, exchange, routing_key))
            message.ack()
            state.filtered += 1
            if callback is not None:
                callback(state, body, message)
            if limit and state.filtered >= limit:
                raise StopFiltering

        return start_filter(app, conn, show, consume_from=_listed(source), state=state, **kwargs)


def _listed(source: Any) -> Any:
    return [source] if isinstance(source, Queue) else str_to_list(source)


def move_task_by_id(task_id: str, dest: Any, **kwargs: Any) -> State:
    """Move the message of one task to a queue (see `move`)."""
    return move_by_idmap({task_id: dest}, **kwargs)


def move_by_idmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move messages by the ids of their tasks: id → where to, as a predicate of `move` says it."""

    def picked(body: Any, message: Any) -> Any:
        return map.get(_id_of(body, message))

    return move(picked, limit=kwargs.pop("limit", None) or len(map), **kwargs)


def move_by_taskmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move messages by the names of their tasks: name → where to."""

    def picked(body: Any, message: Any) -> Any:
        return map.get(_task_of(body, message))

    return move(picked, **kwargs)


#: The same, to workers by their names: each has a queue of its own under `worker_direct`.
move_direct = partial(move, transform=worker_direct)
move_direct_by_id = partial(move_task_by_id, transform=worker_direct)
move_direct_by_idmap = partial(move_by_idmap, transform=worker_direct)
move_direct_by_taskmap = partial(move_by_taskmap, transform=worker_direct)
