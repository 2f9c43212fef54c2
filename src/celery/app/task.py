"""Application. A task: a function or class that workers run, and the ways of calling it."""

from __future__ import annotations

import sys
import warnings
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, ParamSpec, TypeVar, cast, overload

from celery import _state, exceptions
from celery.app import retrying
from celery.app.annotations import apply_to
from celery.app.parts import part
from celery.app.registry import _unpickle_task_v2
from celery.current import Context, LocalStack, task_stack
from celery.exceptions import CDeprecationWarning, MaxRetriesExceededError
from celery.local import class_property
from celery.utils.functional import maybe_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from celery.app.base import Celery
    from celery.canvas import Signature
    from celery.canvas import chunks as CallsInChunks  # noqa: N812
    from celery.canvas import xmap as CallsForAll  # noqa: N812
    from celery.canvas import xstarmap as CallsForAllArguments  # noqa: N812
    from celery.exceptions import Retry
    from celery.result import AsyncResult, EagerResult

__all__ = ["BaseTask", "Context", "Task"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

#: Attributes of a task that are options of every call of it ([task.5]).
_EXECUTION_OPTIONS = (
    "queue", "routing_key", "exchange", "priority", "expires", "serializer", "delivery_mode", "compression",
    "time_limit", "soft_time_limit", "immediate", "mandatory",
)  # fmt: skip
#: Attributes that belong into `task_routes` now ([task.4]).
_ROUTING_ATTRIBUTES = ("queue", "exchange", "exchange_type", "routing_key", "delivery_mode", "priority")


class Task(Generic[P, R]):
    """A task, bound to its app: what it is called, how it runs, and what runs it.

    One instance serves all runs in a process; what differs between them is in `request`. Attributes that are None are
    copied from the settings of `from_config` when the app is finalized ([task.1], [task.2]).
    """

    __class_getitem__: Any = classmethod(GenericAlias)  # any number of parameters at run time ([task.10])

    __trace__: Callable[..., Any] | None = None
    __v2_compat__ = False
    __bound__ = False

    MaxRetriesExceededError = MaxRetriesExceededError
    #: What executes the message in a worker; dotted name or object ([task.59]).
    Strategy: Any = "celery.worker.strategy:default"
    Request: Any = "celery.worker.request:Request"

    #: Name under which messages ask for it; None: `module.function`.
    name: Any = None
    #: Check arguments at the caller; None: as the app says (`strict_typing`).
    typing: bool | None = None
    #: None: retry for ever.
    max_retries: int | None = 3
    #: Seconds.
    default_retry_delay: float = 3 * 60
    rate_limit: Any = None
    ignore_result: bool | None = None
    trail: bool = True
    send_events: bool = True
    store_errors_even_if_ignored: bool | None = None
    serializer: str | None = None
    #: Seconds.
    time_limit: float | None = None
    #: Seconds.
    soft_time_limit: float | None = None
    track_started: bool | None = None
    acks_late: bool | None = None
    #: True: not to be run before the broker has confirmed the (early) acknowledgement, and so never twice. None: as
    #: `task_acks_first` says.
    acks_first: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    retry_on_worker_lost: bool | None = None
    #: Expected exceptions: FAILURE, but no error in the log.
    throws: tuple[type[BaseException], ...] = ()
    #: Seconds, or a date.
    expires: Any = None
    priority: int | None = None
    #: Arguments and return values are what their annotations say, at both ends of the wire.
    typed: bool = False
    #: Characters.
    resultrepr_maxsize: int = 1024
    store_eager_result: bool | None = None
    #: True: not to be registered, only derived from.
    abstract = True

    #: (attribute, setting)
    from_config: ClassVar[tuple[tuple[str, str], ...]] = (
        ("serializer", "task_serializer"),
        ("rate_limit", "task_default_rate_limit"),
        ("priority", "task_default_priority"),
        ("time_limit", "task_time_limit"),
        ("soft_time_limit", "task_soft_time_limit"),
        ("track_started", "task_track_started"),
        ("acks_late", "task_acks_late"),
        ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout"),
        ("acks_on_failure", "task_acks_on_failure"),
        ("acks_on_timeout", "task_acks_on_timeout"),
        ("reject_on_worker_lost", "task_reject_on_worker_lost"),
        ("retry_on_worker_lost", "task_retry_on_worker_lost"),
        ("ignore_result", "task_ignore_result"),
        ("store_eager_result", "task_store_eager_result"),
        ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
    )

    request_stack: Any = None
    #: What becomes of arguments and results on their way (`app.typed.Types`, `app.validating.Models`); None: nothing.
    _types: Any = None
    _app: Celery | None = None
    _backend: Any = None
    _default_request: Context | None = None
    _exec_options: dict[str, Any] | None = None
    _given_options: dict[str, Any] | None = None

    if TYPE_CHECKING:
        __header__: Callable[..., None]
        __wrapped__: Callable[P, R]
        app: Celery
        OperationalError: ClassVar[type[Exception]]

    # ------------------------------------------------------------------------------------------------- belonging

    @classmethod
    def bind(cls, app: Celery) -> Celery:
        """Make the task belong to `app`: copy its settings, annotate (once) and call `on_bound` ([task.57])."""
        was_bound, cls.__bound__ = cls.__bound__, True
        cls._app, cls._exec_options, cls._given_options = app, None, None
        if not was_bound:
            _warn_of_routing(cls)
        _copy_settings(cls, app)
        if cls.typed and "_types" not in vars(cls) and cls.run is not Task.run:
            _install_types(cls)
        if not was_bound:
            cls.annotate()
            cls.request_stack = LocalStack()
        cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Called when the task has been bound to an app; for subclasses."""

    @classmethod
    def _get_app(cls) -> Celery:
        if cls._app is None:
            cls._app = _state.get_current_app()
        if not cls.__bound__:
            cls.bind(cls._app)
        return cls._app

    if not TYPE_CHECKING:
        app = class_property(_get_app, bind)
        #: What calls raise when the broker cannot be reached ([call.8]); kombu's, imported when asked for.
        OperationalError = class_property(lambda cls: exceptions.OperationalError)

    @classmethod
    def annotate(cls) -> None:
        """Apply the `task_annotations` setting to the class ([task.58])."""
        apply_to(cls, cls.app.annotations)

    @classmethod
    def add_around(cls, attr: str, around: Callable[[Any], Any]) -> None:
        """Wrap the method `attr`; the original is the wrapper's `__wrapped__`."""
        original = getattr(cls, attr)
        wrapped = around(original)
        wrapped.__wrapped__ = original
        # The body of a task that is not bound takes no self, and so must not its wrapper.
        plain = isinstance(_as_defined(cls, attr), staticmethod)
        setattr(cls, attr, staticmethod(wrapped) if plain else wrapped)

    @property
    def backend(self) -> Any:
        """Where this task's results are kept: its own backend, or the app's."""
        return self._backend if self._backend is not None else self.app.backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    @property
    def __name__(self) -> str:
        return type.__dict__["__name__"].__get__(type(self))  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        module: str | None = type(self).__module__
        return _unpickle_task_v2, (self.name, module if module in sys.modules else None), None

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {self.app.main if self._app else None}{_address(self._app)}>"

    # ---------------------------------------------------------------------------------------------------- running

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run here and now, as a plain function call, with a request of its own ([task.8])."""
        if self._is_started_by_worker():
            return self.run(*args, **kwargs)
        task_stack.push(self)
        self.push_request(args=args, kwargs=kwargs)
        try:
            return self.run(*args, **kwargs)
        finally:
            self.pop_request()
            task_stack.pop()

    def _is_started_by_worker(self) -> bool:
        # A worker calls an overridden `__call__`, having pushed the request: `super().__call__` must keep that one.
        request = self.request_stack.top if self.request_stack is not None else None
        if request is None or request.called_directly or request._protected:
            return False
        if type(self).__call__ is Task.__call__:
            return False
        request._protected = 1
        return True

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The body of the task; to be defined by subclasses."""
        raise NotImplementedError("Tasks must define the run method.")

    @property
    def request(self) -> Context:
        """The request of the run that is going on here; outside of runs, an empty one ([task.13])."""
        stack = self.request_stack
        current: Context | None = None if stack is None else stack.top
        return self._get_default_request() if current is None else current

    def _get_default_request(self) -> Context:
        if self._default_request is None:
            self._default_request = Context()
        return self._default_request

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        self.request_stack.push(Context(*args, **kwargs))

    def pop_request(self) -> Context | None:
        popped: Context | None = self.request_stack.pop()
        return popped

    # ---------------------------------------------------------------------------------------------------- calling

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments ([call.1])."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task; the options are those of [call.4] to [call.24]. Returns at once, with a promise of the result.

        Raises TypeError if the arguments do not fit the task (`typing`), ValueError for impossible options, and
        `OperationalError` if the broker cannot be reached.
        """
        app = self._app if self.__bound__ and self._app is not None else self._get_app()
        if self.typing:
            _check_arguments(self, args, kwargs)
        if self._types is not None:
            args, kwargs = self._types.send(self, args, kwargs, options, producer)
        if link or link_error:
            link, link_error = part("plain")(maybe_list(link)), part("plain")(maybe_list(link_error))
        if task_id is not None or producer is not None or link or link_error or shadow:
            options.update(task_id=task_id, producer=producer, link=link, link_error=link_error, shadow=shadow)
        given = self._given_options
        merged = {**(self._get_given_options() if given is None else given), **options}
        if type(self).shadow_name is not Task.shadow_name and not shadow:
            merged["shadow"] = self.shadow_name(args, kwargs, merged)
        return app.assembly.dispatch(self.name, args, kwargs, merged, self)

    def shadow_name(self, args: Any, kwargs: Any, options: dict[str, Any]) -> str | None:
        """For subclasses: another name for logs and monitors; None for the task's own ([task.20])."""

    def _get_exec_options(self) -> dict[str, Any]:
        if self._exec_options is None:
            cls = type(self)
            cls._exec_options = {name: getattr(self, name, None) for name in _EXECUTION_OPTIONS}
        assert self._exec_options is not None
        return self._exec_options

    def _get_given_options(self) -> dict[str, Any]:
        """The execution options that the task does set. Raises ValueError for impossible limits ([task.68])."""
        if self.soft_time_limit and self.time_limit and self.soft_time_limit > self.time_limit:
            raise ValueError(
                f"soft_time_limit must be less than or equal to time_limit, got {self.soft_time_limit} and "
                f"{self.time_limit} seconds for task {self.name}: raise the hard limit or lower the soft one"
            )
        given = {name: value for name, value in self._get_exec_options().items() if value is not None}
        type(self)._given_options = given
        return given

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:  # noqa: N802 - its public name
        """The result of an earlier call, by its id ([call.27])."""
        result: AsyncResult[R] = self.app.AsyncResult(task_id, backend=self.backend, task_name=self.name, **kwargs)
        return result

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature[R]:
        """A call of this task as a value; takes what `celery.signature` takes after the task ([call.25])."""
        starkwargs.setdefault("app", self.app)
        return self.app.signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """`.s(1, 2)`: the signature of a call with these arguments, to which callers may add."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """`.si(1, 2)`: the signature of a call with exactly these arguments."""
        return self.signature(args, kwargs, immutable=True)

    def chunks(self, it: Iterable[Any], n: int) -> CallsInChunks:
        """Calls with the arguments that `it` yields, `n` of them in a message ([call.26])."""
        return cast("CallsInChunks", part("chunks")(self.s(), it, n, app=self.app))

    def map(self, it: Iterable[Any]) -> CallsForAll:
        """One message: a call for each element of `it`, which gives the list of what they return."""
        return cast("CallsForAll", part("xmap")(self.s(), it, app=self.app))

    def starmap(self, it: Iterable[Any]) -> CallsForAllArguments:
        """One message: the same, each element being the arguments of a call."""
        return cast("CallsForAllArguments", part("xstarmap")(self.s(), it, app=self.app))

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run here and now as a worker would, retries and all, which do not wait ([task.64]).

        `throw`: what the task raises, `Retry` too, is raised here at once; by default as `task_eager_propagates` says.
        """
        log = {"logfile": logfile, "loglevel": loglevel or 0}
        options.update(link=link, link_error=link_error, task_id=task_id, retries=retries or 0, headers=headers)
        return self.app.assembly.eager.apply(self, args, kwargs, options, throw, log)

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **extra_options: Any,
    ) -> Signature[R]:
        """The call that a request came from (by default this run's), to be sent again with these changes."""
        request = self.request if request is None else request
        return retrying.signature_of(self, request, args, kwargs, queue, extra_options)

    subtask_from_request = signature_from_request

    # ------------------------------------------------------------------------------------------- during a run

    @overload
    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: Literal[True] = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> NoReturn: ...

    @overload
    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = ...,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry: ...

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this run, to be tried again ([task.21]): `raise self.retry(exc=exc)`; what follows is not run.

        The next attempt has the same id, arguments (those given here replace them), queue and options. It is due after
        `countdown` seconds, or at `eta`, else after the task's back-off or `default_retry_delay`. After `max_retries`
        of them (the task's own if None; that being None too: never) `exc` is raised, or `MaxRetriesExceededError`.

        Raises `Retry`, which `throw=False` returns instead (the message is then sent at once); in a task that was
        called directly `exc`, for there is nothing to be sent again; `Reject` if it cannot be sent.
        """
        return retrying.retry(self, (args, kwargs), exc, throw, (eta, countdown), max_retries, options)

    @property
    def override_max_retries(self) -> int | None:
        """The `max_retries` that this run has given to `retry`; None if it has not ([task.23])."""
        return self.request.override_max_retries

    @override_max_retries.setter
    def override_max_retries(self, value: int | None) -> None:
        self.request.override_max_retries = value

    def replace(self, sig: Any) -> Any:
        """End this run; `sig` is run in its place: under its id, with what should follow it ([canvas.64]).

        The value of a group is its list. Returns what `on_replace` does: the value where the task is run eagerly.
        Raises `Ignore`, and `ImproperlyConfigured` for a signature of another chord or an empty chain.
        """
        return part("replace")(self, sig)

    def on_replace(self, sig: Any) -> Any:
        """How `replace` starts the signature, which is all prepared; for subclasses ([canvas.67])."""
        return part("hand_over")(self, sig)

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Add a call to the header of the chord that this run belongs to; its value follows the others' ([canvas.68]).

        Sends it and returns its result; `lazy`: returns it, for the caller to send. Raises ValueError outside chords.
        """
        return part("add_to_chord")(self, sig, lazy)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a state and its `meta` for this run, or for the task with that id ([task.44])."""
        if task_id is None:
            task_id = self.request.id
        self.backend.store_result(task_id, meta, state, request=self.request, **kwargs)

    def send_event(
        self, type_: str, retry: bool = True, retry_policy: Mapping[str, Any] | None = None, **fields: Any
    ) -> Any:
        """Tell monitors an event of your own, with the id of the run that is going on here ([task.61])."""
        policy = self.app.conf.task_publish_retry_policy if retry_policy is None else retry_policy
        with self.app.events.default_dispatcher(hostname=self.request.hostname) as dispatcher:
            return dispatcher.send(type_, uuid=self.request.id, retry=retry, retry_policy=policy, **fields)

    def add_trail(self, result: Any) -> Any:
        """Note `result` as a child of the run that is going on here, if `trail` is on ([task.60]). Returns it."""
        if self.trail:
            self.request.children.append(result)
        return result

    # --------------------------------------------------------------------------------------- hooks for subclasses

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before the body runs; an exception here fails the task."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called when the task has returned."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task is to be retried."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task has raised."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task has returned or raised."""


BaseTask = Task


def _as_defined(cls: type, attribute: str) -> Any:
    return next((vars(base)[attribute] for base in cls.__mro__ if attribute in vars(base)), None)


def _copy_settings(cls: type[Task[..., Any]], app: Celery) -> None:
    conf = app.conf
    if cls.typing is None:
        cls.typing = app.strict_typing
    for attribute, setting in cls.from_config:
        if getattr(cls, attribute, None) is None:
            setattr(cls, attribute, conf[setting])
    for attribute in ("acks_on_failure", "acks_on_timeout"):
        if getattr(cls, attribute) is None:  # [task.3]
            setattr(cls, attribute, cls.acks_on_failure_or_timeout is not False)


def _install_types(cls: type[Task[..., Any]]) -> None:
    from celery.app.typed import install

    install(cls)


def _warn_of_routing(cls: type[Task[..., Any]]) -> None:
    for attribute in _ROUTING_ATTRIBUTES:
        if getattr(cls, attribute, None) is not None:
            warnings.warn(
                f"the task attribute {attribute!r} (of {cls.name}) is deprecated and scheduled for removal in 6.0: "
                "use the task_routes setting",
                CDeprecationWarning,
                stacklevel=4,
            )


def _check_arguments(task: Task[..., Any], args: Any, kwargs: Any) -> None:
    if args is not None and not isinstance(args, (tuple, list)):
        raise TypeError(f"task args must be a list or tuple, got {type(args).__name__}: {args!r}")
    check = getattr(task, "__header__", None)
    if check is not None:
        check(*(args or ()), **(kwargs or {}))


def _address(app: Any) -> str:
    return f" at {id(app):#x}" if app is not None else ""
