"""Application. Tasks that can be asked to stop, and that look now and then whether they were (`[contrib.1]`).

    @app.task(bind=True, base=AbortableTask)
    def count(self, n):
        for i in range(n):
            if self.is_aborted():
                return i
            ...

    result = count.delay(1000)
    result.abort()

The request lies in the result backend, as the state ABORTED: worker and caller must share one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from celery.app.task import Task
from celery.result import AsyncResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("ABORTED", "AbortableAsyncResult", "AbortableTask")

P = ParamSpec("P")
R = TypeVar("R")

#: Somebody asked the task to stop. Not a ready state: how the task ends is still to come.
ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult[R], Generic[R]):
    """The result of an `AbortableTask`."""

    def is_aborted(self) -> bool:
        """Whether `abort` was called, and the task has not ended since."""
        return self.state == ABORTED

    def abort(self) -> None:
        """Ask the task to stop. A task that has succeeded already stays as it is."""
        self.backend.store_result(self.id, None, ABORTED)


class AbortableTask(Task[P, R]):
    """A base class for tasks that call `self.is_aborted()`. It is up to them to stop."""

    abstract = True

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *rest: Any, **options: Any
    ) -> AsyncResult[R]:
        """As of every task; the result can abort it."""
        options.setdefault("result_cls", self.AsyncResult)
        return super().apply_async(args, kwargs, *rest, **options)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult[R]:  # noqa: N802 - its public name
        """The result of an earlier call, by its id."""
        return AbortableAsyncResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **kwargs)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Whether the running call was asked to stop, or the one that `task_id` names.

        Asks the backend each time. A call without an id, as an ordinary function, cannot be aborted.
        """
        task_id = kwargs.get("task_id", self.request.id)
        return task_id is not None and self.AsyncResult(task_id).is_aborted()
