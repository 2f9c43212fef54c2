"""Application. The result of a task that has run in this very process: `celery.result.EagerResult` ([result.25])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from celery import states
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult, assert_will_not_block

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EagerResult"]

R = TypeVar("R", covariant=True)


class EagerResult(AsyncResult[R]):
    """The result of a task that has run in this very process; always ready, and kept nowhere ([result.25])."""

    __module__ = "celery.result"  # where users find it, and pickles name it

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None
    ) -> None:
        self.id = id
        self._result = ret_value
        self._state = state
        self._traceback = traceback
        self._name = name

    def get(  # type: ignore[override]
        self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True, **kwargs: Any
    ) -> R:
        """The value, or the failure (raised unless `propagate` is False); None for any other state."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._state == states.SUCCESS:
            return cast("R", self._value(self._get_task_meta()))
        if self._state not in states.PROPAGATE_STATES:
            return cast("R", None)
        if propagate:
            raise self._result if isinstance(self._result, BaseException) else Exception(self._result)
        return cast("R", self._result)

    wait = get  # type: ignore[assignment]

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> Any:
        """Call it now."""
        from vine import promise

        if self._on_ready is None:
            self._on_ready = promise()
            self._on_ready(self)
        return self._on_ready.then(callback, on_error)

    def ready(self) -> bool:
        return True

    def forget(self) -> None:
        """There is nothing to delete."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """The task has run; the result says REVOKED from now on."""
        self._state = states.REVOKED
        self._result = TaskRevokedError("revoked")
        self._traceback = None

    @property
    def supports_native_join(self) -> bool:
        return False

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self._result, self._state, self._traceback, self._name

    def _unknown_to(self, backend: Any) -> bool:
        return False

    def _get_task_meta(self) -> dict[str, Any]:
        return {
            "task_id": self.id,
            "result": self._result,
            "status": self._state,
            "traceback": self._traceback,
            "name": self._name,
        }
