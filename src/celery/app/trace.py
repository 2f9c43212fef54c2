"""Application. Tellings of a run: log lines (`[task.74]`) and signals (`[signal.5]` to `[signal.10]`).

The `LOG_…` formats are read when a line is written: users replace them. `build_tracer` and the other names of old that
monitoring packages wrap or replace are made in `app/bridge.py`, and are found here when they are asked for.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo

from celery import signals
from celery.app.task import Task
from celery.failures import repr_of
from celery.lifecycle import Latch
from celery.states import IGNORED, REJECTED, RETRY, SUCCESS
from celery.utils.log import flush_lines, line_writer
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.app.bridge import (
        TraceInfo,
        build_tracer,
        fast_trace_task,
        report_internal_error,
        reset_worker_optimizations,
        setup_worker_optimizations,
        trace_ok_t,
        trace_task,
        trace_task_ret,
        traceback_clear,
    )
    from celery.lifecycle import Ended, Run, Tellers
    from celery.message import Message
    from celery.outcome import Outcome

__all__ = [
    "LOG_FAILURE", "LOG_IGNORED", "LOG_INTERNAL_ERROR", "LOG_RECEIVED", "LOG_REJECTED", "LOG_RETRY", "LOG_SUCCESS",
    "LogLines", "TraceInfo", "build_tracer", "fast_trace_task", "report_internal_error", "reset_worker_optimizations",
    "setup_worker_optimizations", "task_has_custom", "tellers", "trace_ok_t", "trace_task", "trace_task_ret",
    "traceback_clear",
]  # fmt: skip

logger = logging.getLogger("celery.app.trace")

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"


def __getattr__(name: str) -> Any:
    """The names of old that the bridge has; never kept here, so what is put in their place stands out."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _bridge().named(name)


def _bridge() -> Any:
    from celery.app import bridge

    return bridge


def replaced(name: str) -> Any:
    """What somebody has put in place of one of the bridge's names; None if nobody has."""
    return globals().get(name)


def foreign(app: Celery, hostname: str, task: Any) -> Callable[[Run], Outcome] | None:
    """Who runs the task's messages, if somebody has put anything in our place; None: we do."""
    if task.__trace__ is None and replaced("build_tracer") is None:
        return None
    chosen: Callable[[Run], Outcome] | None = _bridge().foreign(app, hostname, task)
    return chosen


def call_replacement(traced: Callable[..., Any], *args: Any) -> Any:
    """Call what somebody has put in the place of our tracer: a soft limit may be raised anywhere inside of it."""
    return traced(*args)


def task_has_custom(task: Any, attr: str) -> bool:
    """Whether the task's class, or one between it and `Task`, defines `attr` itself.

    A proxy of a task, as monitoring packages pass around, is asked for the class that it stands for.
    """
    for cls in task.__class__.__mro__:
        if cls is Task:
            return False
        if attr in cls.__dict__:
            return not getattr(cls.__dict__[attr], "__celery_generated__", False)
    return False


#: Types whose values are short whatever they are: their repr needs no care.
_SHORT = frozenset({bool, float, type(None)})


class LogLines:
    """Writes the line that says how a task ended, in the process that ran it."""

    def __init__(self) -> None:
        #: Open while lines of successes are wanted.
        self.successes = Latch(True)
        self._write: Callable[[str], None] | None = None

    def refresh(self) -> None:
        """Look again at how logging is set up; called when a child starts."""
        self.successes.receivers = logger.isEnabledFor(logging.INFO)
        self._write = line_writer(logger, logging.INFO)

    def flush(self) -> None:
        """Write the lines of the runs since the last time."""
        if self.successes.receivers:
            flush_lines()

    def succeeded(self, run: Run, ended: Ended) -> None:
        request, value, write = run.request, ended.value, self._write
        run.shown = text = _text_of(run, value)
        context = {
            "id": request.id,
            "name": request.shadow or run.task.name,
            "return_value": text,
            "runtime": ended.runtime,
        }
        if write is None or "args" in LOG_SUCCESS:  # nobody else sees them, and their text may have to be made
            shown = request.__dict__.get
            context["args"] = shown("argsrepr") or saferepr(request.args)
            context["kwargs"] = shown("kwargsrepr") or saferepr(request.kwargs)
        if write is not None:
            write(LOG_SUCCESS % context)
        else:
            logger.info(LOG_SUCCESS, context, extra={"data": context})

    def ended_otherwise(self, run: Run, ended: Ended) -> None:
        """A failure, a retry, or what the task said of itself."""
        severity, template, description = _policy(run.task, ended)
        if not logger.isEnabledFor(severity):
            return
        request, einfo = run.request, ended.einfo
        shown = request.__dict__.get
        context = {
            "hostname": request.hostname,
            "id": request.id,
            "name": request.shadow or run.task.name,
            "exc": _reason(ended),
            "traceback": einfo.traceback if einfo is not None else None,
            "args": shown("argsrepr") or saferepr(request.args),
            "kwargs": shown("kwargsrepr") or saferepr(request.kwargs),
            "description": description,
            "internal": False,
            "runtime": ended.runtime,
        }
        exc_info = _exc_info(ended, severity >= logging.WARNING and einfo is not None)
        logger.log(severity, template.strip(), context, exc_info=exc_info, extra={"data": context})


