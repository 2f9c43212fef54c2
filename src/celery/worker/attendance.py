"""Application. Requests of tasks' own classes take part in the runs of those tasks (`[task.59]`)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo

from celery import documents
from celery.exceptions import Ignore, Reject, Retry
from celery.outcome import Failure, Ignored, Rejected, Retrying
from celery.utils.imports import symbol_by_name
from celery.worker import state
from celery.worker.request import Request, create_request_cls, request_of
from celery.worker.settlement import ACK, REJECT, REQUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.outcome import Outcome
    from celery.worker.consumer.deliveries import Held

__all__ = ["Attendance", "has_own_request", "request_class"]

logger = logging.getLogger("celery.worker.request")

_DEFAULT = "celery.worker.request:Request"


def request_class(task: Any) -> type[Request]:
    """The class that the task names, by a path or by itself."""
    found: type[Request] = symbol_by_name(task.Request)
    return found


def has_own_request(task: Any) -> bool:
    """Whether there is anything in the task's request class that has to be called."""
    return task.Request != _DEFAULT and request_class(task) is not Request


class Attendance:
    """The engine's `Attendant`. As in Celery (observed), `on_accepted`, `on_failure`, `on_retry` and `on_timeout` of
    the class are called; `on_success` and `execute_using_pool` are the worker's own affair."""

    def __init__(self, app: Any, hostname: str | None, serializer: str) -> None:
        """`serializer`: that of the records, in which exceptions come back from the pool."""
        self._app, self._hostname, self._serializer = app, hostname, serializer
        self._classes: dict[str, type[Request]] = {}

    def attend(self, held: Held) -> Request:
        name = held.message.task
        cls = self._classes.get(name)
        if cls is None:
            task = self._app.tasks[name]
            cls = create_request_cls(request_class(task), task, None, self._hostname, None, app=self._app)
            self._classes[name] = cls
        return request_of(held, self._app, self._hostname, cls)

    def begun(self, held: Held, pid: int | None) -> str | None:
        return _asked(held, lambda: held.request.on_accepted(pid, time.time()))

    def ended(self, held: Held, outcome: Outcome) -> str | None:
        exc = self._raised(outcome)
        if exc is None:
            state.task_ready(held.request, successful=True)
            return None
        return _asked(held, lambda: held.request.on_failure(_info(exc), return_ok=True))

    def timed_out(self, held: Held, limit: float, *, soft: bool) -> str | None:
        return _asked(held, lambda: held.request.on_timeout(soft, limit))

    def failed(self, held: Held, exc: BaseException) -> str | None:
        return _asked(held, lambda: held.request.on_failure(_info(exc)))

    def _raised(self, outcome: Outcome) -> BaseException | None:
        """What the run raised, as far as its record tells; None if it succeeded."""
        if isinstance(outcome, Ignored):
            return Ignore()
        if isinstance(outcome, Rejected):
            return Reject(outcome.reason, requeue=outcome.requeue)
        if isinstance(outcome, Retrying):
            return Retry(outcome.reason, exc=self._recorded(outcome))
        if isinstance(outcome, Failure):
            return self._recorded(outcome) or Exception(outcome.reason)
        return None

    def _recorded(self, outcome: Outcome) -> Any:
        if outcome.record is None:
            return None
        try:
            found = documents.decode(outcome.record.meta, self._serializer, None).get("result")
        except Exception:  # noqa: BLE001 - whatever a decoder raises: the text is what is left
            return None
        return found if isinstance(found, BaseException) else None


def _asked(held: Held, tell: Callable[[], Any]) -> str | None:
    """What the request asks for while it is told something. What it raises is logged, and changes nothing."""
    asked: list[str] = []
    request = held.request
    request.on_ack = lambda *_: asked.append(ACK)
    request.on_reject = lambda log, errors, requeue=False: asked.append(REQUEUE if requeue else REJECT)
    try:
        tell()
    except Exception:
        logger.exception("Task %s: its request class raised", request.humaninfo())
    return asked[0] if asked else None


def _info(exc: BaseException) -> ExceptionInfo:
    try:
        raise exc  # so that it has a traceback, which is asked for
    except BaseException:  # noqa: BLE001 - it is what is to be shown
        return ExceptionInfo()
