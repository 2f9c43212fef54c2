"""Application. The app: what users make, configure and hold; each method hands on to the room that does the work."""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, cast, overload

from celery import _state
from celery.app import builtins as _builtins  # noqa: F401 - its tasks are announced to every app
from celery.app import commanding, configuring, connecting, declaring, periodic, pickling, sending
from celery.app.annotations import prepare as prepare_annotations
from celery.app.identity import Identity
from celery.app.parts import part
from celery.app.pickling import AppPickler
from celery.app.registry import TaskRegistry
from celery.app.utils import PendingConfiguration
from celery.current import get_current_task, get_current_worker_task
from celery.loaders import get_loader_cls
from celery.utils.dispatch.signal import Signal
from celery.utils.heads import argument_checker
from celery.utils.imports import gen_task_name, symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import tzinfo

    from celery.app.assembly import Assembly
    from celery.app.task import Task as TaskType
    from celery.app.utils import Settings
    from celery.canvas import Signature
    from celery.current import Context as ContextType
    from celery.loaders.base import BaseLoader
    from celery.result import AsyncResult as ResultType
    from celery.result import GroupResult as GroupResultType
    from celery.result import ResultSet as ResultSetType

__all__ = ["App", "AppPickler", "Celery", "PendingConfiguration"]

P = ParamSpec("P")
R = TypeVar("R")

#: Fixups that every app tries ([app.43]).
BUILTIN_FIXUPS: frozenset[str] = frozenset()


