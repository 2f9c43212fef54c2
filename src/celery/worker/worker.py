"""Application. The worker that can be embedded: `WorkController` puts the engine together and runs it."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.utils.url import maybe_sanitize_url

from celery import codecs, signals
from celery.app.adapters import max_deaths
from celery.app.hazards import look_out
from celery.app.pools import make_pool
from celery.app.utils import sanitize_url
from celery.exceptions import ImproperlyConfigured
from celery.outcome import Record
from celery.platforms import EX_FAILURE, EX_OK
from celery.ports import Answering, SystemClock, Tracked
from celery.utils.log import mlevel
from celery.utils.nodenames import default_nodename, worker_direct
from celery.worker import saying, state
from celery.worker.again import Again
from celery.worker.attendance import Attendance
from celery.worker.autoscale import PoolSize
from celery.worker.consumer.engine import Engine, EngineParts
from celery.worker.consumer.events import Events
from celery.worker.parts import EnginePart, Parts, PoolPart
from celery.worker.pidbox import Pidbox, wanted_by
from celery.worker.policies import check_rates, policy_of
from celery.worker.reloading import reload_modules
from celery.worker.request import Received, Request, request_of
from celery.worker.scaling import make_autoscaler, range_of, retire
from celery.worker.sizing import cpu_count, usable_cpus
from celery.worker.statefile import StateFile
from celery.worker.telling import Telling
from celery.worker.tidying import Tidying
from celery.worker.troubles import trouble_of

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.message import Message
    from celery.ports import Pool
    from celery.worker.admission import TaskPolicy
    from celery.worker.consumer.deliveries import Held
    from celery.worker.parts import Part

__all__ = ["WorkController"]

logger = logging.getLogger("celery.worker")


#: Seconds before an autoscaler is asked again that has failed.
_SCALE_AGAIN = 30.0


class WorkController:
    """Takes messages from an app's queues and has them run, in any thread of any program.

    `start` lasts until the worker is stopped: by `stop` or `terminate` from another thread, or by `worker.state`.
    Nothing here touches signal handlers, the root logger, the environment or the process; `celery.apps.worker.Worker`
    does that, for the command line.
    """

    app: Any = None
    pidlock: Any = None
    pool: Pool | None = None
    event_dispatcher: Any = None
    heart: Any = None
    gossip: Any = None
    timer: Any = None
    #: What the process should exit with; None until it has stopped for a reason.
    exitcode: int | None = None

    def __init__(self, app: Celery | None = None, hostname: str | None = None, **kwargs: Any) -> None:
        """Options are those of `celery worker`, by their long names. Reads the settings; connects to nothing."""
        self.app = app or self.app
        self.hostname = default_nodename(hostname or "")
        self.startup_time = dt.datetime.now(dt.UTC)
        self.pid = os.getpid()
        self.options = kwargs
        self._thread: int | None = None
        self._exhausted = self._softened = False
        self._scale_at = 0.0
        self._tidying = Tidying(SystemClock())
        self._done = threading.Event()
        self.app.loader.init_worker()
        self.on_before_init(**kwargs)
        self.setup_defaults(**kwargs)
        self.on_after_init(**kwargs)
        self.setup_instance(**self.prepare_args(**kwargs))

    def wants_engine_thread(self) -> bool:
        """Whether the engine is to run in a thread of its own while the thread of `start` only waits.

        A solo pool runs tasks in the engine's thread, and tasks expect the thread that the user started.
        """
        return False

    # -- hooks for subclasses ----------------------------------------------------------------------------------------

    def on_before_init(self, **kwargs: Any) -> None:
        """Before options are read."""

    def on_after_init(self, **kwargs: Any) -> None:
        """Options are read; queues are not chosen yet."""

    def on_init_blueprint(self) -> None:
        """Before the parts are made."""

    def on_start(self) -> None:
        """Before the parts are started."""

    def on_consumer_ready(self, consumer: Any) -> None:
        """Messages are being taken."""

    def on_close(self) -> None:
        """Before the parts are stopped."""

    def on_stopped(self) -> None:
        """Everything has stopped."""

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """Options as `setup_instance` gets them."""
        return kwargs

    # -- setting up --------------------------------------------------------------------------------------------------

    def setup_defaults(
        self,
        concurrency: Any = None,
        loglevel: Any = "WARN",
        logfile: str | None = None,
        task_events: bool | None = None,
        pool: Any = None,
        statedb: str | None = None,
        **options: Any,
    ) -> None:
        """Take each option, or else its setting (`[worker.7]`, `[worker.14]`)."""
        conf = self.app.conf
        self.statedb = statedb or conf.worker_state_db
        self._take_limits(**options)
        self.loglevel = mlevel(loglevel)
        self.logfile = logfile
        self.task_events = conf.worker_send_task_events if task_events is None else task_events
        self.pool_cls = pool or options.get("pool_cls") or conf.worker_pool
        #: Most and fewest processes, where their number follows the work; else None (`[limit.7]`).
        self.autoscale = range_of(options.get("autoscale"))
        if self.autoscale is not None:
            concurrency = max(1, self.autoscale[1])
        self.concurrency = self._concurrency(concurrency or conf.worker_concurrency)

    def _take_limits(
        self,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        prefetch_multiplier: int | None = None,
        disable_prefetch: bool | None = None,
        pool_start_method: str | None = None,
        **options: Any,
    ) -> None:
        """What tasks, processes and queues are held to (`[worker.8]`, `[limit.3]`, `[pool.6]`)."""
        conf = self.app.conf
        self.time_limit = conf.task_time_limit if time_limit is None else time_limit
        self.soft_time_limit = conf.task_soft_time_limit if soft_time_limit is None else soft_time_limit
        self.max_tasks_per_child = max_tasks_per_child or conf.worker_max_tasks_per_child
        self.max_memory_per_child = max_memory_per_child or conf.worker_max_memory_per_child
        self.pool_start_method = pool_start_method or conf.worker_pool_start_method
        self.disable_prefetch = conf.worker_disable_prefetch if disable_prefetch is None else disable_prefetch
        if prefetch_multiplier is None and conf.value_set_for("worker_prefetch_multiplier"):
            prefetch_multiplier = conf.worker_prefetch_multiplier
        #: None: nobody has chosen one, so the worker takes what its pool has a use for.
        self.prefetch_multiplier = prefetch_multiplier

    @property
    def max_prefetch_count(self) -> int | None:
        """How many messages the worker holds at most; None: as many as its pool has a use for."""
        most = self.concurrency if self.autoscale is None else self.autoscale[0]
        if self.disable_prefetch:
            return most
        return (self.prefetch_multiplier or 0) * most or None

    @property
    def prefetch(self) -> int | None:
        """`max_prefetch_count`, as it has been changed since."""
        return self.consumer.prefetch

    @prefetch.setter
    def prefetch(self, count: int | None) -> None:
        self.consumer.prefetch = count

    def _concurrency(self, wanted: Any) -> int:
        if not wanted or wanted == "auto":  # decision 20: the default heeds a container's quota as well
            return usable_cpus() if self.pool_cls in ("prefork", "processes") else cpu_count()
        try:
            count = int(wanted)
        except (TypeError, ValueError):
            count = 0
        if count < 1:
            logger.warning("worker_concurrency: expected a positive number or 'auto', got %r; using the CPUs", wanted)
            return cpu_count()
        return count

    def setup_instance(
        self,
        queues: Any = None,
        ready_callback: Any = None,
        pidfile: str | None = None,
        include: Any = None,
        use_eventloop: Any = None,
        exclude_queues: Any = None,
        **kwargs: Any,
    ) -> None:
        """Choose queues, import the tasks' modules and make the parts. Raises `ImproperlyConfigured`."""
        self.pidfile = pidfile
        self.ready_callback = ready_callback or self.on_consumer_ready
        self.setup_queues(queues, exclude_queues)
        self.setup_includes(_listed(include))
        self.app.finalize()
        check_rates(self.app)
        for text in look_out(self.app, self.soft_time_limit, self.time_limit):
            logger.warning("%s", text)
        signals.worker_init.send(sender=self)
        self.on_init_blueprint()
        self._make_parts()

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Choose the queues to take from (`[worker.12]`). Raises `ImproperlyConfigured` for unknown ones."""
        queues = self.app.amqp.queues
        for names, choose, word in ((include, queues.select, "select"), (exclude, queues.deselect, "deselect")):
            try:
                choose(_listed(names))
            except KeyError as exc:
                raise ImproperlyConfigured(
                    f"Trying to {word} queue subset of {_listed(names)!r}, but queue {exc} isn't defined in the "
                    f"`task_queues` setting. Define it there, or let queues be made as they are named: "
                    f"task_create_missing_queues = True."
                ) from exc
        if self.app.conf.worker_direct:
            queues.select_add(worker_direct(self.hostname))

    def setup_includes(self, includes: Any) -> None:
        """Import these modules and those of the settings (`[worker.11]`)."""
        if includes:
            self.app.conf.include = [*(self.app.conf.include or ()), *includes]
        self.app.loader.import_default_modules()

    def _make_parts(self) -> None:
        #: Tells events (`event_dispatcher`), beats (`heart`), hears other workers (`gossip`).
        self._events = Events(self, **{**self.options, "task_events": self.task_events})
        self.pool = pool = self._make_pool()
        self._documents = self.app.assembly.documents
        self._telling = Telling(self.app, self.broker_url, self._ready, self.hostname, self._events.course)
        self.size = PoolSize(self)
        self.consumer = engine = Engine(self._engine_parts(pool))
        self.autoscaler = make_autoscaler(self)
        self._telling.consumer = engine
        self.engine_has_thread = self.wants_engine_thread()
        self._engine = EnginePart(engine, threaded=self.engine_has_thread)
        self._statefile = StateFile(self.statedb, self.app.clock) if self.statedb else None
        between: list[Part] = [] if self._statefile is None else [self._statefile]
        self.pidbox = Pidbox(self) if wanted_by(self) else None
        if self.pidbox is not None:  # stopped after the engine: it answers to the last
            between.append(self.pidbox)
        self.parts = Parts(PoolPart(pool), *between, self._events, self._engine)
        state.sources.add(self)

    def _make_pool(self) -> Pool:
        assembly = self.app.assembly
        tuning = {
            "max_tasks": self.max_tasks_per_child,
            "max_memory": self.max_memory_per_child,
            "start_method": self.pool_start_method,
            "proc_alive_timeout": self.app.conf.worker_proc_alive_timeout,
            "most": self.autoscale and 4 * self.autoscale[0],
        }
        runner = assembly.runner(self.hostname, self._events.watched)
        return make_pool(self.app, self.pool_cls, runner, self.concurrency, tuning)

    def _engine_parts(self, pool: Pool) -> EngineParts:
        app, conf = self.app, self.app.conf
        accept = codecs.accept_types(conf.accept_content)
        again = conf.broker_connection_retry_on_startup
        again = conf.broker_connection_retry if again is None else again
        attempts = Again(app, self._documents)
        return EngineParts(
            broker=app.assembly.broker_for_read,
            publisher=app.assembly.broker,
            store=app.assembly.store,
            pool=pool,
            queues=app.amqp.queues.consume_specs(),
            policies=self._policy,
            accept=accept,
            read_other=partial(codecs.read_protocol_1, accept=accept),
            verdict=self._verdict,
            fallout=app.assembly.fallout(self.hostname),
            closing=app.assembly.closing,
            observer=self._telling,
            watching=self._events.course,
            check=self._check,
            totals=state.total_count,
            prefetch=self.max_prefetch_count,
            prefetch_counts_running=bool(self.disable_prefetch),
            waiting_limit=conf.worker_eta_task_limit,
            aftermath=app.assembly.aftermath(self.hostname),
            again=attempts,
            cancelled=attempts.cancelled,
            grace=conf.get("worker_shutdown_grace"),
            attendant=Attendance(app, self.hostname, conf.result_serializer),
            unknown_grace=conf.get("worker_unknown_task_grace"),
            max_deaths=max_deaths(conf),
            revoked=state.revoked.view(),
            revoked_stamps=state.revoked_stamps,
            ahead=None if self.autoscale is None else self._ahead,
            connect_retries=(conf.broker_connection_max_retries or None) if again else 0,
        )

    @property
    def broker_url(self) -> str:
        """Where messages are taken from, without its password."""
        broker = self.app.assembly.broker_for_read
        shown = getattr(broker, "url_text", None)
        return sanitize_url(shown, "**") if shown else str(maybe_sanitize_url(self.app.conf.broker_read_url))

    # -- what the engine asks ----------------------------------------------------------------------------------------

    def _policy(self, name: str) -> TaskPolicy | None:
        return policy_of(self, name)

    def _verdict(self, message: Message, how: str, exc: BaseException) -> Record | None:
        if self.app.assembly.store is None:
            return None
        request = self.app.Context(message.headers)
        task = self.app.tasks.get(message.task)
        if request.ignore_result and not (task and task.store_errors_even_if_ignored):
            return None
        document = self._documents.failure(exc, request, None, how)
        return Record(message.id, how, document, message.reply_to)

    def requests(self, kind: str) -> list[Any]:
        """Requests of what is held: "reserved", "active" (of these, what runs) or "scheduled" (`[worker.31]`)."""
        if kind == "scheduled":
            known = (delivery.message for delivery in self.consumer.scheduled())
            return [Request(Received(m), app=self.app, hostname=self.hostname) for m in known if m is not None]
        held = self.consumer.reserved()
        return [self._shown(one) for one in held if kind == "reserved" or one.begun]

    def _shown(self, one: Held) -> Request:
        """The request of a run: always the same one, as it is now."""
        request: Request | None = one.request or one.shown
        if request is None:
            request = one.shown = request_of(one, self.app, self.hostname)
        if request is one.shown:
            request.acknowledged, request.time_start = one.acknowledged, one.began_at
            request.worker_pid = self.pool.pid_of(one.key) if one.begun and isinstance(self.pool, Tracked) else None
        return request

    def _ready(self) -> None:
        self._events.begin()
        signals.worker_ready.send(sender=self.consumer)
        self.ready_callback(self.consumer)

    def _check(self) -> None:
        """Called several times a second by the engine."""
        state.maybe_shutdown()
        if self.autoscaler is not None:
            self._look_at_size()
        if isinstance(self.pool, Answering):
            self.pool.ask_after()
        if self._statefile is not None:
            self._statefile.look()
        self._tidying.look()
        if not self._exhausted and getattr(self.pool, "exhausted", False):
            self._exhausted = True
            self.on_pool_exhausted()

    def _look_at_size(self) -> None:
        """An autoscaler that fails is told of, and asked again after a while."""
        if time.monotonic() < self._scale_at:
            return
        try:
            self.autoscaler.body()
        except Exception:
            self._scale_at = time.monotonic() + _SCALE_AGAIN
            logger.exception("The autoscaler failed; it is asked again in %s seconds", _SCALE_AGAIN)

    def _ahead(self) -> int:
        """Messages to hold while the pool can still grow, so that it is seen to be too small."""
        most = 0 if self.autoscaler is None else self.autoscaler.max_concurrency
        return most if self.size.num_processes < most else 0

    # -- what commands ask for ---------------------------------------------------------------------------------------

    def trouble(self) -> str | None:
        """Why the worker is not fit to work, or None: its loop or children have not answered for a while."""
        return trouble_of(self)

    def remember_soon(self) -> None:
        """What is revoked has changed: have it written to the state file, if there is one."""
        if self._statefile is not None:
            self._statefile.hurry()

    def resized(self, size: int) -> None:
        """The pool has so many runners now."""
        self.concurrency = size
        self.prefetch = self.max_prefetch_count

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Import these modules, or reload them, and make the pool's processes anew (`[worker.33]`)."""
        reload_modules(self, modules, reload=reload, reloader=reloader)

    def on_pool_exhausted(self) -> None:
        """The pool has given up as many threads as it has (see `ports.Exhaustible`); told once."""
        logger.critical(
            "Tasks that ran past their hard time limit still occupy as many threads as the pool has. They cannot be "
            "ended from inside this process: start it anew, and run such tasks with -P prefork."
        )

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run until stopped. What ended it is told by `exitcode`; nothing is raised."""
        self._thread = threading.get_ident()
        try:
            self.on_start()
            if isinstance(self.pool, Tracked):  # of processes: all come from one that is made now
                signals.worker_before_create_process.send(sender=self.pool)
            self.parts.start()
            self._engine.wait()
        except SystemExit as exc:
            self._ends_with(exc.code)
        except KeyboardInterrupt:
            self._ends_with(EX_FAILURE)
        except ImproperlyConfigured as exc:  # says what to do; where it was found helps nobody
            logger.critical("Unrecoverable error: %s", exc)
            self._ends_with(EX_FAILURE)
        except Exception as exc:
            logger.critical("Unrecoverable error: %r", exc, exc_info=True)
            self._ends_with(EX_FAILURE)
        finally:
            self._finish()

    def _ends_with(self, code: Any) -> None:
        """The first reason counts."""
        if self.exitcode is None:
            self.exitcode = code if isinstance(code, int) else EX_FAILURE if code else EX_OK

    def _finish(self) -> None:
        try:
            self.on_close()
            self.parts.stop()
            retire(self.autoscaler)
            signals.worker_shutdown.send(sender=self)
            self.app.loader.shutdown_worker()
            self.on_stopped()
        finally:
            self._ends_with(EX_FAILURE if self._softened and self.consumer.cut_short else EX_OK)
            self._done.set()

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Take nothing more, let running tasks finish, and end `start` (`[shutdown.1]`).

        Those that last longer than `worker_shutdown_grace` seconds are cut short. Waits for the end, except in a
        signal handler and in the worker's own thread.
        """
        if exitcode is not None:
            self._ends_with(exitcode)
        self.consumer.stop()
        self._wait(in_sighandler)

    def soften(self, seconds: float, *, linger: bool = False, in_sighandler: bool = False) -> None:
        """As `stop`, and after that many seconds as `terminate` (`[shutdown.3]`).

        `linger`: wait so long even if nothing runs. The exit code is 1 if anything was cut short.
        """
        self._softened = True
        self.consumer.stop(time.monotonic() + seconds, linger=linger)
        logger.warning("Initiating Soft Shutdown, terminating in %s seconds", seconds)
        self._wait(in_sighandler)

    def terminate(self, in_sighandler: bool = False) -> None:
        """Stop running tasks too; what was not acknowledged goes back to its queue (`[shutdown.2]`)."""
        self.consumer.terminate()
        self._wait(in_sighandler)

    def _wait(self, in_sighandler: bool) -> None:
        if not in_sighandler and self._thread not in (None, threading.get_ident()):
            self._done.wait()

    @property
    def state(self) -> Any:
        """The module `celery.worker.state`."""
        return state

    def info(self) -> dict[str, Any]:
        """What the worker says of itself (`[worker.32]`)."""
        return saying.info(self)

    def stats(self) -> dict[str, Any]:
        """`info`, with broker, pool, prefetching and what the process has used."""
        return saying.stats(self)

    def rusage(self) -> dict[str, Any]:
        """What the process has used so far (`getrusage(2)`)."""
        return saying.rusage()

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.parts})>"

    def __str__(self) -> str:
        return str(self.hostname)


def _listed(names: Any) -> list[str] | None:
    """Names given as a list or as text with commas."""
    if isinstance(names, str):
        names = names.split(",")
    return [name.strip() for name in names if name.strip()] if names else None
