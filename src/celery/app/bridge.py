"""Application. `build_tracer` and the other names of old around a run, which monitoring packages wrap or replace.

They are found as attributes of `celery.app.trace`. As long as nobody puts anything in their place, none of this is
used: a worker's `Tracer` runs its messages itself. Else each task concerned is handed to what stands there, called
exactly as Celery 5.7 calls it (`Foreign`), and our own `build_tracer`, mostly called underneath, runs that `Tracer`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections import namedtuple
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module
from socket import gethostname
from time import perf_counter
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo

from celery import _state, codecs, signals
from celery.app import trace
from celery.app.trace import LogLines
from celery.app.unlocking import settle
from celery.lifecycle import Ended, Run
from celery.message import Message, read_body
from celery.outcome import Failure, Ignored, Rejected, Retrying, Success
from celery.states import FAILURE, IGNORED, REJECTED, RETRY, SUCCESS
from celery.tracer import bounded_repr
from celery.utils.log import flush_lines
from celery.utils.saferepr import saferepr
from celery.worker.consumer.deliveries import publications

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.app.base import Celery
    from celery.outcome import Outcome

__all__ = ["Foreign", "foreign", "named"]

logger = logging.getLogger("celery.app.trace")

#: What `celery.app.trace` gives from here.
_HERE = frozenset(
    """
    ExceptionInfo FAILURE IGNORED IGNORE_STATES REJECTED RETRY SUCCESS TraceInfo _signal_internal_error build_tracer
    fast_trace_task get_actual_ignore_result get_task_name gethostname info report_internal_error
    reset_worker_optimizations saferepr send_postrun send_prerun send_success setup_worker_optimizations
    successful_requests trace_ok_t trace_task trace_task_ret traceback_clear
    """.split()
)
#: And what it gives from elsewhere, since packages that replace `build_tracer` import it from there.
_ELSEWHERE = {
    "AsyncResult": "celery.result",
    "BackendGetMetaError": "celery.exceptions",
    "BaseTask": "celery.app.task",
    "Context": "celery.app.task",
    "EXCEPTION_STATES": "celery.states",
    "EncodeError": "kombu.exceptions",
    "Ignore": "celery.exceptions",
    "InvalidTaskError": "celery.exceptions",
    "Reject": "celery.exceptions",
    "Retry": "celery.exceptions",
    "STARTED": "celery.states",
    "_task_stack": "celery._state",
    "current_app": "celery._state",
    "get_logger": "celery.utils.log",
    "get_pickleable_etype": "celery.utils.serialization",
    "get_pickleable_exception": "celery.utils.serialization",
    "get_pickled_exception": "celery.utils.serialization",
    "mro_lookup": "celery.utils.objects",
    "safe_repr": "kombu.utils.encoding",
    "safe_str": "kombu.utils.encoding",
    "states": "celery",
    "warn": "warnings",
}

IGNORE_STATES = frozenset({IGNORED, RETRY, REJECTED})

#: What a tracer returns: the return value or billiard's `ExceptionInfo`, a `TraceInfo` unless it succeeded, seconds
#: and text.
trace_ok_t = namedtuple("trace_ok_t", ("retval", "info", "runtime", "retstr"), module="celery.app.trace")

send_prerun = signals.task_prerun.send
send_postrun = signals.task_postrun.send
send_success = signals.task_success.send

#: Ids of tasks that this process knows to have succeeded.
successful_requests: set[str] = set()


class _Handed:
    """A run that was handed to a foreign tracer, to be recognised by ours underneath."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.outcome: Outcome | None = None


_handed: ContextVar[_Handed | None] = ContextVar("celery.app.bridge.handed", default=None)


def named(name: str) -> Any:
    """One of these names. Raises AttributeError."""
    if name in _HERE:
        return globals()[name]
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {trace.__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE[name]), name)


# ----------------------------------------------------------------------------------------------- from us to a foreigner


def foreign(app: Celery, hostname: str, task: Any) -> Foreign | None:
    """Asked for a task before its first run: who runs it, if somebody has put anything in our place."""
    traced = task.__trace__
    if traced is None:
        build = trace.replaced("build_tracer")
        if build is None or build is build_tracer:
            return None
        traced = build(task.name, task, app.loader, hostname, app=app)
    return Foreign(traced)