def _text_of(run: Run, value: Any) -> str:
    return repr(value) if type(value) in _SHORT else saferepr(value, run.task.resultrepr_maxsize)


def shown(run: Run) -> tuple[str, str] | None:
    """How a run ended, for monitors (`[event.5]`, `[event.6]`, `[event.9]`): text and traceback."""
    ended = run.ended
    if ended is None:
        return None
    value, einfo = ended.value, ended.einfo
    if ended.state == SUCCESS:
        return run.shown or _text_of(run, value), ""
    if ended.state == RETRY:
        value = value.exc
    return repr_of(value), "" if einfo is None else str(einfo.traceback)


def tellers(lines: LogLines) -> Tellers:
    """Who is told what of a run: signals and log lines, in the order of `[task.51]`."""
    always = Latch(True)
    ended = (always, lines.ended_otherwise)
    return {
        "started": [(signals.task_prerun, _send_prerun)],
        "SUCCESS": [(signals.task_success, _send_success), (lines.successes, lines.succeeded)],
        "FAILURE": [(signals.task_failure, _send_failure), ended],
        "RETRY": [(signals.task_retry, _send_retry), ended],
        "IGNORED": [ended],
        "REJECTED": [(signals.task_failure, _send_rejection), ended],
        "finished": [(signals.task_postrun, _send_postrun)],
        "lost": [(signals.task_failure, _send_failure)],
        "broke": [(signals.task_internal_error, _send_internal_error), (always, _warn_of_internal_error)],
    }


def _send_prerun(run: Run) -> None:
    signals.task_prerun.send(sender=run.task, task_id=run.request.id, task=run.task, args=run.args, kwargs=run.kwargs)


def _send_success(run: Run, ended: Ended) -> None:
    signals.task_success.send(sender=run.task, result=ended.value, runtime=ended.runtime)


def _send_retry(run: Run, ended: Ended) -> None:
    signals.task_retry.send(sender=run.task, request=run.request, reason=ended.value, einfo=ended.einfo)


def _send_rejection(run: Run, ended: Ended) -> None:
    """A rejection for good is a failure too (`[task.40]`)."""
    if not ended.value.requeue:
        _send_failure(run, ended)


def _send_postrun(run: Run, ended: Ended) -> None:
    signals.task_postrun.send(
        sender=run.task,
        task_id=run.request.id,
        task=run.task,
        args=run.args,
        kwargs=run.kwargs,
        retval=ended.value,
        state=ended.state,
    )


def _send_internal_error(message: Message, run: Run | None, exc: BaseException) -> None:
    signals.task_internal_error.send(
        sender=message.task if run is None else run.task,
        task_id=message.id,
        args=() if run is None else run.args,
        kwargs={} if run is None else run.kwargs,
        request=message.headers if run is None else run.request.__dict__,
        exception=exc,
        traceback=exc.__traceback__,
        einfo=ExceptionInfo((type(exc), exc, exc.__traceback__)),
    )


def _warn_of_internal_error(message: Message, run: Run | None, exc: BaseException) -> None:
    if run is not None:
        with suppress(RuntimeWarning):  # as an error it would lose the outcome
            warnings.warn(RuntimeWarning(f"Exception raised outside body: {repr_of(exc)}"), stacklevel=2)


def _send_failure(run: Run, ended: Ended) -> None:
    signals.task_failure.send(
        sender=run.task,
        task_id=run.request.id,
        exception=ended.value,
        args=run.args,
        kwargs=run.kwargs,
        traceback=ended.value.__traceback__,
        einfo=ended.einfo,
    )


def _policy(task: Any, ended: Ended) -> tuple[int, str, str]:
    """Severity, format and description for a run that did not succeed."""
    if ended.state == IGNORED:
        return logging.INFO, LOG_IGNORED, "ignored"
    if ended.state == REJECTED:
        return logging.WARNING, LOG_REJECTED, "rejected"
    if ended.state == RETRY:
        return logging.INFO, LOG_RETRY, "retry"
    if isinstance(ended.value, tuple(task.throws or ())):
        return logging.INFO, LOG_FAILURE, "raised expected"
    return logging.ERROR, LOG_FAILURE, "raised unexpected"


def _reason(ended: Ended) -> str:
    """Retry speaks for itself; any other exception is shown by its repr."""
    if ended.state == RETRY:
        return str(ended.value)[:2048]
    return repr_of(ended.value, 2048)


def _exc_info(ended: Ended, wanted: bool) -> Any:
    exc = ended.value
    return (type(exc), exc, exc.__traceback__) if wanted else None
