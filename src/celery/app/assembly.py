"""Application. Where the parts of one app are put together: settings in, adapters and flow out.

The only place that knows adapters by name. Parts are made when first asked for and made anew when the settings change
(`Settings.version`); nothing here connects.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import codecs, current
from celery.app.publishing import PublishSignals
from celery.exceptions import ImproperlyConfigured
from celery.ports import BackendConfig, BrokerConfig, SystemClock
from celery.producer import Call, Producer, PublishDefaults, new_id
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.app.base import Celery
    from celery.app.trace import LogLines
    from celery.documents import Reading
    from celery.ports import Broker, Pool, Publication, ResultBackend, Runner
    from celery.result import AsyncResult
    from celery.tracer import TracerParts

__all__ = ["BACKENDS", "BROKERS", "POOLS", "Assembly"]

#: URL scheme → adapter. The one table in which code is named by string: drivers are optional.
BROKERS: dict[str, str] = {
    "memory": "celery.brokers.memory:MemoryBroker",
    "sqlite": "celery.brokers.sqlite:SqliteBroker",
    "redis": "celery.brokers.redis:RedisBroker",
    "rediss": "celery.brokers.redis:RedisBroker",
    "redis+socket": "celery.brokers.redis:RedisBroker",
    "amqp": "celery.brokers.amqp:AmqpBroker",
    "amqps": "celery.brokers.amqp:AmqpBroker",
    "pyamqp": "celery.brokers.amqp:AmqpBroker",
}
BACKENDS: dict[str, str] = {
    "memory": "celery.backends.memory:MemoryBackend",
    "cache+memory": "celery.backends.memory:MemoryBackend",
    "sqlite": "celery.backends.sqlite:SqliteBackend",
    "redis": "celery.backends.redis:RedisBackend",
    "rediss": "celery.backends.redis:RedisBackend",
    "redis+socket": "celery.backends.redis:RedisBackend",
}
POOLS: dict[str, str] = {
    "prefork": "celery.concurrency.prefork:PreforkPool",
    "processes": "celery.concurrency.prefork:PreforkPool",
    "solo": "celery.concurrency.solo:SoloPool",
}

#: Characters of the arguments that the `argsrepr` and `kwargsrepr` headers show (`[wire.6]`).
_REPRESENTED = 1024
DEFAULT_BROKER = "amqp://guest@localhost//"


class Assembly:
    """The parts of one app. Thread-safe."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.RLock()
        self._version = -1
        self._parts: dict[str, Any] = {}
        self._producer: Producer | None = None
        self._reading: Reading | None = None
        self._clock = SystemClock()

    # -- adapters ----------------------------------------------------------------------------------------------------

    @property
    def broker(self) -> Broker:
        """The broker that is published to."""
        broker: Broker = self._part("broker", lambda: self._open_broker(self._conf.broker_write_url))
        return broker

    @property
    def broker_for_read(self) -> Broker:
        """The broker that a worker takes from; the same object unless the settings name two."""
        conf = self._conf
        if conf.broker_read_url == conf.broker_write_url:
            return self.broker
        broker: Broker = self._part("broker_for_read", lambda: self._open_broker(conf.broker_read_url))
        return broker

    @property
    def store(self) -> ResultBackend | None:
        """Where records are kept; None if results are disabled."""
        store: ResultBackend | None = self._part("store", lambda: self._open_backend(self._conf.result_backend))
        return store

    def pool(self, name: str, runner: Runner, concurrency: int) -> Pool:
        """A pool by name. Raises `ImproperlyConfigured` for an unknown one."""
        factory = _adapter(POOLS, name, "worker_pool", "pool")
        pool: Pool = factory(runner, concurrency)
        return pool

    # -- the flow ----------------------------------------------------------------------------------------------------

    @property
    def producer(self) -> Producer:
        producer: Producer = self._part("producer", self._make_producer)
        self._producer = producer
        return producer

    def dispatch(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any) -> AsyncResult[Any]:
        """Where `Task.apply_async` ends. A `send_task` that somebody put in place of ours is called, as ever."""
        app = self._app
        if type(app).send_task is not app._own_send_task or "send_task" in app.__dict__:
            return app.send_task(name, args, kwargs, task_type=task, **options)
        return self.send(name, args, kwargs, options, task)

    def send(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None) -> AsyncResult[Any]:
        """Publish a call (`[call.2]`, `[app.19]`); where `dispatch` and `Celery.send_task` end."""
        producer = self._producer if self._app._conf.version == self._version else None
        message = (producer or self.producer).send(Call(name, args or (), kwargs or {}, options, task))
        result = (options.get("result_cls") or self._app.AsyncResult)(message.id)
        if message.ignore_result:
            result.ignored = True
        if getattr(task, "_types", None) is not None:
            result._task_name = name  # so it knows what the task returns
        if current.task_stack.top is not None and options.get("add_to_parent", True):
            parent = current.get_current_worker_task()
            if parent is not None:
                parent.add_trail(result)
        return result

    @property
    def reading(self) -> Reading | None:
        """Reads results straight from the store; None where the app's backend has a say in it."""
        if self._reading is not None and self._app._conf.version == self._version:
            return self._reading
        return self._make_reading()

    def _make_reading(self) -> Reading | None:
        from celery.documents import Reading

        backend, store = self._app.backend, self.store
        self._reading = None
        if store is not None and getattr(backend, "reads_straight", False):
            self._reading = Reading(store, backend.serializer, backend.accept)
        return self._reading

    def runner(self, hostname: str) -> Runner:
        """What a pool's processes run messages with."""
        from celery.app.runner import TaskRunner
        from celery.app.trace import LogLines
        from celery.tracer import Tracer

        lines = LogLines()
        lines.refresh()
        return TaskRunner(self._app, Tracer(self._tracer_parts(hostname, lines)), lines)

    # -- life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection. Idempotent; whatever is used again connects anew."""
        with self._lock:
            parts, self._parts = self._parts, {}
            self._producer = self._reading = None
            for name in ("broker", "broker_for_read", "store"):
                if parts.get(name) is not None:
                    parts[name].close()

    def reset_after_fork(self) -> None:
        """A forked child makes its own parts; the parent's connections are left alone."""
        self._lock = threading.RLock()

    # -- making ------------------------------------------------------------------------------------------------------

    @property
    def _conf(self) -> Any:
        return self._app.conf

    def _part(self, name: str, make: Any) -> Any:
        version = self._app.conf.version
        if version == self._version:
            try:
                return self._parts[name]
            except KeyError:
                pass
        with self._lock:
            if version != self._version:
                self.close()
                self._version = version
            if name not in self._parts:
                self._parts[name] = make()
            return self._parts[name]

    def _open_broker(self, url: Any) -> Broker:
        conf = self._conf
        first = _first_url(url) or DEFAULT_BROKER
        factory = _adapter(BROKERS, _scheme(first), "broker_url", "broker")
        config = BrokerConfig(
            url=first,
            options=dict(conf.broker_transport_options or {}),
            ssl=conf.broker_use_ssl,
            connect_timeout=conf.broker_connection_timeout or 4.0,
            pool_limit=conf.broker_pool_limit,
            node=f"{socket.gethostname()}-{os.getpid()}-{new_id()[:8]}",
        )
        broker: Broker = factory(config)
        return broker

    def _open_backend(self, url: Any) -> ResultBackend | None:
        conf = self._conf
        first = _first_url(url)
        if not first or first in ("disabled", "disabled://"):
            return None
        factory = _adapter(BACKENDS, _scheme(first), "result_backend", "result backend")
        options = dict(conf.result_backend_transport_options or {})
        config = BackendConfig(
            url=first,
            options=options,
            expires=_seconds(conf.result_expires),
            key_prefix=options.get("global_keyprefix") or "",
            ssl=conf.redis_backend_use_ssl or False,
            is_final=self._is_final(conf.result_serializer),
        )
        store: ResultBackend = factory(config)
        return store

    def _is_final(self, serializer: str) -> Any:
        if serializer == "json":
            return None
        from celery.documents import final_by

        conf = self._conf
        accepted = conf.result_accept_content or conf.accept_content or ("json",)
        return final_by(serializer, codecs.accept_types(accepted))

    def _make_producer(self) -> Producer:
        conf, app = self._conf, self._app
        defaults = PublishDefaults(
            serializer=conf.task_serializer,
            compression=conf.task_compression,
            protocol=conf.task_protocol,
            delivery_mode=1 if conf.task_default_delivery_mode in (1, "transient") else 2,
            priority=conf.task_default_priority,
            inherit_parent_priority=conf.task_inherit_parent_priority,
            retry=conf.task_publish_retry,
            retry_policy=conf.task_publish_retry_policy or {},
            utc=conf.enable_utc,
            # The zone data base is not loaded where plain UTC will do.
            timezone=dt.UTC if conf.enable_utc and not conf.timezone else app.timezone,
            origin=f"gen{os.getpid()}@{socket.gethostname()}",
        )
        return Producer(
            self.broker,
            router=app.amqp.router,
            encode=codecs.encode,
            encode_call=codecs.encode_call,
            compress=codecs.compress,
            represent=partial(saferepr, maxlen=_REPRESENTED, maxlevels=conf.task_repr_maxlevels),
            running=current.task_stack,
            parent=current.current_request,
            address=_Address(app),
            defaults=defaults,
            clock=self._clock,
            observer=PublishSignals(app.amqp.kombu_queue),
        )

    def _tracer_parts(self, hostname: str, lines: LogLines) -> TracerParts:
        from celery.app.trace import task_has_custom, tellers
        from celery.documents import Documents
        from celery.tracer import TracerParts

        app, conf = self._app, self._conf
        accept = codecs.accept_types(conf.accept_content)
        return TracerParts(
            tasks=app._tasks,
            context=app.Context,
            decode=partial(codecs.decode, accept=accept),
            decompress=codecs.decompress,
            documents=Documents(conf.result_serializer, extended=bool(conf.result_extended)),
            save=self._save,
            follow=self._follow,
            enter=_enter,
            leave=_leave,
            exception_info=_exception_info,
            overrides=task_has_custom,
            tellers=tellers(lines),
            hostname=hostname,
            pid=os.getpid,
            store_results=self.store is not None,
        )

    def _save(self, records: list[Any]) -> None:
        store = self.store
        if store is not None:
            store.save(records)

    def _follow(self, signature: Mapping[str, Any], value: Any) -> Publication:
        """A callback's call: the parent's value comes first unless the signature is immutable (`[call.9]`)."""
        args = tuple(signature.get("args") or ())
        call = Call(
            signature["task"],
            args if signature.get("immutable") else (value, *args),
            dict(signature.get("kwargs") or {}),
            dict(signature.get("options") or {}),
            self._app._tasks.get(signature["task"]),
        )
        publication = self.producer.prepare(call)
        parent = current.get_current_worker_task()
        if parent is not None:
            parent.add_trail(self._app.AsyncResult(publication.message.id))
        return publication


