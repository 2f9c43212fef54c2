"""Application. Remote control, the client's side: tells commands to workers, and gathers what they answer."""

from __future__ import annotations

import time
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from celery.app import app_or_default
from celery.app.commands import ControlMailbox, command_of, gather, mailbox_settings
from celery.events.ways import own_carrier
from celery.exceptions import DuplicateNodenameWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from celery.app.base import Celery

__all__ = ("Control", "Inspect", "flatten_reply")

#: What nodes answered, in the order in which it came: each a mapping of one node's name.
Replies: TypeAlias = "list[dict[str, Any]]"
_TERM = "SIGTERM"


class Pong(TypedDict):
    """What a worker answers to `ping`."""

    ok: str


class Clock(TypedDict):
    """What a worker answers to `clock`."""

    clock: int


def flatten_reply(reply: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Replies as one mapping of node names. Warns with `DuplicateNodenameWarning` of nodes that share a name."""
    nodes: dict[str, Any] = {}
    twice: set[str] = set()
    for each in reply:
        twice.update(nodes.keys() & each.keys())
        nodes.update(each)
    if twice:
        several = "names" if len(twice) > 1 else "name"
        warnings.warn(
            f"Received multiple replies from node {several}: {', '.join(sorted(twice))}. Give each worker a name of "
            "its own, with the option -n of `celery worker`.",
            DuplicateNodenameWarning,
            stacklevel=2,
        )
    return nodes


class Inspect:
    """Asks workers about themselves (`[control.1]`): each method gives answers by node, None if nobody answered.

    `destination`: names of nodes; None: all. `timeout`: seconds of silence after which nobody is waited for any more.
    `limit`: so many answers are enough. `callback` is called with each reply as it comes. `pattern` and `matcher`
    ("glob" or "pcre"): only nodes whose name matches.
    """

    app: Any = None

    def __init__(
        self,
        destination: Sequence[str] | None = None,
        timeout: float | None = 1.0,
        callback: Callable[[Any], object] | None = None,
        connection: Any = None,
        app: Celery | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app = app or self.app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _prepare(self, reply: Replies | None) -> Any:
        if not reply:
            return None
        nodes = flatten_reply(reply)
        if self.destination and not isinstance(self.destination, list | tuple):
            return nodes.get(str(self.destination))
        if self.pattern:
            from kombu.matcher import match

            return {node: said for node, said in nodes.items() if match(node, self.pattern, self.matcher or "glob")}
        return nodes

    def _request(self, command: str, **kwargs: Any) -> Any:
        return self._prepare(
            app_or_default(self.app).control.broadcast(
                command,
                arguments=kwargs,
                destination=self.destination,
                callback=self.callback,
                connection=self.connection,
                limit=self.limit,
                timeout=self.timeout,
                reply=True,
                pattern=self.pattern,
                matcher=self.matcher,
            )
        )

    def report(self) -> dict[str, dict[str, str]] | None:
        """Versions, platform and settings as text (`[control.8]`)."""
        replies: dict[str, dict[str, str]] | None = self._request("report")
        return replies

    def clock(self) -> dict[str, Clock] | None:
        """The logical clocks (`[control.18]`)."""
        replies: dict[str, Clock] | None = self._request("clock")
        return replies

    def active(self, safe: bool | None = None) -> dict[str, list[dict[str, Any]]] | None:
        """What runs now (`[control.11]`). `safe`: arguments as text."""
        replies: dict[str, list[dict[str, Any]]] | None = self._request("active", safe=safe)
        return replies

    def scheduled(self, safe: bool | None = None) -> dict[str, list[dict[str, Any]]] | None:
        """What waits for its time (`[control.13]`)."""
        replies: dict[str, list[dict[str, Any]]] | None = self._request("scheduled")
        return replies

    def reserved(self, safe: bool | None = None) -> dict[str, list[dict[str, Any]]] | None:
        """What is held but does not run yet (`[control.12]`)."""
        replies: dict[str, list[dict[str, Any]]] | None = self._request("reserved")
        return replies

    def stats(self) -> dict[str, dict[str, Any]] | None:
        """Counts, pool, broker and what the process has used (`[control.17]`)."""
        replies: dict[str, dict[str, Any]] | None = self._request("stats")
        return replies

    def revoked(self) -> dict[str, list[str]] | None:
        """Ids of tasks that are not to be run (`[control.14]`)."""
        replies: dict[str, list[str]] | None = self._request("revoked")
        return replies

    def registered(self, *taskinfoitems: str) -> dict[str, list[str]] | None:
        """Names of tasks, with these of their attributes (`[control.15]`)."""
        replies: dict[str, list[str]] | None = self._request("registered", taskinfoitems=taskinfoitems)
        return replies

    registered_tasks = registered

    def ping(self, destination: Sequence[str] | None = None) -> dict[str, Pong] | None:
        """Ask who is there (`[control.7]`). `destination` is kept for the calls that follow."""
        if destination:
            self.destination = destination
        replies: dict[str, Pong] | None = self._request("ping")
        return replies

    def active_queues(self) -> dict[str, list[dict[str, Any]]] | None:
        """The queues that are consumed from (`[control.16]`)."""
        replies: dict[str, list[dict[str, Any]]] | None = self._request("active_queues")
        return replies

    def query_task(self, *ids: Any) -> dict[str, dict[str, list[Any]]] | None:
        """What is known of tasks by their ids (`[control.10]`): one by one, or one list."""
        wanted = ids[0] if len(ids) == 1 and isinstance(ids[0], list | tuple) else ids
        replies: dict[str, dict[str, list[Any]]] | None = self._request("query_task", ids=wanted)
        return replies

    def conf(self, with_defaults: bool = False) -> dict[str, dict[str, Any]] | None:
        """The settings, without secrets (`[control.9]`)."""
        replies: dict[str, dict[str, Any]] | None = self._request("conf", with_defaults=with_defaults)
        return replies

    def hello(self, from_node: str, revoked: Any = None) -> dict[str, dict[str, Any] | None] | None:
        """What workers tell one that starts (`[control.21]`)."""
        replies: dict[str, dict[str, Any] | None] | None = self._request("hello", from_node=from_node, revoked=revoked)
        return replies

    def memsample(self) -> dict[str, str | None] | None:
        """Memory in use, as text; needs psutil there (`[control.19]`)."""
        replies: dict[str, str | None] | None = self._request("memsample")
        return replies

    def memdump(self, samples: int = 10) -> dict[str, Any] | None:
        """The samples that were taken so far (`[control.19]`)."""
        replies: dict[str, Any] | None = self._request("memdump", samples=samples)
        return replies

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> dict[str, Any] | None:
        """Have a graph of objects drawn there; needs objgraph there (`[control.20]`)."""
        replies: dict[str, Any] | None = self._request("objgraph", num=n, max_depth=max_depth, type=type)
        return replies


class Control:
    """`app.control`: commands to workers (`[control.2]`).

    Where a method takes `**kwargs`, those are of `broadcast`: `reply`, `timeout`, `limit`, `callback`, `connection`,
    `pattern`, `matcher`. With `reply=True` it returns what was answered, otherwise None.
    """

    Mailbox: Any = ControlMailbox

    def __init__(self, app: Celery | None = None) -> None:
        """Raises `ImproperlyConfigured` for control queues that are to be durable and exclusive (`[wirectl.10]`)."""
        self.app: Any = app
        self._settings = mailbox_settings(app_or_default(app).conf)

    @cached_property
    def mailbox(self) -> Any:
        """kombu's mailbox with the app's settings, for those who make nodes or broadcasts of their own."""
        return self.Mailbox.of(self.app, self._settings)

    @cached_property
    def inspect(self) -> type[Inspect]:
        """The class that asks, bound to the app: `app.control.inspect(['w1@h']).active()`."""
        bound: type[Inspect] = self.app.subclass_with_self(Inspect, reverse="control.inspect")
        return bound

    # -- telling -----------------------------------------------------------------------------------------------------

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Any], object] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> Replies | None:
        """Tell a command to all workers, or to those that `destination`, or `pattern` and `matcher`, name.

        What else is given becomes arguments. With `reply`, answers are gathered until `limit` have come (as many as
        there are destinations, if nothing else is said) or nobody has said anything for `timeout` seconds. Raises
        ValueError for a destination that is no list, `OperationalError` if the broker cannot be reached.
        """
        given = {**(arguments or {}), **extra_kwargs}
        carrier = own_carrier(self.app, connection if channel is None else channel)
        if carrier is None:
            return self._by_kombu(
                (command, given, destination, reply, timeout, limit, callback), connection, channel, pattern, matcher
            )
        if limit is None and destination:
            limit = len(destination)
        seconds = timeout or (1.0 if reply else 0.0)
        made = command_of(self.app, self._settings, command, given, destination, pattern, matcher)
        made.expires = time.time() + seconds
        if not reply:
            carrier.tell([made.notice()])
            return None
        return gather(carrier, made, seconds, limit, callback)

    def _by_kombu(self, given: Any, connection: Any, channel: Any, pattern: Any, matcher: Any) -> Replies | None:
        """Through kombu, where the app's broker is not the one that is meant or cannot do it."""
        matching = {"pattern": pattern, "matcher": matcher} if pattern is not None and matcher is not None else {}
        if channel is not None:
            replies: Replies | None = self.mailbox(channel.connection.client)._broadcast(
                *given, channel=channel, **matching
            )
            return replies
        with self.app.connection_or_acquire(connection) as used:
            told: Replies | None = self.mailbox(used)._broadcast(*given, channel=used.default_channel, **matching)
        return told

    # -- commands ----------------------------------------------------------------------------------------------------

    def purge(self, connection: Any = None) -> int:
        """Delete all messages that wait in the queues that this app consumes from; how many those were (`[route.27]`).

        They are gone for good. Messages that workers hold are not touched.
        """
        queues = self.app.amqp.queues
        if own_carrier(self.app, connection) is not None:
            broker = self.app.assembly.broker
            names = list(queues.consume_from)
            broker.declare([queues.spec(name) for name in names])
            return sum(broker.purge(name) for name in names)
        with self.app.connection_for_write() if connection is None else connection.clone() as used:
            return sum(used.default_channel.queue_purge(name) or 0 for name in list(queues.consume_from))

    discard_all = purge

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Have the workers elect one of them to do something (`[control.27]`)."""
        self.broadcast("election", {"id": id, "topic": topic, "action": action}, connection=connection)

    def revoke(
        self,
        task_id: str | Collection[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | int | None = _TERM,
        **kwargs: Any,
    ) -> Replies | None:
        """Tell workers not to run a task, or several; `terminate`: to end it where it runs, by `signal`."""
        arguments = {"task_id": task_id, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", arguments, destination, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | int | None = _TERM,
        **kwargs: Any,
    ) -> Replies | None:
        """Tell workers not to run tasks that bear any of these stamps (`[stamp.11]`)."""
        arguments = {"headers": headers, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **kwargs)

    def terminate(
        self,
        task_id: str | Collection[str],
        destination: Sequence[str] | None = None,
        signal: str | int | None = _TERM,
        **kwargs: Any,
    ) -> Replies | None:
        """`revoke` with `terminate=True`."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **kwargs)

    def ping(self, destination: Sequence[str] | None = None, timeout: float | None = 1.0, **kwargs: Any) -> Replies:
        """Ask who is there: `[{'w1@h': {'ok': 'pong'}}, …]` (`[drift.9]`)."""
        return self.broadcast("ping", {}, destination, reply=True, timeout=timeout, **kwargs) or []

    def rate_limit(
        self, task_name: str, rate_limit: Any, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> Replies | None:
        """Set how often a task may run: a number a second, or text such as `10/m`; 0: as often as it can."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments, destination, **kwargs)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Have workers consume from a queue too; `options` are those of a kombu `Queue`."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **kwargs)

    def cancel_consumer(self, queue: str, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Have workers consume from a queue no more."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Set the time limits of a task, in seconds."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **kwargs)

    def enable_events(self, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Have workers tell events of tasks."""
        return self.broadcast("enable_events", {}, destination, **kwargs)

    def disable_events(self, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Have workers tell events of tasks no more."""
        return self.broadcast("disable_events", {}, destination, **kwargs)

    def pool_grow(self, n: int = 1, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Add `n` processes or threads to each pool."""
        return self.broadcast("pool_grow", {"n": n}, destination, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Take `n` processes or threads from each pool."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **kwargs)

    def autoscale(self, max: int, min: int, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Set the bounds of autoscaling."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **kwargs)

    def shutdown(self, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Have workers stop when what runs has ended; nobody answers."""
        return self.broadcast("shutdown", {}, destination, **kwargs)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Have pools begin anew with these modules imported; `reload`: imported again."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments, destination, **kwargs)

    def heartbeat(self, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Have workers tell a heartbeat now."""
        return self.broadcast("heartbeat", {}, destination, **kwargs)
