"""Flow. A message is run and comes to an outcome.

`Tracer.run` is the whole story: read the message, tell that the run starts, call the task, make its record, continue
with what follows from it, tell how it ended. User code is called in `_call` and in the task's own hooks, nowhere else.
The order of tellings is `[task.51]`'s.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, NotRegistered, Reject, Retry
from celery.failures import repr_of, substitute_for
from celery.lifecycle import MOMENTS, Ended, Run
from celery.message import read_body
from celery.outcome import Failure, Ignored, Outcome, Record, Rejected, Retrying, Success
from celery.states import FAILURE, IGNORED, REJECTED, RETRY, STARTED, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.current import Context
    from celery.lifecycle import Gate, Tellers
    from celery.message import Message
    from celery.ports import Publication

__all__ = ["Tracer", "TracerParts", "bounded_repr"]

logger = logging.getLogger("celery.app.trace")


def _defuse(record: logging.LogRecord) -> bool:
    """A filter: formatters find the text of an exception that would break them, or that is far too long, written."""
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        record.exc_text = substitute_for(record.exc_info[1])
    return True


logger.addFilter(_defuse)


@dataclass(slots=True)
class TracerParts:
    """What a tracer is made of; `app/assembly.py` fills it."""

    #: Name → task; raises KeyError for an unknown one.
    tasks: Mapping[str, Any]
    #: The class of the task's request.
    context: type[Context]
    #: Body, content type, content encoding → value; refuses content types that are not accepted.
    decode: Callable[[bytes, str, str], Any]
    decompress: Callable[[bytes, str], bytes]
    #: Writes state documents: `success`, `failure`, `write`.
    documents: Any
    #: Saves records at once, from this process.
    save: Callable[[list[Record]], None]
    #: A follow-up call (name, args, kwargs, options) → a publication, not yet sent.
    follow: Callable[[Any, Any], Publication]
    #: The stacks that `current_task` and `task.request` read.
    enter: Callable[[Any, Any], None]
    leave: Callable[[Any], None]
    #: Makes billiard's `ExceptionInfo` of the exception being handled.
    exception_info: Callable[[], Any]
    #: Whether a task's class overrides a method of the base class.
    overrides: Callable[[Any, str], bool]
    #: Who is told what.
    tellers: Tellers
    hostname: str = ""
    pid: Callable[[], int] = lambda: 0
    #: False: nobody keeps results, so none is encoded.
    store_results: bool = True


@dataclass(slots=True)
class _Plan:
    """What this process must know of a task, looked up once."""

    task: Any
    #: The task itself if `__call__` is overridden (`[task.8]`), else None: then `task.run` is called.
    callable: Any
    before_start: Any
    on_success: Any
    after_return: Any
    #: Whether any record could matter to anybody.
    track_started: bool


class Tracer:
    """Runs messages in one process. Not shared between threads that run at once, save through `run`, which is safe."""

    def __init__(self, parts: TracerParts) -> None:
        self._parts = parts
        self._tellers: dict[str, Sequence[tuple[Gate, Callable[..., None]]]]
        self._tellers = {moment: tuple(parts.tellers.get(moment, ())) for moment in MOMENTS}
        self._plans: dict[str, _Plan] = {}

    def run(self, message: Message) -> Outcome:
        """Run the task of a message. Never raises but for `SystemExit` and `KeyboardInterrupt`."""
        try:
            plan = self._plans.get(message.task) or self._plan(message.task)
            run = self._read(plan.task, message)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a message must not stop the next one
            return self._refuse(message, exc)
        self._parts.enter(run.task, run.request)
        begin = perf_counter()
        try:
            return self._run(plan, run, begin)
        except Exception as exc:  # noqa: BLE001 - listeners and hooks must not stop the next one
            return self._broke(run, exc, perf_counter() - begin)
        finally:
            self._parts.leave(run.task)

    def _run(self, plan: _Plan, run: Run, begin: float) -> Outcome:
        try:
            self._started(plan, run)
            value = self._call(plan, run)
        except (Retry, Ignore, Reject) as signal:
            return self._signalled(plan, run, signal, begin)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - a task may raise anything
            return self._failed(plan, run, exc, begin)
        ended = Ended(SUCCESS, value, perf_counter() - begin)
        try:
            follow = self._continue(run, value) if run.embed.get("callbacks") else []
            record = None if self._ignores(run) else self._record(run, value)
        except Exception as exc:  # noqa: BLE001 - what cannot be encoded or published is a failure ([task.52], [task.54])
            return self._failed(plan, run, exc, begin)
        if plan.on_success is not None:
            self._hook(run, "on_success", plan.on_success, value, run.request.id, run.args, run.kwargs)
        self._ended(plan, run, ended)
        return Success(record=record, follow=follow, runtime=ended.runtime)

    # -- the steps ---------------------------------------------------------------------------------------------------

    def _read(self, task: Any, message: Message) -> Run:
        """Decode the body and make the request. Raises `MalformedMessage`, `ContentDisallowed` or `DecodeError`."""
        headers, properties, body = message.headers, message.properties, message.body
        compression = headers.get("compression")
        if compression:
            body = self._parts.decompress(body, compression)
        payload = self._parts.decode(body, message.content_type, message.content_encoding)
        args, kwargs, embed = read_body(payload)
        fields = {
            **headers,
            "args": args,
            "kwargs": kwargs,
            "timelimit": message.timelimit,
            "properties": properties,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
            "hostname": self._parts.hostname,
            "delivery_info": {
                "exchange": message.exchange,
                "routing_key": message.routing_key,
                "priority": message.priority,
                "redelivered": message.redelivered,
            },
            "is_eager": False,
            "called_directly": False,
            "callbacks": embed.get("callbacks"),
            "errbacks": embed.get("errbacks"),
            "chain": embed.get("chain"),
            "chord": embed.get("chord"),
        }
        return Run(message, task, self._parts.context.adopt(fields), args, kwargs, embed)

    def _started(self, plan: _Plan, run: Run) -> None:
        for gate, tell in self._tellers["started"]:
            if gate.receivers:
                tell(run)
        if plan.track_started and not self._ignores(run):
            meta = {"pid": self._parts.pid(), "hostname": self._parts.hostname}
            document = self._parts.documents.write(STARTED, meta, run.request)
            self._parts.save([self._as_record(run, STARTED, document)])
        if plan.before_start is not None:
            plan.before_start(run.request.id, run.args, run.kwargs)

    def _call(self, plan: _Plan, run: Run) -> Any:
        """The one place where a task's body is called."""
        return (plan.callable or run.task.run)(*run.args, **run.kwargs)

    def _continue(self, run: Run, value: Any) -> list[tuple[str, str, bytes]]:
        """The messages that follow from success: one for each `link`."""
        publications = [self._parts.follow(signature, value) for signature in run.embed["callbacks"]]
        return [_portable(publication) for publication in publications]

    def _record(self, run: Run, value: Any) -> Record:
        return self._as_record(run, SUCCESS, self._parts.documents.success(value, run.request))

    def _ended(self, plan: _Plan, run: Run, ended: Ended) -> None:
        """Everybody hears how it ended; then `after_return`, then the end of the run itself."""
        for gate, tell in self._tellers[ended.state]:
            if gate.receivers:
                tell(run, ended)
        if plan.after_return is not None and ended.state in (SUCCESS, FAILURE):
            request = run.request
            details = (ended.state, ended.value, request.id, run.args, run.kwargs, ended.einfo)
            self._hook(run, "after_return", plan.after_return, *details)
        for gate, tell in self._tellers["finished"]:
            if gate.receivers:
                tell(run, ended)

    # -- other endings -----------------------------------------------------------------------------------------------

    def _failed(self, plan: _Plan, run: Run, exc: BaseException, begin: float) -> Outcome:
        einfo = self._parts.exception_info()
        runtime = perf_counter() - begin
        record = None
        if not self._ignores(run) or run.task.store_errors_even_if_ignored:
            document = self._parts.documents.failure(exc, run.request, einfo.traceback)
            record = self._as_record(run, FAILURE, document)
        run.task.on_failure(exc, run.request.id, run.args, run.kwargs, einfo)
        self._ended(plan, run, Ended(FAILURE, exc, runtime, einfo))
        return Failure(record=record, runtime=runtime, reason=bounded_repr(exc))

    def _signalled(self, plan: _Plan, run: Run, signal: Exception, begin: float) -> Outcome:
        """`Retry`, `Ignore` and `Reject` say what the outcome is; they are no failures."""
        runtime = perf_counter() - begin
        if isinstance(signal, Ignore):
            self._ended(plan, run, Ended(IGNORED, signal, runtime))
            return Ignored(runtime=runtime)
        einfo = self._parts.exception_info()
        if isinstance(signal, Reject):
            record = None
            if not signal.requeue and not self._ignores(run):
                record = self._as_record(run, FAILURE, self._parts.documents.failure(signal, run.request, None))
            self._ended(plan, run, Ended(REJECTED, signal, runtime, einfo))
            return Rejected(record=record, runtime=runtime, reason=bounded_repr(signal), requeue=bool(signal.requeue))
        assert isinstance(signal, Retry)
        cause = signal.exc if signal.exc is not None else signal
        record = None
        if not self._ignores(run):
            document = self._parts.documents.failure(cause, run.request, einfo.traceback, RETRY)
            record = self._as_record(run, RETRY, document)
        run.task.on_retry(signal.exc, run.request.id, run.args, run.kwargs, einfo)
        self._ended(plan, run, Ended(RETRY, signal, runtime, einfo))
        return Retrying(record=record, runtime=runtime, reason=bounded_repr(signal))

    def _refuse(self, message: Message, exc: Exception) -> Outcome:
        """The message cannot be run at all: a dead letter, and a FAILURE for whoever waits."""
        logger.error("Task %s[%s] cannot be run: %r", message.task, message.id, exc)
        self._tell_broke(message, exc)
        return Rejected(record=self._failure_record(message, exc), reason=bounded_repr(exc))

    def _broke(self, run: Run, exc: Exception, runtime: float) -> Outcome:
        """Something around the task's body failed (`[task.56]`)."""
        logger.critical("Task %s[%s] INTERNAL ERROR: %r", run.task.name, run.request.id, exc, exc_info=True)
        self._tell_broke(run.message, exc)
        return Failure(record=self._failure_record(run.message, exc), runtime=runtime, reason=bounded_repr(exc))

    def _tell_broke(self, message: Message, exc: Exception) -> None:
        for gate, tell in self._tellers["broke"]:
            if gate.receivers:
                tell(message, exc)

    def _failure_record(self, message: Message, exc: Exception) -> Record:
        request = self._parts.context({"id": message.id, "task": message.task})
        document = self._parts.documents.failure(exc, request, self._parts.exception_info().traceback)
        return Record(message.id, FAILURE, document)

    # -- small parts -------------------------------------------------------------------------------------------------

    def _plan(self, name: str) -> _Plan:
        try:
            task = self._parts.tasks[name]
        except KeyError as exc:
            raise NotRegistered(name) from exc
        overrides = self._parts.overrides
        plan = self._plans[name] = _Plan(
            task=task,
            callable=task if overrides(task, "__call__") else None,
            before_start=task.before_start if overrides(task, "before_start") else None,
            on_success=task.on_success if overrides(task, "on_success") else None,
            after_return=task.after_return if overrides(task, "after_return") else None,
            track_started=bool(task.track_started),
        )
        return plan

    def _hook(self, run: Run, name: str, hook: Any, *args: Any) -> None:
        """A hook's error is logged and changes nothing (`[task.49]`), save `Reject` and MemoryError."""
        try:
            hook(*args)
        except (Reject, MemoryError):
            raise
        except Exception:
            logger.exception("Task %s[%s]: %s handler raised", run.task.name, run.request.id, name)

    def _ignores(self, run: Run) -> bool:
        """The call's own word beats the task's (`[task.42]`)."""
        if not self._parts.store_results:
            return True
        ignore = run.message.ignore_result
        return bool(run.task.ignore_result if ignore is None else ignore)

    def _as_record(self, run: Run, state: str, document: bytes) -> Record:
        return Record(run.request.id, state, document, run.request.reply_to or "")


def _portable(publication: Publication) -> tuple[str, str, bytes]:
    route = publication.route
    return (route.exchange, route.routing_key, publication.message.to_envelope())


def bounded_repr(exc: BaseException, limit: int = 1024) -> str:
    """The exception's repr, cut; what can be said of it where its own `__repr__` raises."""
    return repr_of(exc, limit)
