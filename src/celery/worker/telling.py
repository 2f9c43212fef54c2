"""Application. Tellings of a worker's main process: log lines and signals (`[task.74]`, `[signal.11]` …)."""

from __future__ import annotations

import logging
import time
import warnings
from traceback import format_exception_only
from typing import TYPE_CHECKING, Any

from billiard.exceptions import TimeLimitExceeded

from celery import signals
from celery.app import trace
from celery.exceptions import CPendingDeprecationWarning, InvalidTaskError
from celery.lifecycle import SHUT, Latch
from celery.utils.log import flush_lines, line_writer
from celery.worker.consumer.deliveries import REFUSALS
from celery.worker.refusals import describe
from celery.worker.request import Received, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.base import Celery
    from celery.message import Message
    from celery.ports import Delivery
    from celery.worker.admission import Refuse
    from celery.worker.course import Course

__all__ = ["Telling"]

strategy_log = logging.getLogger("celery.worker.strategy")
consumer_log = logging.getLogger("celery.worker.consumer.consumer")
connection_log = logging.getLogger("celery.worker.consumer.connection")
request_log = logging.getLogger("celery.worker.request")

_STARTUP = (
    "The first connection is tried again because of the setting broker_connection_retry. Celery will read "
    "broker_connection_retry_on_startup for that, and nothing else: set it."
)
#: Seconds after which an unknown name is told of again.
_SAY_AGAIN = 60.0


