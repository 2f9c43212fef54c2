"""Flow. A message is run and comes to an outcome.

`Tracer.run` is the whole story: read the message, tell that the run starts, call the task, make its record, continue
with what follows from it, tell how it ended. User code is called in `_call` and in the task's own hooks, nowhere else.
The order of tellings is `[task.51]`'s. A record is held back until the run is over, and saved at once for whoever looks
(`pending`).
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, NotRegistered, Reject, Retry
from celery.failures import repr_of, substitute_for
from celery.lifecycle import MOMENTS, Ended, Run
from celery.message import read_body
from celery.outcome import Failure, Ignored, Outcome, Record, Rejected, Retrying, Success
from celery.states import FAILURE, IGNORED, REJECTED, RETRY, STARTED, SUCCESS
from celery.tracer_parts import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.lifecycle import Gate
    from celery.message import Message
    from celery.ports import Publication
    from celery.tracer_parts import TracerParts

__all__ = ["Tracer"]

logger = logging.getLogger("celery.app.trace")


class _Defusing(logging.Filter):
    """Formatters find the text of an exception that would break them, or that is far too long, written."""

    #: Lines without an exception may be written without asking this filter (`utils.log.line_writer`).
    minds_exceptions_only = True

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = substitute_for(record.exc_info[1])
        return True


logger.addFilter(_Defusing())


class Tracer:
    """Runs messages in one process. Not shared between threads that run at once, save through `run`, which is safe."""

    def __init__(self, parts: TracerParts) -> None:
        self._parts = parts
        self._tellers: dict[str, Sequence[tuple[Gate, Callable[..., None]]]]
        self._tellers = {moment: tuple(parts.tellers.get(moment, ())) for moment in MOMENTS}
        self._plans: dict[str, Plan] = {}
        self._held = parts.pending.records
        self._watched = parts.watched

    def run(self, message: Message) -> Outcome:
        """Run the task of a message. Raises nothing but `SystemExit`, `KeyboardInterrupt`, and a hook's MemoryError."""
        try:
            plan = self._plans.get(message.task) or self._plan(message.task)
            run = self._read(plan.task, message)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a message must not stop the next one
            return self._refuse(message, exc)
        if message.redelivered and plan.deduplicate:
            known = self._known(run)
            if known is not None:
                return known
        if plan.foreign is not None:
            return self._hand_over(plan.foreign, run)
        return self._walk(plan, run)

    def run_as(self, plan: Plan, run: Run) -> Outcome:
        """Run what did not come as a message of its own. `run.ended` then tells how it ended."""
        return self._walk(plan, run)

    def _walk(self, plan: Plan, run: Run) -> Outcome:
        run.request._gathered = ()  # whoever asked for this run settles it
        self._parts.enter(run.task, run.request)
        begin = perf_counter()
        try:
            outcome = self._run(plan, run, begin)
        except Reject as signal:
            outcome = self._rejected_at_last(run, signal, perf_counter() - begin)
        except (SystemExit, KeyboardInterrupt, MemoryError):
            self._leaving(run, perf_counter() - begin)
            raise
        except Exception as exc:  # noqa: BLE001 - listeners and hooks must not stop the next one
            outcome = self._broke(run, exc, perf_counter() - begin)
        finally:
            self._parts.leave(run.task)
            if plan.cleanup is not None:
                plan.cleanup()
        if run.request._gathered:  # the next attempt of a run that is to be tried again, or what takes its place
            if run.request._added and run.further is None:
                self._parts.grow(run.request.group, run.request._added)
            outcome.follow = [*outcome.follow, *_portable(run.request._gathered.publications)]
        if self._watched.receivers:
            outcome.told = self._parts.shown(run)
        return outcome

    def _run(self, plan: Plan, run: Run, begin: float) -> Outcome:
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
        children = 0
        try:
            request = run.request
            if request.callbacks or request.chain:
                children = len(request.children)
                run.follow = self._continue(request, value)
            if request.chord:
                run.further = self._parts.further(run, SUCCESS, value, None)
            record = None if self._ignores(run) else self._record(run, value)
        except Exception as exc:  # noqa: BLE001 - what cannot be encoded or published is a failure ([task.52], [task.54])
            if run.request.callbacks or run.request.chain:
                del run.request.children[children:]  # what follows is not sent
            return self._failed(plan, run, exc, begin)
        run.ended = ended
        if record is not None:
            self._held[record.id] = record
        if plan.on_success is not None:
            self._hook(run, "on_success", plan.on_success, value, run.request.id, run.args, run.kwargs)
        self._ended(plan, run, ended)
        kept = self._held.pop(record.id, None) if record is not None else None
        return Success(kept, run.follow, ended.runtime, further=run.further)

    def aftermath(self, message: Message, exc: BaseException, *, hooks: bool = True) -> Failure:
        """What a failure leaves behind that was seen from outside: a hard time limit, the death of the process.

        In the order of `[task.51]`: the record, errbacks, the task's `on_failure` and `after_return` (unless `hooks` is
        false), the `task_failure` signal. The log line is the caller's. Never raises; the outcome is to be settled
        like that of a run.
        """
        run = self._read_lost(message)
        task = run.task
        try:
            raise exc
        except BaseException:  # noqa: BLE001 - raised here so that it has a traceback
            einfo = self._parts.exception_info()
        if task is None:
            return Failure(self._failure_record(message, exc, None), reason=repr_of(exc))
        self._parts.enter(task, run.request)
        try:
            self._fail(run, exc, None)
            ended = Ended(FAILURE, exc, 0.0, einfo)
            if hooks:
                details = (run.request.id, run.args, run.kwargs, einfo)
                self._hook(run, "on_failure", task.on_failure, exc, *details)
                self._hook(run, "after_return", task.after_return, FAILURE, exc, *details)
            self._tell("lost", run, ended)
        except (Reject, MemoryError) as raised:
            logger.error("Task %s[%s]: a hook raised %r after %r", task.name, message.id, raised, exc)
        finally:
            self._parts.leave(task)
        record = self._held.pop(message.id, None)
        return Failure(record, run.follow, 0.0, repr_of(exc), _acknowledges(task), further=run.further)

    def fallout(self, message: Message, state: str, exc: BaseException) -> Failure | None:
        """What it means for a message's flow that it ends here without a run, in that state with that exception: a
        message that is refused, revoked or expired. The record of the task itself is the caller's. Never raises."""
        run = self._read_lost(message)
        request = run.request
        errbacks = request.errbacks if state == FAILURE else None
        if not (request.chord or request.chain or errbacks):
            return None
        try:
            run.further = self._parts.further(run, state, exc, None)
            run.follow = _portable(self._parts.errbacks(request, exc, None)) if errbacks else []
        except Exception:
            logger.exception("Task %s[%s]: its flow cannot be told that it ended", message.task, message.id)
        return Failure(None, run.follow, further=run.further)

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
            "timelimit": list(message.timelimit),
            "properties": properties,
            "reply_to": message.reply_to or None,
            "correlation_id": properties.get("correlation_id"),
            "hostname": self._parts.hostname,
            "delivery_info": {
                "exchange": message.exchange,
                "routing_key": message.routing_key,
                "priority": properties.get("priority", message.priority),
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

    def _started(self, plan: Plan, run: Run) -> None:
        for gate, tell in self._tellers["started"]:
            if gate.receivers:
                tell(run)
        if plan.init is not None:
            plan.init(run.request.id, run.task)
        if plan.track_started and not self._ignores(run):
            meta = {"pid": self._parts.pid(), "hostname": self._parts.hostname}
            document = self._parts.documents.write(STARTED, meta, run.request)
            self._parts.save([self._as_record(run, STARTED, document)])
        if plan.before_start is not None:
            plan.before_start(run.request.id, run.args, run.kwargs)

    def _call(self, plan: Plan, run: Run) -> Any:
        """The one place where a task's body is called."""
        return (plan.callable or run.task.run)(*run.args, **run.kwargs)

    def _continue(self, request: Any, value: Any) -> list[tuple[str, str, bytes]]:
        """The messages that follow from success: one for each `link`, and the next of the chain."""
        found: list[Publication] = []
        if request.callbacks:
            found += self._parts.callbacks(request.callbacks, value)
        if request.chain:
            found += self._parts.next(request, value)
        return _portable(found)

    def _record(self, run: Run, value: Any) -> Record:
        return self._as_record(run, SUCCESS, self._parts.documents.success(value, run.request))

    def _ended(self, plan: Plan, run: Run, ended: Ended) -> None:
        """Everybody hears how it ended; then `after_return`, then the end of the run itself."""
        run.ended = ended
        for gate, tell in self._tellers[ended.state]:  # type: ignore[index]
            if gate.receivers:
                tell(run, ended)
        if plan.after_return is not None and ended.state in (SUCCESS, FAILURE):
            request = run.request
            details = (ended.state, ended.value, request.id, run.args, run.kwargs, ended.einfo)
            self._hook(run, "after_return", plan.after_return, *details)
        run.finished = True
        for gate, tell in self._tellers["finished"]:
            if gate.receivers:
                tell(run, ended)

    def _tell(self, moment: str, *what: Any) -> None:
        for gate, tell in self._tellers[moment]:
            if gate.receivers:
                tell(*what)

    # -- other endings -----------------------------------------------------------------------------------------------

    def _failed(self, plan: Plan, run: Run, exc: BaseException, begin: float) -> Outcome:
        einfo = self._parts.exception_info()
        runtime = perf_counter() - begin
        self._fail(run, exc, einfo.traceback)
        run.ended = Ended(FAILURE, exc, runtime, einfo)
        run.task.on_failure(exc, run.request.id, run.args, run.kwargs, einfo)
        self._ended(plan, run, run.ended)
        record = self._held.pop(run.request.id, None)
        kept = "" if plan.acknowledge else einfo.traceback  # by the dead letter, if it becomes one
        return Failure(record, run.follow, runtime, repr_of(exc), plan.acknowledge, kept, further=run.further)

    def _fail(self, run: Run, exc: BaseException, traceback: str | None) -> None:
        """Make the record of a failure, then call the errbacks; their messages take the place of any callbacks'."""
        request = run.request
        run.follow, run.further = [], None
        if not self._ignores(run) or (run.task.store_errors_even_if_ignored and self._parts.store_results):
            document = self._parts.documents.failure(exc, run.request, traceback)
            self._held[run.request.id] = self._as_record(run, FAILURE, document)
        if request.chord or request.chain:
            run.further = self._parts.further(run, FAILURE, exc, traceback)
        if request.errbacks:
            run.follow = _portable(self._parts.errbacks(request, exc, traceback))

    def _signalled(self, plan: Plan, run: Run, signal: Exception, begin: float) -> Outcome:
        """`Retry`, `Ignore` and `Reject` say what the outcome is; they are no failures."""
        runtime = perf_counter() - begin
        if isinstance(signal, Ignore):
            self._ended(plan, run, Ended(IGNORED, signal, runtime))
            return Ignored(runtime=runtime)
        einfo = self._parts.exception_info()
        if isinstance(signal, Reject):
            if not signal.requeue and not self._ignores(run):
                document = self._parts.documents.failure(signal, run.request, None)
                self._held[run.request.id] = self._as_record(run, FAILURE, document)
            if not signal.requeue and (run.request.chord or run.request.chain):
                run.further = self._parts.further(run, FAILURE, signal, None)
            self._ended(plan, run, Ended(REJECTED, signal, runtime, einfo))
            record, reason = self._held.pop(run.request.id, None), repr_of(signal)
            return Rejected(record, [], runtime, reason, bool(signal.requeue), einfo.traceback, further=run.further)
        assert isinstance(signal, Retry)
        cause = signal.exc if signal.exc is not None else signal
        if not self._ignores(run):
            document = self._parts.documents.failure(cause, run.request, einfo.traceback, RETRY)
            self._held[run.request.id] = self._as_record(run, RETRY, document)
        run.task.on_retry(signal.exc, run.request.id, run.args, run.kwargs, einfo)
        self._ended(plan, run, Ended(RETRY, signal, runtime, einfo))
        return Retrying(self._held.pop(run.request.id, None), [], runtime, repr_of(signal))

    def _rejected_at_last(self, run: Run, signal: Reject, runtime: float) -> Outcome:
        """A hook has raised `Reject` (`[task.49]`): the message is rejected, the state that was reached stays."""
        ended = Ended(REJECTED, signal, runtime, self._parts.exception_info())
        self._tell(REJECTED, run, ended)
        self._finish(run, ended)
        record, further = self._held.pop(run.request.id, None), None if signal.requeue else run.further
        return Rejected(record, run.follow, runtime, repr_of(signal), bool(signal.requeue), further=further)

    def _leaving(self, run: Run, runtime: float) -> None:
        """The process is to be left from inside a run: a state that was reached already is saved, not lost."""
        self._finish(run, Ended(None, None, runtime))
        self._parts.pending.reveal((run.request.id,))

    def _finish(self, run: Run, ended: Ended) -> None:
        """Tell the end of a run that did not come there by itself (`[signal.6]`): what was known of it, or this."""
        if not run.finished:
            run.finished = True
            run.ended = run.ended or ended
            self._tell("finished", run, run.ended)

    def _hand_over(self, foreign: Callable[[Run], Outcome], run: Run) -> Outcome:
        begin = perf_counter()
        try:
            return foreign(run)
        except Exception as exc:  # noqa: BLE001 - as in `run`
            return self._broke(run, exc, perf_counter() - begin)

    def _known(self, run: Run) -> Outcome | None:
        """What is redelivered may have succeeded before: then it is not run again, but followed up (`[task.70]`)."""
        assert self._parts.succeeded is not None
        document = self._parts.succeeded(run.message.id)
        if document is None:
            return None
        logger.info("Task %s[%s] already completed successfully: not run again", run.task.name, run.message.id)
        request, value = run.request, document.get("result")
        self._parts.enter(run.task, request)
        try:
            further = self._parts.further(run, SUCCESS, value, None) if request.chord else None
            return Success(None, [] if document.get("children") else self._continue(request, value), further=further)
        except Exception as exc:  # noqa: BLE001 - the state is final; all that can be done is to say it
            return self._broke(run, exc, 0.0)
        finally:
            self._parts.leave(run.task)

    def _refuse(self, message: Message, exc: Exception) -> Outcome:
        """The message cannot be run at all: a dead letter, and a FAILURE for whoever waits."""
        logger.error("Task %s[%s] cannot be run: %r", message.task, message.id, exc)
        self._tell("broke", message, None, exc)
        traceback = self._parts.exception_info().traceback
        record = self._failure_record(message, exc, traceback)
        fallout = self.fallout(message, FAILURE, exc) or Failure()
        return Rejected(record, fallout.follow, reason=repr_of(exc), traceback=traceback, further=fallout.further)

    def _broke(self, run: Run, exc: Exception, runtime: float) -> Outcome:
        """Something around the task's body failed (`[task.56]`)."""
        logger.critical("Task %s[%s] INTERNAL ERROR: %r", run.task.name, run.request.id, exc, exc_info=True)
        traceback = self._parts.exception_info().traceback
        broken = Ended(FAILURE, exc, runtime, None)
        self._finish(run, broken)
        run.ended = broken
        self._tell("broke", run.message, run, exc)
        self._held.pop(run.request.id, None)
        record = self._failure_record(run.message, exc, traceback)
        if run.further is None and not run.follow:
            run.further = (self.fallout(run.message, FAILURE, exc) or Failure()).further
        return Failure(record, run.follow, runtime, repr_of(exc), _acknowledges(run.task), further=run.further)

    def _failure_record(self, message: Message, exc: BaseException, traceback: str | None) -> Record | None:
        if not self._parts.store_results:
            return None
        request = self._parts.context({"id": message.id, "task": message.task})
        document = self._parts.documents.failure(exc, request, traceback)
        return Record(message.id, FAILURE, document, message.reply_to)

    def _read_lost(self, message: Message) -> Run:
        """As `_read`; without arguments where they cannot be read, with task None where it is not known here."""
        try:
            return self._read(self._parts.tasks.get(message.task), message)
        except Exception:  # noqa: BLE001 - that it failed is to be told all the same
            request = self._parts.context({**message.headers, "called_directly": False, "args": (), "kwargs": {}})
            return Run(message, self._parts.tasks.get(message.task), request, (), {}, {})

    # -- small parts -------------------------------------------------------------------------------------------------

    def _plan(self, name: str) -> Plan:
        try:
            task = self._parts.tasks[name]
        except KeyError as exc:
            raise NotRegistered(name) from exc
        foreign = self._parts.foreign(task)  # asked first: it may wrap the task
        plan = self._plans[name] = self.plan_of(task)
        plan.foreign = foreign
        return plan

    def plan_of(self, task: Any) -> Plan:
        """What is to be known of a task to run it; the task may be anything that looks like one."""
        overrides = self._parts.overrides
        init, cleanup = self._parts.around(task)
        return Plan(
            task=task,
            callable=task if overrides(task, "__call__") else None,
            before_start=task.before_start if overrides(task, "before_start") else None,
            on_success=task.on_success if overrides(task, "on_success") else None,
            after_return=task.after_return if overrides(task, "after_return") else None,
            track_started=bool(task.track_started),
            acknowledge=_acknowledges(task),
            foreign=None,
            deduplicate=self._parts.succeeded is not None and bool(task.acks_late),
            init=init,
            cleanup=cleanup,
        )

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


def _portable(publications: Sequence[Publication]) -> list[tuple[str, str, bytes]]:
    """As they cross to the main process. Where they go may stand in a callback: a sender may have written anything."""
    return [(str(one.route.exchange), str(one.route.routing_key), one.message.to_envelope()) for one in publications]


def _acknowledges(task: Any) -> bool:
    return task.acks_on_failure is not False
