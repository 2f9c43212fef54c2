"""Application. A task is run here and now, by the tracer of a worker ([task.31], [task.64], [task.65], [call.3])."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery import codecs, current
from celery.app.trace import LogLines
from celery.eager import EagerResult
from celery.exceptions import Reject, Retry
from celery.lifecycle import Ended, Latch
from celery.message import Message
from celery.pending import Pending
from celery.ports import Publication
from celery.producer import new_id
from celery.result import allow_join_result, denied_join_result, task_join_will_block
from celery.routing import Route
from celery.states import REJECTED, RETRY, STARTED
from celery.tracer import Tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.lifecycle import Run
    from celery.outcome import Outcome
    from celery.tracer_parts import Plan, TracerParts

__all__ = ["Eager"]


class Eager:
    """Runs tasks of one app here. `make_parts`: hostname and log lines → what a worker's tracer is made of."""

    def __init__(self, app: Celery, make_parts: Callable[[str, LogLines], TracerParts]) -> None:
        self._app = app
        self._make_parts = make_parts

    def send(self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> EagerResult[Any]:
        """What a call becomes under `task_always_eager`: the arguments as a worker would get them, the run here.

        Raises `EncodeError` for arguments that the serializer refuses.
        """
        serializer = options.get("serializer") or self._app.conf.task_serializer
        content_type, content_encoding, body = codecs.encode((tuple(args or ()), kwargs or {}), serializer)
        args, kwargs = codecs.decode(body, content_type, content_encoding, {content_type})
        with denied_join_result():
            result: EagerResult[Any] = task.apply(args, kwargs, **options)
        return result

    def apply(
        self, task: Any, args: Any, kwargs: Any, options: dict[str, Any], throw: bool | None, log: dict[str, Any]
    ) -> EagerResult[Any]:
        """See `Task.apply`. `log`: the request's `logfile` and `loglevel`."""
        task_id = options["task_id"] = options.get("task_id") or new_id()
        throw = self._app.conf.task_eager_propagates if throw is None else throw
        run = _EagerRun(self._app, task, options, log)
        ended = run.run(_message(task, args, kwargs, options), self._make_parts, bool(throw))
        if ended.state == RETRY and getattr(ended.value, "sig", None) is not None:
            again: EagerResult[Any] = ended.value.sig.apply()
            return again
        assert ended.state is not None  # else the process is being left
        traceback = None if ended.einfo is None else ended.einfo.traceback
        result: EagerResult[Any] = EagerResult(task_id, ended.value, ended.state, traceback, name=task.name)
        result._types = task._types
        return result


class _EagerRun:
    """One run: what it is made with, and how it ended."""

    _ended: Ended

    def __init__(self, app: Celery, task: Any, options: dict[str, Any], log: dict[str, Any]) -> None:
        self._app = app
        self._task = task
        self._options = options
        self._log = log
        self._lines = LogLines()
        self._stores = bool(task.store_eager_result)

    def run(self, message: Message, make_parts: Callable[[str, LogLines], TracerParts], throw: bool) -> Ended:
        """Run it, send what follows and save its record; nobody else will. Raises as `Task.apply` does."""
        self._lines.refresh()
        tracer = _EagerTracer(self._adapted(make_parts(socket.gethostname(), self._lines)), throw)
        # A task that is run here blocks no worker's process, unless this is one.
        with nullcontext() if task_join_will_block() else allow_join_result():
            outcome = tracer.run(message)
        self._lines.flush()
        if outcome.follow:
            self._app.assembly.producer.publish([_publication(*envelope) for envelope in outcome.follow])
        if outcome.record is not None and self._ended.state != REJECTED:
            self._save([outcome.record])
        return self._ended

    def _save(self, records: list[Any]) -> None:
        store = self._app.assembly.store
        wanted = [record for record in records if record.state != STARTED]  # [task.43]
        if self._stores and store is not None and wanted:
            store.save(wanted)

    def _adapted(self, parts: TracerParts) -> TracerParts:
        """A worker's parts, where there is no message to read, and a store only if the task wants one."""
        return replace(
            parts,
            tasks={self._task.name: self._task},
            context=cast("type[current.Context]", _Requests(self._app.Context, self._options, self._log)),
            decode=lambda body, _type, _encoding: body,
            save=self._save,
            pending=Pending(self._save),
            tellers={
                **parts.tellers,
                "REJECTED": [teller for teller in parts.tellers["REJECTED"] if isinstance(teller[0], Latch)],
                "finished": [*parts.tellers["finished"], (Latch(True), self._note)],
            },
            foreign=lambda task: None,
            around=lambda task: (None, None),
            succeeded=None,
            store_results=self._stores and parts.store_results,
        )

    def _note(self, run: Run, ended: Ended) -> None:
        self._ended = ended


class _Requests:
    """Makes the request of an eager run; in place of the class of requests."""

    def __init__(self, kind: type[current.Context], options: dict[str, Any], log: dict[str, Any]) -> None:
        self._kind = kind
        self._options = options
        self._log = log

    def __call__(self, *args: Any, **kwargs: Any) -> current.Context:
        return self._kind(*args, **kwargs)

    def adopt(self, fields: dict[str, Any]) -> current.Context:
        get = self._options.get
        fields.update(
            self._log,
            is_eager=True,
            timelimit=None,
            delivery_info={
                "is_eager": True,
                "exchange": get("exchange"),
                "routing_key": get("routing_key"),
                "priority": get("priority"),
            },
        )
        return self._kind.adopt(fields)


class _EagerTracer(Tracer):
    """Errors of hooks are the caller's ([task.49]).

    `throw`: so are those of the body, at once, before anybody else hears of them.
    """

    def __init__(self, parts: TracerParts, throw: bool) -> None:
        super().__init__(parts)
        self._throw = throw

    def _hook(self, run: Run, name: str, hook: Any, *args: Any) -> None:
        hook(*args)

    def _failed(self, plan: Plan, run: Run, exc: BaseException, begin: float) -> Outcome:
        if self._throw:
            raise exc
        return super()._failed(plan, run, exc, begin)

    def _signalled(self, plan: Plan, run: Run, signal: Exception, begin: float) -> Outcome:
        if self._throw and isinstance(signal, Retry):
            raise signal
        return super()._signalled(plan, run, signal, begin)

    def _refuse(self, message: Message, exc: Exception) -> NoReturn:
        raise exc

    def _broke(self, run: Run, exc: Exception, runtime: float) -> NoReturn:
        self._finish(run, Ended(None, None, runtime))
        self._tell("broke", run.message, run, exc)
        raise exc

    def _rejected_at_last(self, run: Run, signal: Reject, runtime: float) -> NoReturn:
        raise signal


def _message(task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Message:
    """The message that a worker would have got, with its body as it is: nothing is encoded."""
    get, task_id = options.get, options["task_id"]
    parent = current.current_request()
    headers: dict[str, Any] = {
        **(get("headers") or {}),
        "task": task.name,
        "id": task_id,
        "retries": get("retries") or 0,
        "root_id": task_id if parent is None else parent.root_id or parent.id,
        "parent_id": None if parent is None else parent.id,
    }
    if "ignore_result" in options:
        headers["ignore_result"] = options["ignore_result"]
    if stamped := get("stamped_headers"):
        headers["stamped_headers"] = stamped
        headers["stamps"] = {stamp: _as_list(get(stamp)) for stamp in stamped if stamp in options}
    embed = {"callbacks": _as_list(get("link")), "errbacks": _as_list(get("link_error"))}
    return Message(headers, cast("bytes", (args or (), kwargs or {}, embed)))


def _as_list(given: Any) -> list[Any] | None:
    if not given:
        return None
    return list(given) if isinstance(given, list | tuple) else [given]


def _publication(exchange: str, routing_key: str, envelope: bytes) -> Publication:
    return Publication(Message.from_envelope(envelope), Route(exchange, routing_key))
