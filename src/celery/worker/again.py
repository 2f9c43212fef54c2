"""Application. What the main process makes of a run that died: a retry (`[task.37]`), or the record of one."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo

from celery import codecs, signals
from celery.app import trace
from celery.current import Context
from celery.exceptions import Retry
from celery.failures import repr_of
from celery.lifecycle import Ended, Run
from celery.message import Message, read_body
from celery.outcome import Record, Retrying
from celery.states import RETRY

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.documents import Documents

__all__ = ["Again"]

#: What a broker notes on a message that it moves; sent back it would take the new message for one going in circles.
_DEATHS = ("x-death", "x-first-death-", "x-last-death-")
#: Properties that belong to one delivery.
_OF_THE_DELIVERY = frozenset({"body_encoding", "delivery_info", "delivery_tag"})


class Again:
    """Makes the outcome of a run that was cut off by the death of its process: the message of the next attempt.

    The message is sent as it came, but for its headers: its body is not encoded anew. It goes out in the same step in
    which the old one is settled.
    """

    def __init__(self, app: Celery, documents: Documents) -> None:
        self._app, self._documents = app, documents
        self._tellers = trace.tellers(trace.LogLines())[RETRY]

    def __call__(self, message: Message, exc: BaseException) -> Retrying | None:
        """None if the attempts are used up: then it has failed."""
        task = self._app.tasks.get(message.task)
        if task is None:
            return None
        limit = getattr(task, "override_max_retries", None)
        limit = task.max_retries if limit is None else limit
        if limit is not None and message.retries >= limit:
            return None
        delay = task.default_retry_delay
        following = _next_attempt(message, dt.datetime.now(dt.UTC) + dt.timedelta(seconds=delay))
        run = self._read(task, message)
        retry = Retry(None, exc, delay)
        record = self._record(run, exc)
        self._tell(run, retry)
        follow = [(message.exchange, message.routing_key, following.to_envelope())]
        return Retrying(record, follow, reason=repr_of(retry))

    def cancelled(self, message: Message) -> Retrying | None:
        """The outcome of a run that we cut short and that nobody runs again (`[shutdown.6]`): state RETRY, and the
        signal `task_retry`. None if there is no such task."""
        task = self._app.tasks.get(message.task)
        if task is None:
            return None
        run = self._read(task, message)
        retry = Retry("the worker was stopped while this ran")
        signals.task_retry.send(sender=task, request=run.request, reason=retry, einfo=_info(retry))
        return Retrying(self._record(run, retry), reason=repr_of(retry))

    def _read(self, task: Any, message: Message) -> Run:
        """What hooks and signals are told of; without arguments where the body cannot be read here."""
        args: Any = ()
        kwargs: dict[str, Any] = {}
        embed: Any = {}
        try:
            body = message.body
            if compression := message.headers.get("compression"):
                body = codecs.decompress(body, compression)
            accept = codecs.accept_types(self._app.conf.accept_content)
            payload = codecs.decode(body, message.content_type, message.content_encoding, accept)
            args, kwargs, embed = read_body(payload)
        except Exception:  # noqa: BLE001 - the next attempt tells what is wrong with it
            trace.logger.debug("The body of %s[%s] cannot be read", message.task, message.id, exc_info=True)
        fields = {**message.headers, "args": args, "kwargs": kwargs, "called_directly": False}
        return Run(message, task, Context.adopt(fields), args, kwargs, embed)

    def _record(self, run: Run, exc: BaseException) -> Record | None:
        ignore = run.message.ignore_result
        if self._app.assembly.store is None or (run.task.ignore_result if ignore is None else ignore):
            return None
        return Record(
            run.message.id, RETRY, self._documents.failure(exc, run.request, None, RETRY), run.message.reply_to
        )

    def _tell(self, run: Run, retry: Retry) -> None:
        einfo = _info(retry)
        try:
            run.task.on_retry(retry.exc, run.request.id, run.args, run.kwargs, einfo)
        except Exception:  # noqa: BLE001 - it is logged, with its traceback
            trace.logger.exception("Task %s[%s]: on_retry handler raised", run.task.name, run.request.id)
        for gate, tell in self._tellers:
            if gate.receivers:
                tell(run, Ended(RETRY, retry, 0.0, einfo))


def _info(retry: Retry) -> ExceptionInfo:
    try:
        raise retry  # so that it has a traceback
    except Retry:
        return ExceptionInfo()


def _next_attempt(message: Message, due: dt.datetime) -> Message:
    headers = {key: value for key, value in message.headers.items() if not key.lower().startswith(_DEATHS)}
    headers |= {"retries": message.retries + 1, "eta": due.isoformat()}
    return Message(
        headers,
        message.body,
        properties={key: value for key, value in message.properties.items() if key not in _OF_THE_DELIVERY},
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        exchange=message.exchange,
        routing_key=message.routing_key,
    )
