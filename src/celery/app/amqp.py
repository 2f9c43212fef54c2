"""Compatibility. `app.amqp`: the queues and the router of an app under the names that Celery gave them.

The home of queues is `celery.app.queues`, of routing `celery.app.routes`; publishing is the producer's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from celery.app import queues as queue_table
from celery.app import routes as routing_table
from celery.app.task_messages import as_task_v1, as_task_v2, by_name, send_task_message, task_message
from celery.routing import DefaultRoute, QueueSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import kombu
    from kombu.pools import ProducerPool

    from celery.app.base import Celery

__all__ = ["AMQP", "Queues", "task_message"]

#: Settings that queues are made from; when one of them changes, they are made anew.
_QUEUE_SETTINGS = (
    "task_queues", "task_default_queue", "task_default_queue_type", "task_default_exchange",
    "task_default_exchange_type", "task_default_routing_key", "task_create_missing_queues",
    "task_create_missing_queue_type", "task_create_missing_queue_exchange_type", "task_queue_max_priority",
)  # fmt: skip


Queues = queue_table.Queues


class AMQP:
    """Queues, routes and kombu's classes, for one app. Follows the app's settings when they change."""

    queues_cls = queue_table.Queues
    #: Makes the exchange of a queue that nobody declared: `autoexchange(name, type=…)`; None for the plain one.
    autoexchange: Callable[..., kombu.Exchange] | None = None
    #: Longest `argsrepr` and `kwargsrepr` in message headers, in characters ([wire.6]).
    argsrepr_maxsize = 1024
    kwargsrepr_maxsize = 1024

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._version = -1
        self._queue_settings: tuple[Any, ...] = ()
        self._routes_setting: Any = None
        self._queues: queue_table.Queues | None = None
        self._routes: list[Any] | None = None
        self._router: routing_table.Router | None = None

    # -- queues ------------------------------------------------------------------------------------------------------

    @property
    def queues(self) -> queue_table.Queues:
        """The queues of this app; a mapping to `kombu.Queue` ([route.6])."""
        self._follow_settings()
        if self._queues is None:
            self._queues = self._new_queues()
        return self._queues

    @queues.setter
    def queues(self, queues: Any) -> None:
        self._follow_settings()
        self._queues = self.Queues(queues)

    def Queues(  # noqa: N802 - its public name
        self,
        queues: Any,
        create_missing: bool | None = None,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[..., Any] | None = None,
        max_priority: int | None = None,
    ) -> queue_table.Queues:
        """A queue table with this app's defaults; without any queues it holds the default queue alone."""
        conf = self.app.conf
        made = self.queues_cls(
            queues or (),
            self._default_exchange(),
            conf.task_create_missing_queues if create_missing is None else create_missing,
            create_missing_queue_type or conf.task_create_missing_queue_type,
            create_missing_queue_exchange_type or conf.task_create_missing_queue_exchange_type,
            self.autoexchange if autoexchange is None else autoexchange,
            conf.task_queue_max_priority if max_priority is None else max_priority,
            self.default_route.routing_key,
        )
        if not queues:
            made.begin_with(self._default_spec())
        made.on_change = self._forget_routes
        return made

    def kombu_queue(self, spec: QueueSpec) -> kombu.Queue:
        """The `kombu.Queue` of a value: the registered one, if it is the same."""
        if spec.name in self.queues and self.queues.spec(spec.name) == spec:
            return self.queues[spec.name]
        return queue_table.kombu_queue(spec)

    @property
    def default_queue_name(self) -> str:
        name: str = self.app.conf.task_default_queue
        return name

    @property
    def default_queue(self) -> kombu.Queue:
        return self.queues[self.default_queue_name]

    @property
    def default_exchange(self) -> kombu.Exchange:
        from kombu import Exchange

        return Exchange(*self._default_exchange())

    @property
    def default_route(self) -> DefaultRoute:
        """Exchange and routing key of messages for which nothing else says it ([route.4])."""
        conf = self.app.conf
        return DefaultRoute(self._default_exchange()[0], conf.task_default_routing_key or conf.task_default_queue)

    # -- routes ------------------------------------------------------------------------------------------------------

    @property
    def routes(self) -> Iterable[Any]:
        """`task_routes` as routers."""
        self._follow_settings()
        if self._routes is None:
            self._routes = list(routing_table.prepare(self.app.conf.task_routes))
        return tuple(self._routes)

    @property
    def router(self) -> routing_table.Router:
        if self.app.conf.version != self._version:  # asked for by each call that is sent
            self._follow_settings()
        if self._router is None:
            self._router = self.Router()
        return self._router

    @router.setter
    def router(self, router: routing_table.Router) -> None:
        self._follow_settings()
        self._router = router

    def Router(  # noqa: N802 - its public name
        self, queues: Any = None, create_missing: bool | None = None
    ) -> routing_table.Router:
        """A router over `task_routes` and these queues (the app's, if none are given)."""
        if create_missing is None:
            create_missing = self.app.conf.task_create_missing_queues
        return routing_table.Router(self.routes, queues or self.queues, create_missing, app=self.app)

    def flush_routes(self) -> None:
        """Read `task_routes` again."""
        self._routes = self._router = None

    # -- messages ----------------------------------------------------------------------------------------------------

    @property
    def task_protocols(self) -> dict[int, Callable[..., task_message]]:
        """What makes messages, by the number of the protocol ([util.15])."""
        return {1: self.as_task_v1, 2: self.as_task_v2}

    @property
    def create_task_message(self) -> Callable[..., task_message]:
        """What makes messages in the protocol that the settings choose."""
        return self.task_protocols[self.app.conf.task_protocol]

    def as_task_v2(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *positions: Any, **options: Any
    ) -> task_message:
        """A message of protocol 2, laid out but not encoded. Takes what Celery's takes, in its order.

        Raises TypeError for arguments that are no list or mapping, ValueError for a countdown out of range.
        """
        return as_task_v2(self.app, task_id, name, args, kwargs, by_name(positions, options))

    def as_task_v1(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *positions: Any, **options: Any
    ) -> task_message:
        """A message of protocol 1, likewise."""
        return as_task_v1(self.app, task_id, name, args, kwargs, by_name(positions, options))

    @property
    def send_task_message(self) -> Callable[..., Any]:
        """`send_task_message(producer, name, message, **options)`: publish what `create_task_message` made."""
        return partial(send_task_message, self.app)

    # -- kombu's vocabulary ------------------------------------------------------------------------------------------

    @property
    def producer_pool(self) -> ProducerPool:
        """kombu producers on the app's connections for writing, for whoever publishes messages of his own."""
        from kombu.pools import producers

        pool = producers[self.app.connection_for_write()]
        pool.limit = self.app.conf.broker_pool_limit
        return pool

    @property
    def publisher_pool(self) -> ProducerPool:
        return self.producer_pool

    def TaskConsumer(  # noqa: N802 - its public name
        self, channel: Any, queues: Any = None, accept: Any = None, **kw: Any
    ) -> kombu.Consumer:
        """A kombu consumer of the selected queues that takes the content that the settings accept ([route.26])."""
        selected = list(self.queues.consume_from.values()) if queues is None else queues
        return self.Consumer(channel, accept=accept or self.app.conf.accept_content, queues=selected, **kw)

    @property
    def Consumer(self) -> Any:  # noqa: N802 - its public name
        from kombu import Consumer

        return Consumer

    @property
    def Producer(self) -> Any:  # noqa: N802 - its public name
        from kombu import Producer

        return Producer

    @property
    def Connection(self) -> Any:  # noqa: N802 - its public name
        from kombu import Connection

        return Connection

    @property
    def BrokerConnection(self) -> Any:  # noqa: N802 - its public name
        return self.Connection

    @property
    def utc(self) -> bool:
        return bool(self.app.conf.enable_utc)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _follow_settings(self) -> None:
        conf = self.app.conf
        version = conf.version
        if version == self._version:
            return
        self._version = version
        if self._routes_setting is not conf.task_routes:
            self._routes_setting = conf.task_routes
            self.flush_routes()
        settings = tuple(conf[name] for name in _QUEUE_SETTINGS)
        if settings != self._queue_settings:
            self._queue_settings = settings
            old, self._queues, self._router = self._queues, None, None
            if old is not None:
                self._queues = self._new_queues()
                self._queues.carry_over(old)

    def _new_queues(self) -> queue_table.Queues:
        return self.Queues(self.app.conf.task_queues)

    def _forget_routes(self) -> None:
        if self._router is not None:
            self._router.forget()

    def _default_exchange(self) -> tuple[str, str]:
        conf = self.app.conf
        return conf.task_default_exchange or conf.task_default_queue, conf.task_default_exchange_type or "direct"

    def _default_spec(self) -> QueueSpec:
        conf = self.app.conf
        arguments: dict[str, Any] = {}
        if conf.task_queue_max_priority is not None:
            arguments["x-max-priority"] = conf.task_queue_max_priority
        if conf.task_default_queue_type == "quorum":
            arguments["x-queue-type"] = "quorum"
        name, (exchange, kind) = conf.task_default_queue, self._default_exchange()
        return QueueSpec(name, exchange, kind, self.default_route.routing_key, arguments=arguments)