class Telling:
    """The engine's observer in real workers. `consumer` is what signals name as their sender."""

    def __init__(
        self, app: Celery, url: str, on_ready: Callable[[], None], hostname: str = "", course: Course | None = None
    ) -> None:
        """`url`: the broker's, without its password. `course`: tells monitors, if anybody does."""
        self._app = app
        self._url = url
        self._on_ready = on_ready
        self.consumer: Any = None
        self.hostname = hostname
        self._quiet_until: dict[str, float] = {}
        self._says_received = strategy_log.isEnabledFor(logging.INFO)
        self._course: Any = course
        self._entry: Any = SHUT if course is None else course.entry
        self._enabled: Any = SHUT if course is None else course.enabled
        self.gates = (Latch(self._says_received), signals.task_received, self._entry)
        self._write = line_writer(strategy_log, logging.INFO)

    def received(self, messages: Sequence[Message]) -> None:
        if self._says_received:
            template = trace.LOG_RECEIVED
            write = self._write
            for message in messages:
                names = {"name": message.shadow or message.task, "id": message.id}
                if write is not None:
                    write(template % names)
                else:
                    self._log_received(template, message, names)
            flush_lines()  # before the pool gets them, whose processes write to the same file
        if signals.task_received.receivers:
            for message in messages:
                signals.task_received.send(sender=self.consumer, request=self._request(message))
        if self._entry.receivers:
            self._course.received(messages)

    def _log_received(self, template: str, message: Message, names: dict[str, Any]) -> None:
        headers = message.headers
        names["args"], names["kwargs"] = headers.get("argsrepr"), headers.get("kwargsrepr")
        names["eta"] = message.eta
        strategy_log.info(template, names, extra={"data": names})

    def refused(self, delivery: Delivery, refusal: Refuse) -> None:
        severity, text = describe(delivery, refusal)
        consumer_log.log(severity, "%s", text)
        message = Received(delivery.message, delivery.queue) if delivery.message is not None else delivery
        exc = REFUSALS.get(refusal.kind, InvalidTaskError)(refusal.reason)
        if refusal.kind == "unknown" and delivery.message is not None:
            signals.task_unknown.send(
                sender=self.consumer, name=refusal.reason, id=delivery.message.id, message=message, exc=exc
            )
            if self._enabled.receivers:
                self._course.failed(delivery.message, f"NotRegistered({refusal.reason!r})")
        else:
            signals.task_rejected.send(sender=self.consumer, message=message, exc=exc)

    def unknown(self, message: Message, seconds: float) -> None:
        now = time.monotonic()
        if now >= self._quiet_until.get(message.task, 0.0):
            self._quiet_until[message.task] = now + _SAY_AGAIN
            consumer_log.warning(
                "There is no task %r here. Its messages stay on the queue for workers that know it; "
                "see worker_unknown_task_grace.",
                message.task,
            )

    def dropped(self, message: Message, why: str) -> None:
        request_log.info("Discarding revoked task: %s[%s]", message.shadow or message.task, message.id)
        self._revoked(message, expired=why == "expired")

    def terminated(self, message: Message, signum: int) -> None:
        request_log.warning("Revoked task ended by signal %d: %s[%s]", signum, _shown(message), message.id)
        self._revoked(message, terminated=True, signum=signum)

    def _revoked(
        self, message: Message, *, terminated: bool = False, signum: int | None = None, expired: bool = False
    ) -> None:
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=self._app.tasks.get(message.task),
                request=self._context(message),
                terminated=terminated,
                signum=signum,
                expired=expired,
            )
        if self._enabled.receivers:
            self._course.revoked(message, terminated=terminated, signum=signum, expired=expired)

    def soft_limit(self, message: Message, limit: float) -> None:
        name = message.shadow or message.task
        request_log.warning("Soft time limit (%ss) exceeded for %s[%s]", limit, name, message.id)

    def hard_limit(self, message: Message, limit: float) -> None:
        name = message.shadow or message.task
        request_log.error("Hard time limit (%ss) exceeded for %s[%s]", limit, name, message.id)
        if self._enabled.receivers:
            self._failed(message, TimeLimitExceeded(limit))

    def lost(self, message: Message, exc: BaseException, *, goes_back: bool = False) -> None:
        request_log.error("Task handler raised error: %r (%s[%s])", exc, message.task, message.id)
        if self._enabled.receivers:
            if goes_back:
                self._course.rejected(message, requeue=True)
            else:
                self._failed(message, exc)

    def tried_again(self, message: Message, exc: BaseException) -> None:
        if self._enabled.receivers:
            self._course.retried(message, exc)

    def _failed(self, message: Message, exc: BaseException) -> None:
        self._course.failed(message, exc, "".join(format_exception_only(exc)))

    def cut_short(self, message: Message, *, goes_back: bool) -> None:
        what = "It goes back to its queue." if goes_back else "It was acknowledged when it began: nobody runs it again."
        request_log.warning("Task %s[%s] cut short: this worker stops. %s", _shown(message), message.id, what)
        if self._enabled.receivers:
            self._course.cancelled(message)

    def connecting_failed(self, exc: BaseException, attempt: int, limit: int | None, seconds: float) -> None:
        if attempt == 1 and self._app.conf.broker_connection_retry_on_startup is None:
            warnings.warn(_STARTUP, CPendingDeprecationWarning, stacklevel=2)
        tries = f"{attempt}/{limit}" if limit else str(attempt)
        consumer_log.error(
            "consumer: Cannot connect to %s: %s.\nTrying again in %.2f seconds... (%s)\n",
            self._url,
            str(exc).rstrip("."),
            seconds,
            tries,
        )

    def connected(self) -> None:
        connection_log.info("Connected to %s", self._url)

    def ready(self) -> None:
        self._on_ready()

    def trouble(self, exc: BaseException, seconds: float) -> None:
        if seconds:
            consumer_log.warning(
                "consumer: Connection lost: %s. Trying again in %.2f seconds; running tasks go on.",
                str(exc).rstrip("."),
                seconds,
            )
        else:
            consumer_log.warning("consumer: Cannot settle the last outcomes: %s", exc)

    def recovered(self) -> None:
        self.connected()

    def flush(self) -> None:
        flush_lines()

    def _request(self, message: Message) -> Any:
        return Request(Received(message), app=self._app, hostname=self.hostname)

    def _context(self, message: Message) -> Any:
        info = {"exchange": message.exchange, "routing_key": message.routing_key, "priority": message.priority}
        return self._app.Context({**message.headers, "delivery_info": info})


def _shown(message: Message) -> str:
    return message.shadow or message.task
