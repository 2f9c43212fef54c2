"""Application. What a call gives back: the promise of a task's result ([result.1] to [result.28])."""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeVar, cast

from celery import _state, states
from celery.current import get_current_worker_task, task_stack
from celery.exceptions import IncompleteStream, TimeoutError
from celery.failures import remote_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    from celery.app.base import Celery
    from celery.eager import EagerResult
    from celery.result_sets import GroupResult, ResultSet
    from celery.standing import Flow
    from celery.utils.graph import DependencyGraph, GraphFormatter

__all__ = [
    "AsyncResult", "EagerResult", "GroupResult", "Progress", "ResultBase", "ResultSet", "allow_join_result",
    "assert_will_not_block", "denied_join_result",
    "result_from_tuple", "task_join_will_block",
]  # fmt: skip

R = TypeVar("R", covariant=True)

E_WOULDBLOCK = (
    "Never call result.get() within a task!\n"
    "It waits for another task while it keeps this worker's process from running any: link a callback or a chain "
    "instead, or, if you know that it cannot block, use disable_sync_subtasks=False or allow_join_result()."
)
_TIMED_OUT = "The operation timed out."

#: What `allow_join_result` and `denied_join_result` say of this thread, greenlet or asyncio task; None: neither.
_join_allowed: ContextVar[bool | None] = ContextVar("celery.join_allowed", default=None)


def task_join_will_block() -> bool:
    """Whether waiting for a result here would keep a worker's process from other tasks ([call.33])."""
    allowed = _join_allowed.get()
    if allowed is not None:
        return not allowed
    return _state._task_join_will_block or (task_stack.top is not None and get_current_worker_task() is not None)


def assert_will_not_block() -> None:
    """Raise RuntimeError where a worker's task runs, unless `allow_join_result` says otherwise ([result.4])."""
    if task_join_will_block():
        raise RuntimeError(E_WOULDBLOCK)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Within this context tasks may wait for results."""
    token = _join_allowed.set(True)
    try:
        yield
    finally:
        _join_allowed.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Within this context waiting for results raises RuntimeError."""
    token = _join_allowed.set(False)
    try:
        yield
    finally:
        _join_allowed.reset(token)


class ResultBase:
    """What all results are instances of ([result.26])."""

    #: The result of the task or group that this one follows in a chain.
    parent: ResultBase | None = None

    def as_tuple(self) -> Any:
        """What `result_from_tuple` reads."""
        raise NotImplementedError

    def forget(self) -> None:
        """Delete what is kept."""
        raise NotImplementedError

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True
    ) -> Any:
        """`get` for asyncio: the event loop goes on while this waits. `await result` is the same.

        `timeout` in seconds. Raises what `get` raises.
        """
        from celery.awaiting import value_of

        return await value_of(self, timeout, propagate, disable_sync_subtasks)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.aget().__await__()

    def flow(self) -> Flow:
        """Where the flow stands that this result belongs to: every task that can be found from it, and its state."""
        from celery.standing import Flow

        return Flow(self)

    def _leaves(self) -> Iterator[AsyncResult[Any]]:
        """The results of single tasks in it."""
        raise NotImplementedError


class Progress(NamedTuple):
    """How several tasks stand."""

    total: int
    #: State → how many tasks are in it. PENDING: waiting in a queue, or never heard of.
    states: dict[str, int]

    @property
    def ready(self) -> int:
        """How many have come to a final state."""
        return sum(count for state, count in self.states.items() if state in states.READY_STATES)


