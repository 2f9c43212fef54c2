"""Application. Where the parts of one app are put together: settings in, adapters and flow out.

The only place that knows adapters by name. Parts are made when first asked for and made anew when the settings change
(`Settings.version`); nothing here connects.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import sys
import threading
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

from celery import codecs, current
from celery.app.adapters import (
    BROKERS,
    adapter,
    all_urls,
    dead_letter_bounds,
    publish_timeout,
    scheme_of,
    usable_urls,
)  # fmt: skip
from celery.app.amqp import AMQP
from celery.app.around import around
from celery.app.broker_parts import amqp_options, whole_url
from celery.app.kombu_seam import KombuSeam
from celery.app.publishing import PublishSignals, address_of
from celery.app.sent_events import SentEvents
from celery.app.storing import open_backend
from celery.failures import exception_info
from celery.lifecycle import SHUT
from celery.ports import BrokerConfig, SystemClock
from celery.producer import Call, Gathered, Producer, PublishDefaults, new_id
from celery.states import SUCCESS
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from celery.app.base import Celery
    from celery.app.chords import Closing
    from celery.app.eager import Eager
    from celery.app.following import Following
    from celery.app.publishing import Address, ReplyQueue
    from celery.app.trace import LogLines
    from celery.documents import Documents, Reading
    from celery.lifecycle import Gate
    from celery.outcome import Failure, Record
    from celery.pending import Pending
    from celery.ports import Barrier, Broker, Clock, ResultBackend, Runner
    from celery.result import AsyncResult
    from celery.tracer import Tracer
    from celery.tracer_parts import TracerParts

__all__ = ["Assembly"]

logger = logging.getLogger("celery.app.trace")


#: Characters of the arguments that the `argsrepr` and `kwargsrepr` headers show (`[wire.6]`).
_REPRESENTED = 1024
#: Results that are awaited at once; more take turns.
_WAITERS = 32
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
        self._clock: Clock = SystemClock()
        #: `task_always_eager`, and the version of the settings that says so.
        self._eager: tuple[Any, bool] = (None, False)
        self._pending: Pending | None = None
        #: The pending records themselves; empty wherever no task runs.
        self._held: dict[str, Record] = {}

    # -- adapters ----------------------------------------------------------------------------------------------------

    @property
    def broker(self) -> Broker:
        """The broker that is published to."""
        broker: Broker = self._part("broker", lambda: self.open_broker(self._conf.broker_write_url))
        return broker

    @property
    def broker_for_read(self) -> Broker:
        """The broker that a worker takes from; the same object unless the settings name two."""
        conf = self._conf
        if conf.broker_read_url == conf.broker_write_url:
            return self.broker
        broker: Broker = self._part("broker_for_read", lambda: self.open_broker(conf.broker_read_url))
        return broker

    @property
    def store(self) -> ResultBackend | None:
        """Where a worker saves records; None if results are disabled."""
        store: ResultBackend | None = self._part("store", self._make_store)
        return store

    @property
    def adapter(self) -> ResultBackend | None:
        """The adapter that the setting `result_backend` names; None if it names none."""
        adapter: ResultBackend | None = self._part("adapter", lambda: open_backend(self._app))
        return adapter

    @property
    def records(self) -> ResultBackend | None:
        """The adapter as user code is to see it: where tasks run, behind the records that are on their way to it."""
        if self._pending is None:
            return self.adapter
        revealing: ResultBackend | None = self._part("records", self._make_records)
        return revealing

    # -- the flow ----------------------------------------------------------------------------------------------------

    @property
    def producer(self) -> Producer:
        producer: Producer = self._part("producer", self._make_producer)
        self._producer = producer
        return producer

    @property
    def address(self) -> Address | ReplyQueue:
        """Where replies to what this thread sends go."""
        address: Address | ReplyQueue = self._part("address", lambda: address_of(self._app))
        return address

    @property
    def kombu(self) -> KombuSeam:
        """Publishing through kombu, for those who insist on it."""
        seam: KombuSeam = self._part("kombu", lambda: KombuSeam(self._app, AMQP, self.broker.publish))
        return seam

    def kombu_connection(self, **given: Any) -> Any:
        """A kombu connection that leads to the broker of this app, whatever that is."""
        from celery.app.kombu_transport import connection

        return connection(self._app, **given)

    def dispatch(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any) -> AsyncResult[Any]:
        """Where `Task.apply_async` ends. A `send_task` that somebody put in place of ours is called, as ever."""
        app = self._app
        if self._eager[0] != app._conf.version:
            self._eager = (app.conf.version, bool(app.conf.task_always_eager))
        if self._eager[1]:
            return self.eager.send(task, args, kwargs, options)
        if type(app).send_task is not app._own_send_task or "send_task" in app.__dict__:
            return app.send_task(name, args, kwargs, task_type=task, **options)
        return self.send(name, args, kwargs, options, task)

    def send(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None) -> AsyncResult[Any]:
        """Publish a call (`[call.2]`, `[app.19]`); where `dispatch` and `Celery.send_task` end."""
        producer = self._producer if self._app._conf.version == self._version else None
        call = Call(name, args or (), kwargs or {}, options, task)
        gathered = options.get("producer")
        if type(gathered) is Gathered:
            message = (producer or self.producer).gather(call, gathered)
        else:
            if self._held:  # a hook sends: others may look for the result of its run
                self.pending.reveal_all()
            message = (producer or self.producer).send(call)
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
            self._reading = Reading(store, backend.serializer, backend.accept, self._pending)
        return self._reading

    @property
    def documents(self) -> Documents:
        """Writes the records that `store` takes."""
        from celery.backends.bridge import Bridged
        from celery.documents import Documents

        conf, backend = self._conf, self._app.backend
        return Documents(
            getattr(backend, "serializer", conf.result_serializer),
            extended=bool(conf.result_extended),
            compression=getattr(backend, "compression", None),
            carry=isinstance(self.store, Bridged),
        )

    @property
    def eager(self) -> Eager:
        """Runs tasks here and now; where `Task.apply` ends."""
        from celery.app.eager import Eager

        return Eager(self._app, self._tracer_parts)

    def runner(self, hostname: str, watched: Gate = SHUT) -> Runner:
        """What a pool's processes run messages with. `watched`: open while outcomes are to be told of in words."""
        from celery.app.runner import TaskRunner
        from celery.app.trace import LogLines

        lines = LogLines()
        lines.refresh()
        return TaskRunner(self._app, self.tracer(hostname, lines, watched), lines, hostname)

    def tracer(self, hostname: str, lines: LogLines, watched: Gate = SHUT) -> Tracer:
        """What runs messages; `lines` tells how they ended."""
        from celery.tracer import Tracer

        parts = self._tracer_parts(hostname, lines)
        parts.watched = watched
        return Tracer(parts)

    def aftermath(self, hostname: str) -> Callable[..., Failure]:
        """`aftermath(message, exc, *, hooks=True)`: what a failure leaves behind that the main process saw.

        It runs the task's hooks and errbacks, sends `task_failure` and gives the outcome with its record and follow-up
        messages (`[limit.1]`); see `Tracer.aftermath`.
        """
        from celery.app.trace import LogLines

        return self.tracer(hostname, LogLines()).aftermath

    def fallout(self, hostname: str) -> Callable[..., Failure | None]:
        """`fallout(message, state, exc)`: what it means for a message's flow that it ends without a run."""
        from celery.app.trace import LogLines

        return self.tracer(hostname, LogLines()).fallout

    @property
    def following(self) -> Following:
        """Makes the messages that follow from a run."""
        from celery.app.following import Following

        return Following(self._app, self.documents)

    @property
    def closing(self) -> Closing | None:
        """Makes what becomes of chords whose members have all arrived; None where the store counts none."""
        from celery.app.chords import Closing

        counting: Barrier | None = getattr(self.store, "barriers", None)
        return None if counting is None else Closing(self._app, counting, self.following)

    @property
    def barriers(self) -> Barrier | None:
        """Where our store counts the members of chords; None for a backend of others, which has its own ways."""
        from celery.backends.bridge import Bridged

        store = self.store
        barriers: Barrier | None = None if isinstance(store, Bridged) else getattr(store, "barriers", None)
        return barriers

    @property
    def waiters(self) -> ThreadPoolExecutor:
        """Threads that wait for results in the place of an event loop."""
        waiters: ThreadPoolExecutor = self._part("waiters", _make_waiters)
        return waiters

    @property
    def pending(self) -> Pending:
        """Records that are on their way to the store with the outcomes of runs in this process."""
        if self._pending is None:
            from celery.pending import Pending

            self._pending = Pending(self._save)
            self._held = self._pending.records
            self._reading = None  # it reads past them
        return self._pending

    # -- life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection. Idempotent; whatever is used again connects anew."""
        with self._lock:
            parts, self._parts = self._parts, {}
            self._producer = self._reading = None
            if parts.get("waiters") is not None:
                parts["waiters"].shutdown(wait=False)
            for name in ("broker", "broker_for_read", "store", "adapter"):
                if parts.get(name) is not None:
                    parts[name].close()

    def tell_time_by(self, clock: Clock) -> Clock:
        """Messages bear the times of this clock from now on; returns the one before. For tests."""
        with self._lock:
            before, self._clock = self._clock, clock
            self._parts.pop("producer", None)
            self._producer = None
        return before

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

    def open_broker(self, url: Any) -> Broker:
        """The broker at a URL, with the options of the settings. Raises `ImproperlyConfigured` for a URL of no broker
        of ours."""
        conf = self._conf
        given = [whole_url(each, conf) for each in all_urls(url) or [""]]
        urls = usable_urls(given, "broker_url") or DEFAULT_BROKER
        scheme = scheme_of(urls)
        factory = adapter(BROKERS, scheme, "broker_url", "broker")
        config = BrokerConfig(
            url=urls,
            options={**amqp_options(conf, scheme), **(conf.broker_transport_options or {})},
            ssl=conf.broker_use_ssl,
            connect_timeout=conf.broker_connection_timeout or 4.0,
            pool_limit=conf.broker_pool_limit,
            pool_timeout=conf.get("broker_pool_acquire_timeout"),
            node=f"{socket.gethostname()}-{os.getpid()}-{new_id()[:8]}",
            failover=conf.broker_failover_strategy,
            dead_letters=dead_letter_bounds(conf),
            exchange_type_of=lambda name: self._app.amqp.queues.exchange_type(name),
        )
        return cast("Broker", factory(config))

    def _make_store(self) -> ResultBackend | None:
        from celery.backends.bridge import Bridged, brings_storage

        return Bridged(self._app) if brings_storage(self._app.backend) else self.adapter

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
            within=publish_timeout(conf),
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
            address=self.address,
            defaults=defaults,
            clock=self._clock,
            observer=PublishSignals(app.amqp.kombu_queue, SentEvents(app)),
            carrier=self.kombu,
            insisting=_Replaced(),
        )

    def _make_records(self) -> ResultBackend | None:
        from celery.pending import Revealing

        store = self.adapter
        return None if store is None else Revealing(store, self.pending)

    def _tracer_parts(self, hostname: str, lines: LogLines) -> TracerParts:
        from celery.app.trace import foreign, shown, task_has_custom, tellers
        from celery.backends.base import Backend
        from celery.tracer_parts import TracerParts

        app, conf = self._app, self._conf
        accept = codecs.accept_types(conf.accept_content)
        following = self.following
        return TracerParts(
            tasks=app._tasks,
            context=app.Context,
            decode=partial(codecs.decode, accept=accept),
            decompress=codecs.decompress,
            documents=self.documents,
            save=self._save,
            callbacks=following.callbacks,
            next=following.next,
            further=following.further,
            grow=self._grow,
            errbacks=following.errbacks,
            pending=self.pending,
            enter=_enter,
            leave=_leave,
            exception_info=_exception_info,
            overrides=task_has_custom,
            tellers=tellers(lines),
            foreign=partial(foreign, app, hostname),
            shown=shown,
            around=partial(around, app.loader, Backend),
            succeeded=self._succeeded if conf.worker_deduplicate_successful_tasks else None,
            hostname=hostname,
            pid=os.getpid,
            store_results=self.store is not None,
        )

    def _grow(self, group_id: str, more: int) -> None:
        barriers = self.barriers
        if barriers is not None:
            barriers.grow(group_id, more)

    def _succeeded(self, task_id: str) -> Mapping[str, Any] | None:
        """The document of a task that has succeeded already; None too if that cannot be known."""
        backend = self._app.backend
        if not backend.persistent:
            return None
        try:
            document: Mapping[str, Any] = backend.get_task_meta(task_id, cache=False)
        except Exception as exc:  # noqa: BLE001 - then it is run again, as it would be without the question
            logger.warning("Cannot tell whether %s has succeeded before: %r", task_id, exc)
            return None
        return document if document.get("status") == SUCCESS else None

    def _save(self, records: list[Any]) -> None:
        store = self.store
        if store is not None:
            store.save(records)


def _make_waiters() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(_WAITERS, "celery-await")


class _Replaced:
    """The gate that opens when kombu's publishing has been replaced: monitoring packages want to see each message."""

    @property
    def receivers(self) -> bool:
        module = sys.modules.get("kombu.messaging")
        if module is None:
            return False
        producer, own = module.Producer, vars(module)
        return not (
            type(producer.publish) is type(producer._publish) is FunctionType
            and producer.publish.__globals__ is own
            and producer._publish.__globals__ is own
        )


def _enter(task: Any, request: Any) -> None:
    current.task_stack.push(task)
    task.request_stack.push(request)


def _leave(task: Any) -> None:
    task.request_stack.pop()
    current.task_stack.pop()


def _exception_info() -> Any:
    from billiard.einfo import ExceptionInfo

    return exception_info(ExceptionInfo)
