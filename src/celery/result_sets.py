"""Application. Results of several tasks: `celery.result.ResultSet` and `GroupResult` ([result.19] to [result.24])."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from celery import _state, states
from celery.exceptions import TimeoutError
from celery.result import AsyncResult, Progress, ResultBase, assert_will_not_block

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from celery.app.base import Celery

__all__ = ["GroupResult", "ResultSet"]

_TIMED_OUT = "The operation timed out."


class ResultSet(ResultBase):
    """Results that are looked at and waited for together: one question to the backend, however many they are.

    `ready_barrier`: a promise of vine's that is kept once all are ready.
    """

    __module__ = "celery.result"  # where users find it, and pickles name it

    #: Set by `app.ResultSet` for its own; else that of the first result, or the current app.
    _app: Celery | None = None
    #: The results, in order.
    results: list[Any]
    TimeoutError = TimeoutError

    def __init__(self, results: Iterable[Any], app: Celery | None = None, ready_barrier: Any = None, **kwargs: Any):
        if app is not None:
            self._app = app
        self.results = results if isinstance(results, list) else list(results)
        self._on_ready = ready_barrier
        #: Those of which a promise waits to hear.
        self._unheard: set[str] | None = None

    @property
    def app(self) -> Celery:
        if self._app is None:
            self._app = self.results[0].app if self.results else _state._app_or_default(None)
        return self._app

    @app.setter
    def app(self, app: Celery) -> None:
        self._app = app

    @property
    def backend(self) -> Any:
        return self.app.backend if self.app is not None else self.results[0].backend

    @property
    def supports_native_join(self) -> bool:
        """Whether the backend can be asked about all of them at once."""
        return bool(self.results and self.results[0].supports_native_join)

    # -- the set -----------------------------------------------------------------------------------------------------

    def add(self, result: Any) -> None:
        """Add a result, unless it is there."""
        if result not in self.results:
            self.results.append(result)
            if self._on_ready is not None and self._unheard is not None:
                self._listen(result)

    def remove(self, result: Any) -> None:
        """Take a result, or the one with that id, out. Raises KeyError if it is not there."""
        try:
            self.results.remove(AsyncResult(result, app=self._app) if isinstance(result, str) else result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """`remove`, if it is there."""
        if result in self.results:
            self.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add those that are not there."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        self.results[:] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        return other.results == self.results if isinstance(other, ResultSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return (self.results,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(result.id) for result in self.results)}]>"

    # -- how they stand ----------------------------------------------------------------------------------------------

    def successful(self) -> bool:
        """All have succeeded."""
        self._look()
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Any has failed."""
        self._look()
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Any is not ready yet."""
        return not self.ready()

    def ready(self) -> bool:
        """All have come to a final state."""
        self._look()
        return all(result.ready() for result in self.results)

    def completed_count(self) -> int:
        """How many have succeeded."""
        self._look()
        return sum(bool(result.successful()) for result in self.results)

    def progress(self) -> Progress:
        """How many tasks there are, down to the innermost, and how they stand."""
        self._look()
        counts: dict[str, int] = {}
        for leaf in self._leaves():
            counts[leaf.state] = counts.get(leaf.state, 0) + 1
        return Progress(sum(counts.values()), counts)

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the failure of the first that has failed, in order."""
        self._look()
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Delete what is kept for them."""
        for result in self.results:
            result.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """`AsyncResult.revoke` of all of them, with one command ([result.14])."""
        given = {"terminate": terminate, "signal": signal, "reply": wait, "timeout": timeout}
        self.app.control.revoke([result.id for result in self.results], connection=connection, **given)

    def _look(self) -> None:
        """Learn of all that are ready, in one go."""
        backend = self.backend
        wait_ready = getattr(backend, "wait_ready", None)
        unknown = {leaf.id: leaf for leaf in self._leaves() if leaf._unknown_to(backend)}
        if wait_ready is not None and len(unknown) > 1:
            for task_id, meta in wait_ready(list(unknown), 0).items():
                unknown[task_id]._remember(meta)

    def _failed_join_report(self) -> Iterator[AsyncResult[Any]]:
        """Those that are known to have failed: backends of third parties ask for them to say why a chord did."""
        return (leaf for leaf in self._leaves() if leaf.state in states.PROPAGATE_STATES)

    def _leaves(self) -> Iterator[AsyncResult[Any]]:
        for result in self.results:
            if isinstance(result, ResultSet):
                yield from result._leaves()
            else:
                yield result

    # -- waiting -----------------------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Any:
        """`join_native` where the backend can, else `join`."""
        join = self.join_native if self.supports_native_join else self.join
        return join(
            timeout=timeout, propagate=propagate, interval=interval, callback=callback, no_ack=no_ack,
            on_message=on_message, disable_sync_subtasks=disable_sync_subtasks, on_interval=on_interval,
        )  # fmt: skip

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait for all, in order ([result.20]): the list of their values; an empty one with a `callback(id, value)`.

        `timeout`: seconds for all together. The first failure, in order, is raised, unless `propagate` is False: then
        it stands in the list. Raises `celery.exceptions.TimeoutError`, and RuntimeError within a task.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        if on_message is None and hasattr(self.backend, "each_ready"):
            self._wait_in_order(deadline, propagate, interval, on_interval)
        values = []
        for result in self.results:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            how: dict[str, Any] = {"on_message": on_message} if on_message is not None else {}
            value = result.get(
                timeout=left, propagate=propagate, interval=interval, no_ack=no_ack, on_interval=on_interval,
                disable_sync_subtasks=disable_sync_subtasks, **how,
            )  # fmt: skip
            if callback is not None:
                callback(result.id, value)
            else:
                values.append(value)
        return values

    def _wait_in_order(
        self, deadline: float | None, propagate: bool, interval: float, on_interval: Callable[[], Any] | None
    ) -> None:
        """Until all are ready, or, where failures are raised, the first failure is known and all before it."""
        leaves = list(self._leaves())
        known = 0
        for _ in self._arriving(leaves, deadline, interval, on_interval):
            while known < len(leaves) and not leaves[known]._unknown_to(self.backend):
                if propagate and leaves[known].state in states.PROPAGATE_STATES:
                    return
                known += 1

    def _arriving(
        self,
        leaves: Iterable[AsyncResult[Any]],
        deadline: float | None,
        interval: float,
        on_interval: Callable[[], Any] | None,
    ) -> Generator[list[AsyncResult[Any]], None, None]:
        """Those that are ready, as they become so. Raises `celery.exceptions.TimeoutError`."""
        backend = self.backend
        waiting: dict[str, list[AsyncResult[Any]]] = {}
        known = []
        for leaf in leaves:
            if leaf._unknown_to(backend):
                waiting.setdefault(leaf.id, []).append(leaf)
            else:
                known.append(leaf)
        yield known

        def patience() -> float | None:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if on_interval is None:
                return left
            return interval if left is None else min(left, interval)

        for found in backend.each_ready(list(waiting), patience) if waiting else ():
            fresh = []
            for task_id, meta in found.items():
                for leaf in waiting.pop(task_id, ()):
                    leaf._remember(meta)
                    fresh.append(leaf)
            yield fresh
            if waiting and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(_TIMED_OUT)
            if not found and on_interval is not None:
                on_interval()

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any] | None:
        """`join`, but whatever comes first is looked at first: a failure is raised as soon as it is known, and the
        callback is called as they come; then None is returned ([result.21])."""
        if disable_sync_subtasks:
            assert_will_not_block()
        values: dict[int, Any] = {}
        places: dict[str, list[int]] = {}
        for place, result in enumerate(self.results):
            places.setdefault(result.id, []).append(place)
        for task_id, meta in self.iter_native(timeout, interval, no_ack, on_message, on_interval):
            value = _value(self.results[places[task_id][0]], meta, propagate)
            if callback is not None:
                callback(task_id, value)
            else:
                values.update((place, value) for place in places[task_id])
        return None if callback is not None else [values[place] for place in sorted(values)]

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """`(id, document)` as they come; for a group among them `(id, [document, …])` once all of it is there."""
        if not hasattr(self.backend, "each_ready"):
            yield from self.backend.iter_native(
                self, timeout=timeout, interval=interval, no_ack=no_ack, on_message=on_message, on_interval=on_interval
            )
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        missing: dict[int, int] = {}
        owners: dict[int, Any] = {}
        for result in self.results:
            leaves = list(_leaves_of(result))
            missing[id(result)] = len(leaves)
            owners.update((id(leaf), result) for leaf in leaves)
            if not leaves:
                yield result.id, []
        for fresh in self._arriving(list(self._leaves()), deadline, interval, on_interval):
            for leaf in fresh:
                if on_message is not None:
                    on_message(leaf._get_task_meta())
                owner = owners[id(leaf)]
                missing[id(owner)] -= 1
                if not missing[id(owner)]:
                    yield owner.id, _meta_of(owner)

    # -- promises ----------------------------------------------------------------------------------------------------

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> Any:
        """Call `callback(results)` once all are ready ([canvas.75]); from the thread that learns of the last one."""
        from vine import promise

        if self._on_ready is None:
            self._on_ready = promise()
        if self._unheard is None:
            self._unheard = set()
            for result in self.results:
                self._unheard.add(result.id)
            if not self.results:
                self._on_ready(self)
            for result in list(self.results):
                result.then(self._heard)
        return self._on_ready.then(callback, on_error)

    def _listen(self, result: Any) -> None:
        assert self._unheard is not None
        self._unheard.add(result.id)
        result.then(self._heard)

    def _heard(self, result: Any) -> None:
        if self._unheard and result.id in self._unheard:
            self._unheard.discard(result.id)
            if not self._unheard:
                self._on_ready(self)


class GroupResult(ResultSet):
    """The result of a group: its members' results, under an id by which they can be found again ([result.23])."""

    __module__ = "celery.result"

    id: str | None = None

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] | None = None,
        parent: ResultBase | None = None,
        **kwargs: Any,
    ) -> None:
        self.id = id
        if parent is not None:
            self.parent = parent
        super().__init__([] if results is None else results, **kwargs)

    def save(self, backend: Any = None) -> Any:
        """Keep which results belong to the group, for `restore`."""
        return (backend or self.app.backend).save_group(self.id, self)

    def delete(self, backend: Any = None) -> None:
        """Undo `save`; the results themselves stay."""
        (backend or self.app.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Celery | None = None) -> GroupResult | None:
        """The group that was saved under the id; None if there is none."""
        app = app or cls._app or _state._app_or_default(None)
        return cast("GroupResult | None", (backend or app.backend).restore_group(id))

    @property
    def children(self) -> list[Any]:
        return self.results

    def as_tuple(self) -> tuple[Any, list[Any]]:
        """`((id, parent), [members])`, each in the form of its own `as_tuple` ([result.15])."""
        parent = self.parent
        return (self.id, None if parent is None else parent.as_tuple()), [one.as_tuple() for one in self.results]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return other.id == self.id and other.results == self.results and other.parent == self.parent
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(result.id) for result in self.results)}]>"

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self.results, self.parent


def _leaves_of(result: Any) -> Iterator[AsyncResult[Any]]:
    return result._leaves() if isinstance(result, ResultSet) else iter((result,))


def _meta_of(result: Any) -> Any:
    if isinstance(result, ResultSet):
        return [_meta_of(one) for one in result.results]
    return result._get_task_meta()


def _value(result: Any, meta: Any, propagate: bool) -> Any:
    """What a document says; a list for a group."""
    if isinstance(meta, list):
        return [_value(one, part, propagate) for one, part in zip(result.results, meta, strict=True)]
    result._remember(meta)
    return result.maybe_throw(propagate=propagate)