class Foreign:
    """Has a task's messages run by a function that is called as `build_tracer`'s results are."""

    def __init__(self, traced: Callable[..., Any]) -> None:
        self._traced = traced

    def __call__(self, run: Run) -> Outcome:
        """Raises what the function raises, unless our own tracer came to an outcome underneath: then that stands."""
        request = run.request
        fields = {key: value for key, value in request.__dict__.items() if key not in ("_said", "called_directly")}
        handed = _Handed(request.id)
        token = _handed.set(handed)
        begin = perf_counter()
        try:
            answer = self._traced(request.id, run.args, run.kwargs, fields)
        except Exception:
            if handed.outcome is None:
                raise
            logger.exception("Task %s[%s]: what wraps its tracer raised", run.task.name, request.id)
        finally:
            _handed.reset(token)
        if handed.outcome is not None:
            return handed.outcome
        return _outcome(run, answer, perf_counter() - begin)


def _outcome(run: Run, answer: Any, runtime: float) -> Outcome:
    """What a tracer that is not ours has come to; it has stored and sent what there was by itself."""
    _, info, _, _ = answer
    if info is None:
        return Success(runtime=runtime)
    reason = bounded_repr(info.retval)
    if info.state == RETRY:
        return Retrying(runtime=runtime, reason=reason)
    if info.state == IGNORED:
        return Ignored(runtime=runtime)
    if info.state == REJECTED:
        return Rejected(runtime=runtime, reason=reason, requeue=bool(getattr(info.retval, "requeue", False)))
    return Failure(runtime=runtime, reason=reason, acknowledge=run.task.acks_on_failure is not False)


# ---------------------------------------------------------------------------------------------------- our build_tracer


class TraceInfo:
    """How a run ended that did not succeed: `state` and the exception, `retval`; and what 5.7 does about each."""

    __slots__ = ("retval", "state")

    def __init__(self, state: str, retval: Any = None) -> None:
        self.state = state
        self.retval = retval

    def handle_error_state(self, task: Any, req: Any, eager: bool = False, call_errbacks: bool = True) -> Any:
        """Store, tell and log what this state asks for; returns an `ExceptionInfo`."""
        store_errors = not eager or bool(task.store_eager_result)
        if task.ignore_result and not task.store_errors_even_if_ignored:
            store_errors = False
        if self.state == FAILURE:
            return self.handle_failure(task, req, store_errors=store_errors, call_errbacks=call_errbacks)
        if self.state == RETRY:
            return self.handle_retry(task, req, store_errors=store_errors)
        return (self.handle_ignore if self.state == IGNORED else self.handle_reject)(task, req)

    def handle_reject(self, task: Any, req: Any, **kwargs: Any) -> Any:
        self._log(task, req, None)
        return _einfo_of(self.retval)

    def handle_ignore(self, task: Any, req: Any, **kwargs: Any) -> Any:
        self._log(task, req, None)
        return _einfo_of(self.retval)

    def handle_retry(self, task: Any, req: Any, store_errors: bool = True, **kwargs: Any) -> Any:
        """RETRY: the state, `on_retry`, `task_retry`."""
        reason = self.retval
        einfo = _einfo_of(reason)
        if store_errors:
            task.backend.mark_as_retry(req.id, reason.exc or reason, einfo.traceback, request=req)
        task.on_retry(reason.exc, req.id, req.args, req.kwargs, einfo)
        signals.task_retry.send(sender=task, request=req, reason=reason, einfo=einfo)
        self._log(task, req, einfo)
        return einfo

    def handle_failure(self, task: Any, req: Any, store_errors: bool = True, call_errbacks: bool = True) -> Any:
        """FAILURE: the state, errbacks, `on_failure`, `task_failure`."""
        exc = self.retval
        einfo = _einfo_of(exc)
        if store_errors:
            task.backend.mark_as_failure(req.id, exc, einfo.traceback, request=req, call_errbacks=False)
        if call_errbacks and req.errbacks:
            app = task.app
            sent = app.assembly.following.errbacks(req, exc, einfo.traceback)
            if sent:
                app.assembly.producer.publish(sent)
        task.on_failure(exc, req.id, req.args, req.kwargs, einfo)
        signals.task_failure.send(
            sender=task,
            task_id=req.id,
            exception=exc,
            args=req.args,
            kwargs=req.kwargs,
            traceback=exc.__traceback__,
            einfo=einfo,
        )
        self._log(task, req, einfo)
        return einfo

    def _log(self, task: Any, req: Any, einfo: Any) -> None:
        run = Run(Message({"task": task.name, "id": req.id}, b""), task, req, req.args, req.kwargs, {})
        LogLines().ended_otherwise(run, Ended(self.state, self.retval, 0.0, einfo))


