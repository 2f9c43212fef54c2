"""Domain. What happens to a task, as values: one happening, told to many listeners (log, signals, events, spans)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from celery.message import Message

__all__ = ["Ended", "Listener", "Run"]


@dataclass(slots=True, eq=False)
class Run:
    """One run of a task in a pool's process: what every listener may look at. `request` is the task's `Context`."""

    message: Message
    task: Any
    request: Any
    args: Any
    kwargs: dict[str, Any]
    embed: Any


@dataclass(slots=True, eq=False)
class Ended:
    """How a run ended. `value` is the return value, or the exception."""

    #: SUCCESS, FAILURE, RETRY, IGNORED or REJECTED.
    state: str
    value: Any
    #: Seconds.
    runtime: float
    #: billiard's `ExceptionInfo` where the run ended in an exception, else None.
    einfo: Any = None


class Listener(Protocol):
    """Hears of runs in the process that runs them, in the order of `[task.51]`."""

    def started(self, run: Run) -> None:
        """Before the body (`task_prerun`)."""

    def ended(self, run: Run, ended: Ended) -> None:
        """The outcome is known and its record made (`task_success`, the log line …)."""

    def finished(self, run: Run, ended: Ended) -> None:
        """Last of all (`task_postrun`)."""

    def broke(self, message: Message, exc: BaseException) -> None:
        """The run failed outside the task's body (`task_internal_error`, `[task.56]`)."""