class AsyncResult(ResultBase, Generic[R]):
    """The result of the task with that id, wherever it runs; making one asks nobody whether there is such a task.

    Each attribute reads the backend until the task has come to a final state, which is then remembered.
    Raises ValueError if `id` is None.
    """

    #: Set by `app.AsyncResult` for its own; else the current app.
    app: Celery = None  # type: ignore[assignment]
    #: The task was sent with `ignore_result`: there is nothing to wait for ([result.3]).
    ignored = False
    TimeoutError = TimeoutError
    _backend: Any = None
    _cache: dict[str, Any] | None = None
    _task_name: str | None = None
    #: The promise of those who called `then`.
    _on_ready: Any = None
    #: What the task's return values are (`app.typed.Types`), if not what is known of the task named `_task_name`.
    _types: Any = None

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: Celery | None = None,
        parent: ResultBase | None = None,
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        self.id = id
        if backend is not None:
            self._backend = backend
        if app is not None or self.app is None:
            self.app = _state._app_or_default(app)
        if task_name is not None:
            self._task_name = task_name
        if parent is not None:
            self.parent = parent

    # -- waiting -----------------------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: Collection[str] = states.EXCEPTION_STATES,  # noqa: N803 - public names
        PROPAGATE_STATES: Collection[str] = states.PROPAGATE_STATES,  # noqa: N803
    ) -> R:
        """Wait for the task, and return what it returned ([result.2]).

        `timeout` in seconds; None waits for ever, 0 looks once. A failure is raised, as the exception that it was,
        unless `propagate` is False: then it is returned. With `follow_parents` the failure of a task that this one
        follows is raised as well. `callback(id, value)` gets the value; `on_interval` is called every `interval`
        seconds of waiting (nothing else depends on `interval`, for nothing is polled).

        Raises `celery.exceptions.TimeoutError`, and RuntimeError within a task (`disable_sync_subtasks`, [call.33]).
        """
        if self.ignored:
            return cast("R", None)
        if disable_sync_subtasks and task_join_will_block():
            raise RuntimeError(E_WOULDBLOCK)
        meta = self._cache
        if meta is None:
            reading = self.app.assembly.reading if self._backend is None else None
            if reading is not None and on_interval is None and on_message is None and self.parent is None:
                found = reading.wait((self.id,), timeout)
                if not found:
                    raise TimeoutError(_TIMED_OUT)
                meta = self._remember(found[self.id])
            else:
                parents = list(self._parents()) if follow_parents and propagate else []
                if not hasattr(self.backend, "wait_ready"):
                    return cast("R", self._wait_elsewhere(
                        parents, on_interval, timeout=timeout, interval=interval, no_ack=no_ack, propagate=propagate,
                        callback=callback, on_message=on_message,
                    ))  # fmt: skip
                if on_message is not None:
                    meta = self._watch(parents, timeout, on_message)
                else:
                    meta = self._remember(self._wait_with(parents, timeout, interval, on_interval))
        value = self._value(meta)
        if propagate and meta["status"] in PROPAGATE_STATES:
            self._raise(value, meta.get("traceback"))
        if callback is not None:
            callback(self.id, value)
        return cast("R", value)

    wait = get

    def _wait_with(
        self, parents: list[ResultBase], timeout: float | None, interval: float, on_interval: Callable[[], Any] | None
    ) -> dict[str, Any]:
        """Wait for this task or the failure of one that it follows, whichever is first ([result.5])."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = {parent.id: parent for parent in parents if isinstance(parent, AsyncResult)}
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            patience = left if on_interval is None else interval if left is None else min(left, interval)
            found = self.backend.wait_ready((self.id, *pending), patience)
            if self.id in found:
                meta: dict[str, Any] = found[self.id]
                return meta
            for task_id in found:
                pending.pop(task_id).maybe_throw()
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(_TIMED_OUT)
            if on_interval is not None:
                on_interval()

    def _watch(
        self, parents: list[ResultBase], timeout: float | None, on_message: Callable[[Any], Any]
    ) -> dict[str, Any]:
        for parent in parents:
            if isinstance(parent, AsyncResult):
                parent.maybe_throw()
        meta: dict[str, Any] | None = self.backend.watch(self.id, timeout, on_message)
        if meta is None:
            raise TimeoutError(_TIMED_OUT)
        return self._remember(meta)

    def _wait_elsewhere(self, parents: list[ResultBase], on_interval: Callable[[], Any] | None, **how: Any) -> Any:
        """Wait as a third-party backend does it."""

        def between() -> None:
            for parent in parents:
                if isinstance(parent, AsyncResult):
                    parent.maybe_throw()
            if on_interval is not None:
                on_interval()

        wanted = between if parents else on_interval
        self.backend.add_pending_result(self)
        return self.backend.wait_for_pending(self, on_interval=wanted, **how)

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> Any:
        """Call `callback(result)` once the task has come to a final state, whichever ([result.12]).

        At once if that is known here; else from the thread that learns of it: one that waits for this result, or the
        one that waits for all such results. `weak`: forget it with this object. Returns the promise (vine's).
        """
        from vine import promise

        if self._on_ready is None:
            self._on_ready = promise()
            if self._cache is not None:
                self._on_ready(self)
            else:
                self.backend.add_pending_result(self, weak=weak)
        return self._on_ready.then(callback, on_error)

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """The value as it is now, without waiting; raises it if the task failed or was revoked ([result.11])."""
        meta = self._get_task_meta()
        value = self._value(meta)
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            self._raise(value, meta.get("traceback"))
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def throw(self, exc: BaseException | None = None, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise that exception; without one, the exception that is being handled."""
        if exc is None:
            raise
        raise exc

    def forget(self) -> None:
        """Delete what is kept for this task and for those that it follows ([result.13])."""
        self._cache = None
        if self.parent is not None:
            self.parent.forget()
        self.backend.forget(self.id)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run the task; `terminate`: to end it where it runs, by `signal` ([result.14]).

        `wait`: return when the workers have answered, at the latest after `timeout` (1) seconds of silence.
        """
        given = {"terminate": terminate, "signal": signal, "reply": wait, "timeout": timeout}
        self.app.control.revoke(self.id, connection=connection, **given)

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """The same for all tasks that bear any of these stamps ([stamp.11])."""
        given = {"terminate": terminate, "signal": signal, "reply": wait, "timeout": timeout}
        self.app.control.revoke_by_stamped_headers(headers, connection=connection, **given)

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """PENDING (or unknown), STARTED, RETRY, FAILURE, SUCCESS, REVOKED, or a state of the task's own ([state])."""
        return str(self._get_task_meta()["status"])

    status = state

    def ready(self) -> bool:
        """Whether the task has come to a final state."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether the backend keeps anything for this id ([result.7])."""
        return self._cache is not None or self.backend.task_result_exists(self.id)

    @property
    def result(self) -> Any:
        """What the task returned, the exception that it failed with, or the data of its current state."""
        return self._value(self._get_task_meta())

    info = result

    @property
    def traceback(self) -> str | None:
        """The text of the traceback of a failed task."""
        return self._get_task_meta().get("traceback")

    @property
    def children(self) -> list[ResultBase] | None:
        """The results of the tasks that this one sent; None until that is known."""
        meta = self._get_task_meta()
        children = meta.get("children")
        if not children:
            return cast("list[ResultBase] | None", children)
        return [result_from_tuple(child, self.app) for child in children]

    # -- with result_extended ([result.8]) ---------------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        return self._get_task_meta().get("name")

    @property
    def args(self) -> Any:
        return self._get_task_meta().get("args")

    @property
    def kwargs(self) -> Any:
        return self._get_task_meta().get("kwargs")

    @property
    def worker(self) -> str | None:
        return self._get_task_meta().get("worker")

    @property
    def retries(self) -> int | None:
        return self._get_task_meta().get("retries")

    @property
    def queue(self) -> str | None:
        return self._get_task_meta().get("queue")

    @property
    def date_done(self) -> dt.datetime | None:
        """When the task came to its final state."""
        date = self._get_task_meta().get("date_done")
        return dt.datetime.fromisoformat(date) if isinstance(date, str) else date

    # -- relatives ---------------------------------------------------------------------------------------------------

    def _parents(self) -> Iterator[ResultBase]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[AsyncResult[Any] | None, AsyncResult[Any]]]:
        """`(parent, result)` of this task, its children, their children …, level by level ([result.9]).

        Raises `IncompleteStream` at a task that is not ready, unless `intermediate`.
        """
        waiting: deque[tuple[Any, Any]] = deque([(None, self)])
        while waiting:
            parent, node = waiting.popleft()
            yield parent, node
            if node.ready():
                waiting.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream()

    def build_graph(self, intermediate: bool = False, formatter: GraphFormatter | None = None) -> DependencyGraph:
        """This task, its children, their children …, as `iterdeps` finds them ([result.9])."""
        from celery.utils.graph import DependencyGraph, GraphFormatter

        graph = DependencyGraph(formatter=formatter or GraphFormatter(root=self.id, shape="oval"))
        for parent, node in self.iterdeps(intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        return self.build_graph()

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """`(result, value)` for all that `iterdeps` finds; the keyword arguments are those of `get`."""
        for _, node in self.iterdeps(intermediate):
            yield node, node.get(**kwargs)

    def get_leaf(self) -> Any:
        """The value of the last task that `collect` finds."""
        value = None
        for _, node_value in self.collect():
            value = node_value
        return value

    # -- identity ----------------------------------------------------------------------------------------------------

    @property
    def task_id(self) -> str:
        return self.id

    @task_id.setter
    def task_id(self, id: str) -> None:
        self.id = id

    @property
    def backend(self) -> Any:
        """Where the result is read: the one given, or the app's."""
        return self._backend if self._backend is not None else self.app.backend

    @backend.setter
    def backend(self, backend: Any) -> None:
        self._backend = backend

    @property
    def supports_native_join(self) -> bool:
        return bool(self.backend.supports_native_join)

    def as_tuple(self) -> tuple[Any, None]:
        """`((id, parent), None)`, with the parent in the same form: what `result_from_tuple` reads ([result.15])."""
        parent = self.parent
        return (self.id, None if parent is None else parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """This id, then those of the tasks that it follows, nearest first."""
        return [self.id, *(parent.id for parent in self._parents() if isinstance(parent, AsyncResult))]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __reduce__(self) -> Any:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self._backend, self._task_name, None, self.parent

    def __copy__(self) -> AsyncResult[R]:
        return type(self)(*self.__reduce_args__())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _leaves(self) -> Iterator[AsyncResult[Any]]:
        yield self

    def _unknown_to(self, backend: Any) -> bool:
        """Whether this backend is to be asked how the task stands."""
        return self._cache is None and not self.ignored and self.backend is backend

    def _get_task_meta(self) -> dict[str, Any]:
        if self._cache is not None:
            return self._cache
        return self._remember(self.backend.get_task_meta(self.id))

    def _value(self, meta: dict[str, Any]) -> Any:
        """The document's result, as what it was where the task is a typed one."""
        value = meta["result"]
        if (self._types is None and self._task_name is None) or meta["status"] != states.SUCCESS:
            return value
        types = self._types or getattr(self.app._tasks.get(self._task_name or ""), "_types", None)
        return value if types is None else types.result(value)

    def _remember(self, meta: dict[str, Any]) -> dict[str, Any]:
        """A final state is not read again, and kept promises are."""
        if meta["status"] in states.READY_STATES:
            first = self._cache is None
            self._cache = meta
            if first and self._on_ready is not None:
                self._on_ready(self)
        return meta

    def _raise(self, value: Any, traceback: str | None) -> NoReturn:
        failure = value if isinstance(value, BaseException) else Exception(value)
        # Not the traceback of an earlier `get`: it would grow with each.
        failure.__traceback__ = None
        if traceback and self.app.conf.task_remote_tracebacks:
            failure.__traceback__ = remote_frames(traceback)
        raise failure


def result_from_tuple(r: Any, app: Celery | None = None) -> Any:
    """The result that `as_tuple` described; a result is given back as it is ([result.15]).

    Raises ValueError for anything else.
    """
    if isinstance(r, ResultBase):
        return r
    try:
        identity, nodes = r
        task_id, parent = identity if isinstance(identity, list | tuple) else (identity, None)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"expected a result as ((id, parent), None) or ((id, parent), [members]), got {r!r}") from exc
    app = _state._app_or_default(app)
    follows = result_from_tuple(parent, app) if parent else None
    if nodes is not None:
        return app.GroupResult(task_id, [result_from_tuple(node, app) for node in nodes], parent=follows)
    return app.AsyncResult(task_id, parent=follows)


def __getattr__(name: str) -> Any:
    """What stands on this module, and is not loaded until somebody needs it."""
    if name not in ("EagerResult", "GroupResult", "ResultSet"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from celery import eager, result_sets

    found = globals()[name] = getattr(eager if name == "EagerResult" else result_sets, name)
    return found