class _Address(threading.local):
    """Where replies to this thread go: `text`, looked up once in each thread."""

    def __init__(self, app: Celery) -> None:
        self.text: str = app.thread_oid


def _adapter(table: Mapping[str, str], scheme: str, setting: str, what: str) -> Any:
    try:
        path = table[scheme]
    except KeyError:
        known = ", ".join(sorted(table))
        raise ImproperlyConfigured(f"{setting}: expected a {what} among {known}; got {scheme!r}") from None
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.startswith("celery"):
            raise
        raise ImproperlyConfigured(
            f"{setting}: the {scheme} {what} needs the package {exc.name!r}; install it with "
            f"`pip install 'celery[{'redis' if scheme.startswith('redis') else scheme.partition('+')[0]}]'`"
        ) from exc


def _first_url(url: Any) -> str:
    """A setting may hold one URL, a list, or several with `;` between (failover)."""
    if isinstance(url, list | tuple):
        url = url[0] if url else ""
    return str(url or "").split(";")[0]


def _scheme(url: str) -> str:
    return url.partition("://")[0] if "://" in url else url


def _seconds(value: Any) -> float | None:
    if isinstance(value, dt.timedelta):
        return value.total_seconds() or None
    return float(value) if value else None


def _enter(task: Any, request: Any) -> None:
    current.task_stack.push(task)
    task.request_stack.push(request)


def _leave(task: Any) -> None:
    task.request_stack.pop()
    current.task_stack.pop()


def _exception_info() -> Any:
    from billiard.einfo import ExceptionInfo

    return ExceptionInfo()
