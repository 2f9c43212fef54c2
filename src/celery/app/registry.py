"""Application. The tasks of an app, by name ([app.15], [app.16])."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery._state import get_current_app
from celery.exceptions import InvalidTaskError, NotRegistered

if TYPE_CHECKING:
    from celery.app.task import Task

    _Tasks = dict[str, Task[..., Any]]
else:
    _Tasks = dict

__all__ = ["TaskRegistry"]


class TaskRegistry(_Tasks):
    """Name → task. Asking for a name that is not here raises `NotRegistered` (a KeyError)."""

    NotRegistered = NotRegistered

    def __missing__(self, key: str) -> Any:
        raise self.NotRegistered(key)

    def register(self, task: Any) -> None:
        """Put in a task; a class is instantiated. Raises `InvalidTaskError` if it has no name."""
        if task.name is None:
            raise InvalidTaskError(
                f"expected a task with a name, got {task!r}: set `name` on the class, "
                "or use `app.register_task`, which names it after its module and class"
            )
        self[task.name] = task() if isinstance(task, type) else task

    def unregister(self, name: Any) -> None:
        """Take out a task, given by name or itself. Raises `NotRegistered`."""
        name = getattr(name, "name", name)
        try:
            self.pop(name)
        except KeyError:
            raise self.NotRegistered(name) from None

    def regular(self) -> dict[str, Any]:
        return self.filter_types("regular")

    def periodic(self) -> dict[str, Any]:
        return self.filter_types("periodic")

    def filter_types(self, type: str) -> dict[str, Any]:
        """The tasks whose `type` attribute is this one; a task without it is regular."""
        return {name: task for name, task in self.items() if getattr(task, "type", "regular") == type}


def _unpickle_task(name: str) -> Task[..., Any]:
    return get_current_app().tasks[name]


def _unpickle_task_v2(name: str, module: str | None = None) -> Task[..., Any]:
    if module:
        import_module(module)
    return _unpickle_task(name)