class Celery:
    """An application: its configuration, its tasks, and the parts that send, run and keep them.

    Making one neither connects nor reads configuration ([app.1]). `broker`, `backend`, `include` and every unknown
    keyword are settings that outrank those of the config source.
    """

    SYSTEM = os.uname().sysname if hasattr(os, "uname") else "Windows"
    IS_macOS = SYSTEM == "Darwin"
    IS_WINDOWS = SYSTEM == "Windows"

    # Classes, or dotted names of classes, for subclasses to replace ([app.3]).
    amqp_cls: Any = "celery.app.amqp:AMQP"
    backend_cls: Any = None
    events_cls: Any = "celery.app.events:Events"
    loader_cls: Any = None
    log_cls: Any = "celery.app.log:Logging"
    control_cls: Any = "celery.app.control:Control"
    task_cls: Any = "celery.app.task:Task"
    registry_cls: Any = TaskRegistry
    Pickler = AppPickler

    #: `send_task` as it is here; `assembly.dispatch` asks whether somebody has put another in its place.
    _own_send_task: Any = None
    builtin_fixups: Iterable[str] = BUILTIN_FIXUPS
    on_configure: Any = None
    on_after_configure: Any = None
    on_after_finalize: Any = None
    on_after_fork: Any = None
    main: str | None = None
    steps: defaultdict[str, set[Any]]
    user_options: defaultdict[str, set[Any]]

    #: Whether the config source has been read.
    configured: bool
    _conf: Any  # Settings, or PendingConfiguration until they are read
    _preconf: dict[str, Any]
    _preconf_set_by_auto: set[str]
    _config_source: Any
    _config_source_silent: bool
    _pending_defaults: deque[Any]
    _pending_periodic_tasks: deque[tuple[str, dict[str, Any], bool]]
    _backend: Any

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: Any = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Any = None,
        broker: Any = None,
        include: Any = None,
        changes: dict[str, Any] | None = None,
        config_source: Any = None,
        fixups: Any = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **kwargs: Any,
    ) -> None:
        self.main = main
        self.set_as_current = set_as_current
        self.strict_typing = strict_typing
        self.autofinalize = autofinalize
        self.namespace = namespace
        self.amqp_cls = amqp or self.amqp_cls
        self.events_cls = events or self.events_cls
        self.loader_cls = loader or os.environ.get("CELERY_LOADER") or self.loader_cls or "app"
        self.log_cls = log or self.log_cls
        self.control_cls = control or self.control_cls
        self.task_cls = task_cls or self.task_cls
        self.registry_cls = symbol_by_name(self.registry_cls)
        self.user_options = defaultdict(set)
        self.steps = defaultdict(set)
        self.fixups = set(self.builtin_fixups) if fixups is None else fixups
        self.finalized = False
        self._finalize_mutex = threading.RLock()
        self._pending: deque[Any] = deque()
        self._tasks: TaskRegistry = tasks if isinstance(tasks, TaskRegistry) else self.registry_cls(tasks or {})
        self._duplicate_task_names_warned: set[str] = set()
        self._identity = Identity()
        given = {"broker_url": broker, "result_backend": backend, "include": include, **kwargs}
        configuring.prepare(self, given, changes, config_source, config_source_silent)
        self._start_up()

    def _start_up(self) -> None:
        self._using_v1_reduce = type(self).__reduce_args__ is not Celery.__reduce_args__
        self._custom_task_cls_used = self.task_cls != Celery.task_cls
        self.on_configure = self.on_configure or Signal(name="app.on_configure")
        self.on_after_configure = Signal(name="app.on_after_configure", providing_args={"source"})
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")
        self._fixups = [symbol_by_name(fixup)(self) for fixup in self.fixups]
        if self.set_as_current:
            self.set_current()
        self.on_init()
        _state._register_app(self)

    def on_init(self) -> None:
        """Called at the end of construction; for subclasses."""

    def set_current(self) -> None:
        """Make this the current app of this thread ([app.5])."""
        _state._set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have no current one."""
        _state.set_default_app(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release what the app holds, and forget it. It may be used again and then connects anew ([app.40])."""
        connecting.close(self)
        if "assembly" in self.__dict__:
            self.assembly.close()
            del self.__dict__["assembly"]
        _state._deregister_app(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    # ------------------------------------------------------------------------------------------------- programs

    def start(self, argv: Sequence[str] | None = None) -> Any:
        """Run the `celery` command with this app; `argv` without the program's name, by default that of the process."""
        return commanding.run(self, argv)

    def worker_main(self, argv: Sequence[str] | None = None) -> Any:
        """Run `celery worker`. Raises ValueError unless `worker` is among the arguments."""
        return commanding.run_worker(self, argv)

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - its public name
        """The worker program with this app."""
        return self.subclass_with_self(part("Worker"))

    @cached_property
    def WorkController(self) -> Any:  # noqa: N802 - its public name
        """The embeddable worker with this app."""
        return self.subclass_with_self(part("WorkController"))

    def bugreport(self) -> str:
        """Versions, platform and settings (secrets masked) as text, for reports ([app.36])."""
        return cast("str", part("bugreport")(self))

    # -------------------------------------------------------------------------------------------- configuration

    @property
    def conf(self) -> Settings:
        """The settings; the config source is read when the first one is ([app.28])."""
        if self._conf is None:
            self._conf = configuring.load(self)
        return cast("Settings", self._conf)

    @conf.setter
    def conf(self, settings: Any) -> None:
        self._conf = settings

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read settings from a module, class, instance, mapping, or the dotted name of one ([app.23]).

        Read when first needed, or now if `force`. What another source said before is discarded.
        """
        configuring.use_source(self, obj, silent, namespace or self.namespace)
        if force:
            configuring.load_now(self)

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> Any:
        """Read settings from the module that the environment variable names ([app.24]).

        Raises `ImproperlyConfigured` if it is not set, unless `silent`.
        """
        name = configuring.module_from_environment(variable_name, silent)
        return self.config_from_object(name, silent=silent, force=force) if name else False

    def config_from_cmdline(self, argv: Sequence[str], namespace: str = "celery") -> None:
        """Set settings from `key=value` words ([app.25])."""
        self.conf.update(self.loader.cmdline_config_parser(argv, namespace))

    def add_defaults(self, fun: Any) -> Any:
        """Add a mapping, or a callable that returns one, below what was set: an app's own defaults ([app.27])."""
        return configuring.add_defaults(self, fun)

    def prepare_config(self, c: Any) -> Any:
        """Called with what the loader read; what it returns is used. For subclasses."""
        return c

    def either(self, default_key: str, *defaults: Any) -> Any:
        """The first of `defaults` that is not None, else the setting."""
        given = next((value for value in defaults if value is not None), None)
        return self.conf.get(default_key) if given is None else given

    # ---------------------------------------------------------------------------------------------------- tasks

    @overload
    def task(self, fun: Callable[P, R], /) -> TaskType[P, R]: ...
    @overload
    def task(
        self, *, bind: Literal[True], **opts: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], TaskType[P, R]]: ...
    @overload
    def task(self, *, bind: Literal[False] = ..., **opts: Any) -> Callable[[Callable[P, R]], TaskType[P, R]]: ...
    def task(self, *args: Any, **opts: Any) -> Any:
        """Make a task of a function: `@app.task`, or `@app.task(bind=True, …)` with options ([app.10])."""
        if not args:
            return lambda fun: declaring.declare(self, fun, **opts)
        if len(args) > 1:
            raise TypeError(f"@task() takes exactly 1 argument ({len(args)} given)")
        if not callable(args[0]):
            raise TypeError(f"argument 1 to @task() must be a callable, got {type(args[0]).__name__}: {args[0]!r}")
        return declaring.declare(self, args[0], **opts)

    def _task_from_fun(
        self, fun: Any, name: str | None = None, base: Any = None, bind: bool = False, **opts: Any
    ) -> Any:
        return declaring.make_task(self, fun, name, base, bind, **opts)

    def register_task(self, task: Any, **options: Any) -> TaskType[..., Any]:
        """Register a task class or instance ([app.14])."""
        return declaring.register(self, task, **options)

    def gen_task_name(self, name: str, module: str | None) -> str:
        """The name of a task that was given none: `module.function` ([app.17])."""
        return gen_task_name(self, name, module)

    def type_checker(self, fun: Callable[..., Any], bound: bool = False) -> Callable[..., Any]:
        """What checks arguments for `fun`: a callable that raises TypeError if they do not fit ([app.18])."""
        return argument_checker(fun, bound)

    @property
    def tasks(self) -> TaskRegistry:
        """The tasks by name. Finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    def finalize(self, auto: bool = False) -> None:
        """Make and bind all tasks that were declared ([app.8]). Idempotent; any thread may call it."""
        with self._finalize_mutex:
            if not self.finalized:
                if auto and not self.autofinalize:
                    raise RuntimeError("Contract breach: app not finalized")
                declaring.finalize(self)

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import `related_name` of each package when a worker imports its modules, or now if `force` ([app.22])."""
        if force:
            return configuring.autodiscover(self, packages, related_name)
        return configuring.autodiscover_later(self, packages, related_name)

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Sequence[Any] = (),
        kwargs: Any = (),
        name: str | None = None,
        **opts: Any,
    ) -> str:
        """Have `celery beat` send the signature on a schedule; returns the entry's key ([app.21])."""
        return periodic.add(self, schedule, sig, args, kwargs, name, opts)

    # -------------------------------------------------------------------------------------------------- sending

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        task_id: str | None = None,
        producer: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        expires: Any = sending.OMITTED,
        publisher: Any = None,
        link: Any = None,
        link_error: Any = None,
        add_to_parent: bool = True,
        group_id: str | None = None,
        group_index: int | None = None,
        retries: int = 0,
        chord: Any = None,
        reply_to: str | None = None,
        time_limit: Any = sending.OMITTED,
        soft_time_limit: Any = sending.OMITTED,
        root_id: str | None = None,
        parent_id: str | None = None,
        route_name: str | None = None,
        shadow: str | None = None,
        chain: Any = None,
        task_type: TaskType[..., Any] | None = None,
        **options: Any,
    ) -> ResultType[Any]:
        """Send a task by its name, which needs not be known here ([app.19])."""
        given = sending.given_options(dict(locals(), **options))
        sending.warn_if_eager(self)
        task = task_type if task_type is not None else self._tasks.get(name)
        if task_type is None:
            given = sending.by_name(self, task, given)
        return self.assembly.send(name, args, kwargs, given, task=task)

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """A call as a value, belonging to this app ([app.20])."""
        return cast("Signature[Any]", part("signature")(*args, **{**kwargs, "app": self}))

    # -------------------------------------------------------------------------------------------- kombu's objects

    def connection_for_read(self, url: str | None = None, **kwargs: Any) -> Any:
        """A kombu connection for consuming ([app.32])."""
        return self.connection(url or self.conf.broker_read_url, **kwargs)

    def connection_for_write(self, url: str | None = None, **kwargs: Any) -> Any:
        """A kombu connection for publishing."""
        return self.connection(url or self.conf.broker_write_url, **kwargs)

    def connection(
        self,
        hostname: str | None = None,
        userid: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        port: int | None = None,
        ssl: Any = None,
        connect_timeout: float | None = None,
        transport: Any = None,
        transport_options: dict[str, Any] | None = None,
        heartbeat: float | None = None,
        login_method: str | None = None,
        failover_strategy: Any = None,
        **kwargs: Any,
    ) -> Any:
        """A kombu connection to the broker, not connected yet; arguments outrank the settings ([app.32])."""
        given = {k: v for k, v in dict(locals(), **kwargs).items() if k not in ("self", "kwargs", "hostname")}
        return connecting.connection(self, hostname, **given)

    broker_connection = connection

    def connection_or_acquire(self, connection: Any = None, pool: bool = True, *_: Any, **__: Any) -> Any:
        """A context of `connection`, or else of one from the pool (a new one, if `pool` is false)."""
        return connecting.connection_or_acquire(self, connection, pool)

    default_connection = connection_or_acquire

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """A context of `producer`, or else of a kombu producer from the pool."""
        return connecting.producer_or_acquire(self, producer)

    default_producer = producer_or_acquire

    @property
    def pool(self) -> Any:
        """kombu's pool of broker connections ([app.33])."""
        return connecting.pool(self)

    @property
    def producer_pool(self) -> Any:
        """kombu's pool of producers."""
        return connecting.producer_pool(self)

    def select_queues(self, queues: Any = None) -> Any:
        """Consume from these queues only, as `-Q` does ([app.34])."""
        return self.amqp.queues.select(queues)

    # ------------------------------------------------------------------------------------------------------ parts

    @cached_property
    def Context(self) -> type[ContextType]:  # noqa: N802 - as the other classes here
        """The class of requests."""
        return cast("type[ContextType]", part("Context"))

    @cached_property
    def assembly(self) -> Assembly:
        """What publishes, runs and keeps: the parts of the flow, put together by the settings."""
        return cast("Assembly", part("Assembly")(self))

    @cached_property
    def amqp(self) -> Any:
        """Queues and routing, under their old names."""
        return symbol_by_name(self.amqp_cls)(self)

    @property
    def backend(self) -> Any:
        """Where results are kept."""
        return configuring.backend(self) if self._backend is None else self._backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    @cached_property
    def loader(self) -> BaseLoader:
        """What reads configuration and imports task modules."""
        return cast("BaseLoader", get_loader_cls(self.loader_cls)(app=self))

    @cached_property
    def log(self) -> Any:
        """Sets up logging."""
        return symbol_by_name(self.log_cls)(app=self)

    @cached_property
    def events(self) -> Any:
        """Tells and hears events: `Dispatcher`, `Receiver`, `State` ([event.14] to [event.16])."""
        return symbol_by_name(self.events_cls)(app=self)

    @cached_property
    def control(self) -> Any:
        """Commands to workers, and questions ([control.1])."""
        return symbol_by_name(self.control_cls)(app=self)

    @cached_property
    def clock(self) -> Any:
        """The logical clock that events and remote control share ([app.37])."""
        return part("clock")()

    @cached_property
    def annotations(self) -> tuple[Any, ...]:
        """The prepared `task_annotations` setting."""
        return prepare_annotations(self.conf.task_annotations)

    @property
    def current_task(self) -> TaskType[..., Any] | None:
        """The task that is being run here."""
        return get_current_task()

    @property
    def current_worker_task(self) -> TaskType[..., Any] | None:
        """The task that is being run here by a worker."""
        return get_current_worker_task()

    @property
    def oid(self) -> str:
        """Names this app in this process ([app.38])."""
        return self._identity.of_process()

    @property
    def thread_oid(self) -> str:
        """Names this app in this thread: the address for replies."""
        return self._identity.of_thread()

    @property
    def timezone(self) -> tzinfo:
        """The time zone that naive dates are in ([conf.9])."""
        return configuring.timezone(self.conf, part("timezone"))

    def uses_utc_timezone(self) -> bool:
        """Whether the app's time zone is UTC."""
        return bool(self.timezone == part("timezone").utc)

    def now(self) -> datetime:
        """Now, aware, in the app's time zone."""
        return datetime.now(self.timezone)

    # ---------------------------------------------------------------------------------- classes bound to the app

    @cached_property
    def Task(self) -> type[TaskType[..., Any]]:  # noqa: N802 - its public name
        """The base class of this app's tasks ([app.46])."""
        return self.create_task_cls()

    def create_task_cls(self) -> type[TaskType[..., Any]]:
        """Make the base class of this app's tasks."""
        made = self.subclass_with_self(self.task_cls, name="Task", attribute="_app", keep_reduce=True, abstract=True)
        return cast("type[TaskType[..., Any]]", made)

    @cached_property
    def AsyncResult(self) -> type[ResultType[Any]]:  # noqa: N802 - its public name
        """The class of results, bound to this app ([app.39])."""
        return cast("type[ResultType[Any]]", self.subclass_with_self(part("AsyncResult")))

    @cached_property
    def GroupResult(self) -> type[GroupResultType]:  # noqa: N802 - its public name
        """The class of the results of groups, bound to this app."""
        return cast("type[GroupResultType]", self.subclass_with_self(part("GroupResult"), attribute="_app"))

    @cached_property
    def ResultSet(self) -> type[ResultSetType]:  # noqa: N802 - its public name
        """The class of sets of results, bound to this app."""
        return cast("type[ResultSetType]", self.subclass_with_self(part("ResultSet"), attribute="_app"))

    def subclass_with_self(
        self,
        Class: Any,  # noqa: N803 - its public name
        name: str | None = None,
        attribute: str = "app",
        reverse: str | None = None,
        keep_reduce: bool = False,
        **kw: Any,
    ) -> Any:
        """A subclass that has this app as `attribute`; pickled objects find the current app's class by `reverse`."""
        return pickling.subclass_with_app(self, Class, name, attribute, reverse, keep_reduce, kw)

    # ---------------------------------------------------------------------------------------------------- pickling

    def __reduce__(self) -> Any:
        return pickling.reduce_app(self)

    def __reduce_keys__(self) -> dict[str, Any]:
        """Keyword arguments that make this app again ([app.42])."""
        return pickling.reduce_keys(self)

    def __reduce_args__(self) -> tuple[Any, ...]:
        """`__reduce_keys__` by position, for `Pickler`; a subclass that overrides it gets this older protocol."""
        return pickling.reduce_args(self)


App = Celery
Celery._own_send_task = staticmethod(Celery.send_task)