def build_tracer(
    name: str,
    task: Any,
    loader: Any = None,
    hostname: str | None = None,
    store_errors: bool = True,
    Info: type[TraceInfo] = TraceInfo,  # noqa: N803 - its public name
    eager: bool = False,
    propagate: bool = False,
    app: Celery | None = None,
    monotonic: Callable[[], float] = perf_counter,
    trace_ok_t: Any = trace_ok_t,
    IGNORE_STATES: Any = IGNORE_STATES,  # noqa: N803 - its public name
) -> Callable[..., Any]:
    """A function `trace(uuid, args, kwargs, request=None)` that runs `task` to its end and gives a `trace_ok_t`.

    `task` is called as it is: it may be a proxy. Called where a worker has handed over a run, its record and its
    follow-up messages go with the outcome; elsewhere they are stored and sent at once (none is stored if `eager`,
    unless the task has `store_eager_result`). `propagate`: raise what the task raised.
    """
    app = app if app is not None else task.app
    lines = LogLines()
    lines.refresh()
    tracer = app.assembly.tracer(hostname or gethostname(), lines)
    plan = tracer.plan_of(task)

    def trace_task(uuid: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None) -> Any:
        if not uuid:
            raise ValueError(f"task_id must not be empty. Got {uuid!r} instead.")
        run = _adopted(task, uuid, args, kwargs, request, eager)
        outcome = tracer.run_as(plan, run)
        handed = _handed.get()
        if handed is not None and handed.task_id == uuid:
            handed.outcome = outcome
        else:
            _settle(app, outcome, store=not eager or bool(task.store_eager_result))
        return _answer(run, Info, trace_ok_t, propagate)

    return trace_task


