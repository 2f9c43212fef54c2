"""Domain. What can go wrong, and what a task may raise to say what should happen to it (`[exc.1]` to `[exc.7]`).

::

    Exception
     +-- CeleryError                                 celery's own, save for backend errors
     |    +-- ImproperlyConfigured                   the configuration can never work
     |    +-- SecurityError                          signing or its set-up failed
     |    +-- TaskPredicate                          raised by a task: not an error but an instruction
     |    |    +-- Ignore                            acknowledge, store nothing
     |    |    +-- Reject                            reject the message, perhaps giving it back
     |    |    +-- Retry (RetryTaskError)            will be run again
     |    +-- TaskError
     |         +-- QueueNotFound (KeyError)          routed to a queue that is not declared
     |         +-- IncompleteStream                  data ended before it was whole
     |         +-- NotRegistered (KeyError)          no task of that name here
     |         +-- AlreadyRegistered
     |         +-- TimeoutError                      a result did not come in time
     |         +-- MaxRetriesExceededError
     |         +-- TaskRevokedError                  the task was revoked before or while it ran
     |         +-- InvalidTaskError                  the message is no task, or a broken one
     |         +-- ChordError                        a part of a chord's header failed
     +-- BackendError                                the result backend failed (no CeleryError)
     |    +-- BackendGetMetaError                    while reading a state
     |    +-- BackendStoreError                      while writing one
     +-- kombu.exceptions.KombuError
     |    +-- OperationalError                       the broker or backend is away: try again
     +-- billiard's: SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError, Terminated
     +-- click.ClickException
     |    +-- CeleryCommandException                 a command ends with this message and exit code
     +-- UserWarning
     |    +-- CeleryWarning
     |         +-- AlwaysEagerIgnored  DuplicateNodenameWarning  DuplicateTaskNameWarning
     |         +-- FixupWarning  NotConfigured  SecurityWarning
     +-- DeprecationWarning
     |    +-- CDeprecationWarning
     +-- PendingDeprecationWarning
          +-- CPendingDeprecationWarning
    SystemExit
     +-- WorkerShutdown                              end the worker warmly
     +-- WorkerTerminate (SystemTerminate)           end it at once

Those that belong to kombu, billiard and click are the very same classes; they are imported when first asked for, so
that importing this module costs nothing.
"""

from __future__ import annotations

import numbers
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
    from click import ClickException
    from kombu.exceptions import OperationalError

__all__ = (
    "AlreadyRegistered", "AlwaysEagerIgnored", "BackendError", "BackendGetMetaError", "BackendStoreError",
    "CDeprecationWarning", "CPendingDeprecationWarning", "CeleryCommandException", "CeleryError", "CeleryWarning",
    "ChordError", "DuplicateNodenameWarning", "DuplicateTaskNameWarning", "FixupWarning", "Ignore",
    "ImproperlyConfigured", "IncompleteStream", "InvalidTaskError", "MaxRetriesExceededError", "NotConfigured",
    "NotRegistered", "OperationalError", "QueueNotFound", "Reject", "Retry", "SecurityError", "SecurityWarning",
    "SoftTimeLimitExceeded", "TaskError", "TaskPredicate", "TaskRevokedError", "Terminated", "TimeLimitExceeded",
    "TimeoutError", "WorkerLostError", "WorkerShutdown", "WorkerTerminate", "reraise",
)  # fmt: skip

UNREGISTERED_FMT = "Task of kind {0} never registered, please make sure it's imported."

_ELSEWHERE = {
    "OperationalError": "kombu.exceptions",
    "SoftTimeLimitExceeded": "billiard.exceptions",
    "Terminated": "billiard.exceptions",
    "TimeLimitExceeded": "billiard.exceptions",
    "WorkerLostError": "billiard.exceptions",
    "ClickException": "click",
}


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise `value` with the traceback `tb` (`[exc.7]`). `tp` is kept for old callers and not looked at."""
    if value.__traceback__ is not tb:
        raise value.with_traceback(tb)
    raise value


class CeleryWarning(UserWarning):
    """Base of the warnings that tell a user of something to look at."""


class AlwaysEagerIgnored(CeleryWarning):
    """`send_task` was called while `task_always_eager` is set: it sends all the same."""


class DuplicateNodenameWarning(CeleryWarning):
    """Two workers answer to one node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two different functions are declared under one task name; the first stays."""


class FixupWarning(CeleryWarning):
    """A framework's fix-up could not be applied."""


