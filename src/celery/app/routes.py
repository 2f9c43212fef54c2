"""Application. `task_routes` and the options of a call come to a place on the broker ([route.8] to [route.12])."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery.exceptions import QueueNotFound
from celery.routing import (
    DESTINATION,
    DefaultRoute,
    MapRoute,
    QueueSpec,
    Route,
    destination,
    expand_route,
    merge_options,
    queue_spec,
)
from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.app.amqp import AMQP

__all__ = ["MapRoute", "Router", "expand_route", "expand_router_string", "prepare"]

#: Task names whose routes are kept at hand; more than any project has, fewer than names made up at random would be.
_MOST_REMEMBERED = 10_000


class Router:
    """Decides where calls go: the call's own options first, then the routers in order, then the default queue.

    `routes` are routers as `prepare` gives them, `queues` maps names to queues (`app.amqp.queues`, or any mapping to
    kombu queues). `create_missing`: a queue that is not among them may be made up.
    """

    def __init__(
        self,
        routes: Iterable[Callable[..., Any]] | None = None,
        queues: Any = None,
        create_missing: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.routes = list(routes or ())
        self.queues = {} if queues is None else queues
        self.create_missing = create_missing
        #: Only answers that depend on the name alone may be remembered.
        self._by_name_only = all(type(router) is MapRoute for router in self.routes)
        #: Answers that depend on the name alone: task → route, and the options that the routers add.
        self.remembered: dict[str, tuple[Route, dict[str, Any]]] = {}

    # -- the walk ----------------------------------------------------------------------------------------------------

    def route_for(
        self, name: str, options: dict[str, Any], args: Any = None, kwargs: Any = None, task: Any = None
    ) -> tuple[Route, dict[str, Any]]:
        """Where a call goes, and its options with whatever the routers add.

        Costs one look-up for a call that says nothing about its destination. Raises `QueueNotFound`.
        """
        known = self.remembered.get(name)
        if known is not None and (not options or DESTINATION.isdisjoint(options)):
            route, extra = known
            return route, (merge_options(extra, options) if extra else options)
        return self._find(name, options, args, kwargs, task)

    def forget(self) -> None:
        """Queues have changed: what was remembered may be wrong."""
        self.remembered = {}

    def _find(self, name: str, options: dict[str, Any], args: Any, kwargs: Any, task: Any) -> tuple[Route, Any]:
        # Of this very table: one that replaces it meanwhile must not get an answer from before the change.
        remembered, plain = self.remembered, DESTINATION.isdisjoint(options)
        merged = self._decide(options, name, args, kwargs, task)
        queue = merged.pop("queue", None)
        spec = None if queue is None else queue_spec(queue)
        route = destination(merged, spec, self._defaults())
        # [route.23]: what the exchange asks for, where nobody says otherwise.
        mode = getattr(getattr(queue, "exchange", None), "delivery_mode", None)
        if mode is not None:
            merged.setdefault("delivery_mode", mode)
        for key in DESTINATION:
            merged.pop(key, None)
        if plain and self._by_name_only and len(remembered) < _MOST_REMEMBERED:
            extra = merged if not options else self._find(name, {}, args, kwargs, task)[1]
            remembered[name] = (route, dict(extra))
        return route, merged

    def _defaults(self) -> DefaultRoute:
        amqp: AMQP | None = getattr(self.app, "amqp", None)
        return DefaultRoute() if amqp is None else amqp.default_route

    # -- deciding ----------------------------------------------------------------------------------------------------

    def route(
        self, options: Mapping[str, Any], name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> dict[str, Any]:
        """The options with the destination filled in: `queue` as a `kombu.Queue`. Raises `QueueNotFound`."""
        decided = self._decide(options, name, args, kwargs, task_type)
        return self._with_kombu(decided)

    def _decide(
        self, options: Mapping[str, Any], name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> dict[str, Any]:
        given = self._expand(options)
        found = self.lookup_route(name, args, kwargs, options, task_type) if self.routes else None
        if found:
            under = self._expand(found)
            if not (under.get("queue") or under.get("exchange") or given.get("queue")):
                under["queue"] = self._default_queue()
        else:
            under = {} if given.get("queue") else {"queue": self._default_queue()}
        return merge_options(under, given)

    def lookup_route(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        options: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any] | None:
        """The first router's answer that is not None."""
        for router in self.routes:
            answer = self.query_router(router, name, args, kwargs, options, task_type)
            if answer is not None:
                return answer
        return None

    def query_router(
        self, router: Any, task: str, args: Any, kwargs: Any, options: Mapping[str, Any] | None, task_type: Any
    ) -> dict[str, Any] | None:
        """Ask one router, which is an object with `route_for_task`, or callable."""
        if hasattr(router, "route_for_task"):
            return expand_route(router.route_for_task(task, args, kwargs))
        return expand_route(router(task, args, kwargs, options, task=task_type))

    def expand_destination(self, route: Mapping[str, Any] | str) -> dict[str, Any]:
        """The route as options, with its queue as a `kombu.Queue`. Raises `QueueNotFound`."""
        return self._with_kombu(self._expand(route))

    # -- queues ------------------------------------------------------------------------------------------------------

    def _expand(self, route: Mapping[str, Any] | str) -> dict[str, Any]:
        expanded = {"queue": route} if isinstance(route, str) else dict(route)
        queue = expanded.pop("queue", None)
        if queue:
            expanded["queue"] = self._queue(queue)
        return expanded

    def _queue(self, queue: Any) -> Any:
        if not isinstance(queue, str):
            queue_spec(queue)  # says clearly what is wrong with anything that is no queue
            return queue
        look_up = getattr(self.queues, "entry", None) or self.queues.__getitem__
        try:
            return look_up(queue)
        except KeyError:
            if not (self.create_missing and self.app is not None):
                raise QueueNotFound(f"Queue {queue!r} missing from task_queues") from None
            return self.app.amqp.queues.new_missing(queue)

    def _default_queue(self) -> Any:
        return None if self.app is None else self._queue(self.app.amqp.default_queue_name)

    def _with_kombu(self, options: dict[str, Any]) -> dict[str, Any]:
        queue = options.get("queue")
        if isinstance(queue, QueueSpec):
            options["queue"] = self.app.amqp.kombu_queue(queue)
        return options


