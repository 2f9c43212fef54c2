"""Domain. Which task runs here, now: stacks that belong to one thread, greenlet or asyncio task.

A stack is a chain of nodes in a context variable, never a list: an asyncio task inherits the chain of whoever made it,
and what either pushes later stays invisible to the other.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.app.task import Context, Task

__all__ = [
    "LocalStack", "current_request", "get_current_task", "get_current_worker_task", "task_stack",
]  # fmt: skip

T = TypeVar("T")


class LocalStack(Generic[T]):
    """A stack of which each thread, greenlet and asyncio task has its own ([task.13], [util.8])."""

    def __init__(self) -> None:
        # A node is [what was pushed, the node below, the token that takes the node off again]. A list and no class:
        # this is done twice for every run of a task.
        self._top: ContextVar[list[Any] | None] = ContextVar("celery.LocalStack", default=None)
        self._get = self._top.get
        self._set = self._top.set

    def push(self, obj: T) -> None:
        node: list[Any] = [obj, self._get(), None]
        node[2] = self._set(node)

    def pop(self) -> T | None:
        """Take off what was pushed last and return it; None if the stack is empty."""
        node = self._get()
        if node is None:
            return None
        try:
            # Taking the value back out keeps the context from holding variables of apps that are long gone.
            self._top.reset(node[2])
        except ValueError:  # pushed in another context: an asyncio task took over its maker's chain
            self._set(node[1])
        found: T = node[0]
        return found

    @property
    def top(self) -> T | None:
        node = self._get()
        return None if node is None else node[0]

    @property
    def stack(self) -> list[T]:
        """What was pushed, oldest first. A copy."""
        return list(self)[::-1]

    def __iter__(self) -> Iterator[T]:
        """Newest first."""
        node = self._get()
        while node is not None:
            yield node[0]
            node = node[1]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        # An empty stack is still a stack: `task.request_stack or …` must not replace it.
        return True


#: Tasks that are being run here, by a worker or called directly.
task_stack: LocalStack[Task[..., Any]] = LocalStack()


def get_current_task() -> Task[..., Any] | None:
    """The task that is being run here, or None."""
    return task_stack.top


def get_current_worker_task() -> Task[..., Any] | None:
    """The innermost task here that a worker runs; those called directly inside it are passed over ([call.20])."""
    node = task_stack._get()
    while node is not None:
        task: Task[..., Any] = node[0]
        if not task.request.called_directly:
            return task
        node = node[1]
    return None


def current_request() -> Context | None:
    """The request of the task that a worker runs here, or None."""
    if task_stack._get() is None:  # outside of tasks, that is on most calls
        return None
    task = get_current_worker_task()
    return None if task is None else task.request