class NotConfigured(CeleryWarning):
    """The worker runs without a configuration module."""


class SecurityWarning(CeleryWarning):
    """The set-up is open to attack."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Will be removed."""


class CeleryError(Exception):
    """Base of Celery's own errors."""


class ImproperlyConfigured(CeleryError):
    """The configuration cannot work."""


class SecurityError(CeleryError):
    """Something about signing, keys or certificates is not as it must be."""


class TaskPredicate(CeleryError):
    """Base of what a task raises to tell the worker what to do with its message."""


class Ignore(TaskPredicate):
    """Acknowledge the message and store no state."""


class Reject(TaskPredicate):
    """Reject the message, or give it back to its queue if `requeue` (only with late acknowledgement)."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """The task is to be run again; `Task.retry` raises it once the new message is on its way."""

    #: Text given by whoever asked for the retry; it is then all that `str()` shows.
    message: str | None = None
    #: What went wrong, as an exception where one is known, and always as text in `excs`.
    exc: BaseException | None = None
    #: When: seconds from now, or a date.
    when: float | datetime | None = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.exc: BaseException | None
        self.excs: str | None
        if isinstance(exc, str):
            self.exc, self.excs = None, exc
        else:
            self.exc, self.excs = exc, _safe_repr(exc) if exc else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when, **kwargs)

    def humanize(self) -> str:
        """'in 10s' or 'at 2026-01-01 00:00:00'."""
        if isinstance(self.when, numbers.Number):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[type[Retry], tuple[Any, ...]]:
        return self.__class__, (self.message, self.exc or self.excs, self.when)


RetryTaskError = Retry


class TaskError(CeleryError):
    """Base of errors about a task."""


class QueueNotFound(KeyError, TaskError):
    """The task is routed to a queue that is not among `task_queues`."""


class IncompleteStream(TaskError):
    """The end of a stream of data was found before it was complete."""


class NotRegistered(KeyError, TaskError):
    """No task of that name is registered here. The only argument is the name."""

    def __repr__(self) -> str:
        return UNREGISTERED_FMT.format(self)


class AlreadyRegistered(TaskError):
    """A task of that name is registered already."""


class TimeoutError(TaskError):
    """The operation did not end within its time."""


class MaxRetriesExceededError(TaskError):
    """The task was tried as often as it may be. `task_args` and `task_kwargs` are the arguments of the call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The task was revoked; there is no result."""


class InvalidTaskError(TaskError):
    """The task's message cannot be understood."""


class ChordError(TaskError):
    """A task of a chord's header failed, so its body does not run."""


class BackendError(Exception):
    """The result backend failed."""


class BackendGetMetaError(BackendError):
    """The state of `task_id` could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """`state` of `task_id` could not be stored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get("state", "")
        self.task_id = kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


class WorkerShutdown(SystemExit):
    """Raised in the worker's main thread: finish what runs, then end."""


class WorkerTerminate(SystemExit):
    """Raised in the worker's main thread: end at once."""


SystemTerminate = WorkerTerminate


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything, and this is an error path
        return f"<{type(value).__name__}: repr failed with {type(error).__name__}>"


def _make_command_exception() -> type[Exception]:
    from click import ClickException

    class CeleryCommandException(ClickException):
        """A command of the program ends with this message and exit code."""

        __module__ = __name__
        __qualname__ = "CeleryCommandException"

        def __init__(self, message: str, exit_code: int) -> None:
            super().__init__(message=message)
            self.exit_code = exit_code  # type: ignore[misc]

        def __reduce__(self) -> tuple[Any, ...]:
            return self.__class__, (self.message, self.exit_code)

    return CeleryCommandException


if TYPE_CHECKING:

    class CeleryCommandException(ClickException):
        def __init__(self, message: str, exit_code: int) -> None: ...

else:

    def __getattr__(name: str) -> Any:
        if name == "CeleryCommandException":
            value = _make_command_exception()
        elif name in _ELSEWHERE:
            value = getattr(import_module(_ELSEWHERE[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