def prepare(routes: Any) -> Iterable[Any]:
    """`task_routes` as routers: a mapping, pairs, callables, objects with `route_for_task`, dotted names of these."""
    if routes is None:
        return ()
    if not isinstance(routes, list | tuple):
        return [_router(routes)]
    return list(_routers(routes))


def _routers(routes: Iterable[Any]) -> Iterable[Any]:
    pairs: list[tuple[Any, Any]] = []
    for route in routes:
        if _is_pair(route):
            pairs.append(route)  # neighbours are one map, so that exact names beat patterns among them
            continue
        if pairs:
            yield MapRoute(pairs)
            pairs = []
        yield _router(route)
    if pairs:
        yield MapRoute(pairs)


def _is_pair(route: Any) -> bool:
    return isinstance(route, list | tuple) and len(route) == 2 and isinstance(route[0], str | re.Pattern)


def _router(route: Any) -> Any:
    if isinstance(route, str):
        return expand_router_string(route)
    if isinstance(route, Mapping | list | tuple):
        return MapRoute(route)
    if isinstance(route, type):
        return route()
    if callable(route) or hasattr(route, "route_for_task"):
        return route
    raise TypeError(
        "task_routes: expected a mapping, a list of (pattern, route) pairs, a callable, an object with route_for_task, "
        f"or the dotted name of one; got {route!r}"
    )


def expand_router_string(router: str) -> Any:
    """The router of that dotted name; a class is called for its instance. Raises `ImportError`, `AttributeError`."""
    return _router(symbol_by_name(router))