def _adopted(task: Any, uuid: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None, eager: bool) -> Run:
    """A run of what a request dictionary says."""
    said = dict(request or {})
    said.update(id=uuid, args=args, kwargs=kwargs, called_directly=False)
    said.setdefault("task", task.name)
    if eager:
        said.setdefault("is_eager", True)
    context = task.app.Context(said)
    message = Message({"task": task.name, "id": uuid, "ignore_result": said.get("ignore_result")}, b"")
    embed = {name: said.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    return Run(message, task, context, args, kwargs, embed)


def _settle(app: Celery, outcome: Outcome, *, store: bool) -> None:
    """Nobody else does: publish what follows, then store ([task.52])."""
    if outcome.follow:
        app.assembly.producer.publish(publications(outcome.follow))
    if outcome.record is not None and store and app.assembly.store is not None:
        app.assembly.store.save([outcome.record])
    if outcome.further is not None and store:
        settle(app, outcome.further)
    flush_lines()


def _answer(run: Run, kind: type[TraceInfo], answer: Any, propagate: bool) -> Any:
    ended = run.ended
    assert ended is not None
    if ended.state == SUCCESS:
        return answer(ended.value, None, ended.runtime, saferepr(ended.value, run.task.resultrepr_maxsize))
    if propagate:
        raise ended.value
    einfo = ended.einfo if ended.einfo is not None else _einfo_of(ended.value)
    return answer(einfo, kind(str(ended.state), ended.value), None, None)


def trace_task(
    task: Any, uuid: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None, **opts: Any
) -> Any:
    """Run `task` with its own tracer, made with `opts` if it has none yet; a failure of the tracer is returned."""
    try:
        if task.__trace__ is None:
            task.__trace__ = (trace.replaced("build_tracer") or build_tracer)(task.name, task, **opts)
        return task.__trace__(uuid, args, kwargs, request or {})
    except Exception as exc:  # noqa: BLE001 - returned
        _signal_internal_error(task, uuid, args, kwargs, request, exc)
        return trace_ok_t(report_internal_error(task, exc), TraceInfo(FAILURE, exc), 0.0, None)


def trace_task_ret(
    name: str,
    uuid: str,
    request: dict[str, Any],
    body: Any,
    content_type: str,
    content_encoding: str,
    loads: Any = None,
    app: Celery | None = None,
    **extra_request: Any,
) -> tuple[int, Any, float | None]:
    """Run a message's parts: `(0, text of the result, seconds)`, or `(1, ExceptionInfo, None)` if it failed."""
    app = app if app is not None else _state.get_current_app()
    accept = codecs.accept_types(app.conf.accept_content)
    raw = body.encode() if isinstance(body, str) else body
    args, kwargs, embed = read_body(codecs.decode(raw, content_type, content_encoding, accept))
    said = {**request, "args": args, "kwargs": kwargs, "is_eager": False, **embed, **extra_request}
    said.setdefault("hostname", gethostname())
    retval, failed, runtime, text = trace_task(app.tasks[name], uuid, args, kwargs, said, app=app)
    return (1, retval, runtime) if failed else (0, text, runtime)


def fast_trace_task(
    task: str,
    uuid: str,
    request: dict[str, Any],
    body: Any,
    content_type: str,
    content_encoding: str,
    loads: Any = None,
    _loc: Any = None,
    hostname: str | None = None,
    **_: Any,
) -> tuple[int, Any, float | None]:
    """As `trace_task_ret`, of the current app."""
    return trace_task_ret(task, uuid, request, body, content_type, content_encoding, hostname=hostname or gethostname())


# ---------------------------------------------------------------------------------------------------------- small parts


def setup_worker_optimizations(app: Celery, hostname: str | None = None) -> None:
    """Make `app` the one that this process runs tasks of."""
    app.set_current()
    app.set_default()
    app.finalize()


def reset_worker_optimizations(app: Any = None) -> None:
    """Undo what `trace_task` has left on the tasks: tracers are made anew."""
    app = app if app is not None else _state.get_current_app()
    for task in app.tasks.values():
        task.__trace__ = None


def report_internal_error(task: Any, exc: BaseException) -> Any:
    """Warn of an exception raised outside a task's body (`[task.56]`); returns its `ExceptionInfo`."""
    einfo = _einfo_of(exc)
    warnings.warn(RuntimeWarning(f"Exception raised outside body: {exc!r}:\n{einfo.traceback}"), stacklevel=2)
    return einfo


def _signal_internal_error(task: Any, uuid: str, args: Any, kwargs: Any, request: Any, exc: BaseException) -> None:
    signals.task_internal_error.send(
        sender=task, task_id=uuid, args=args, kwargs=kwargs, request=request, exception=exc,
        traceback=exc.__traceback__, einfo=_einfo_of(exc),
    )  # fmt: skip


def traceback_clear(exc: BaseException | None = None) -> None:
    """Let go of what the frames of the traceback hold: that of `exc`, or of what is being handled."""
    at = sys.exc_info()[2] if exc is None else exc.__traceback__
    while at is not None:
        with suppress(RuntimeError):  # still running
            at.tb_frame.clear()
        at = at.tb_next


def get_task_name(request: Any, default: str) -> str:
    """The name that logs show."""
    return getattr(request, "shadow", None) or default


def get_actual_ignore_result(task: Any, req: Any) -> bool:
    """Whether the result is ignored: the request's word beats the task's (`[task.42]`)."""
    said = req.__dict__.get("ignore_result") if req is not None else None
    return bool(task.ignore_result if said is None else said)


def info(fmt: str, context: Mapping[str, Any]) -> None:
    """Write one of the `LOG_…` lines."""
    logger.info(fmt, context, extra={"data": context})


def _einfo_of(exc: BaseException) -> Any:
    """Of any exception, whether or not it is being handled, or ever was raised."""
    if exc.__traceback__ is None:
        try:
            raise exc
        except type(exc):
            return ExceptionInfo()
    return ExceptionInfo((type(exc), exc, exc.__traceback__))
