"""Application. Tellings of a worker's main process: log lines and signals (`[task.74]`, `[signal.11]` …)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app import trace
from celery.lifecycle import Latch
from celery.utils.log import flush_lines, line_writer
from celery.worker.refusals import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.base import Celery
    from celery.message import Message
    from celery.ports import Delivery
    from celery.worker.admission import Refuse

__all__ = ["Telling"]

strategy_log = logging.getLogger("celery.worker.strategy")
consumer_log = logging.getLogger("celery.worker.consumer.consumer")
connection_log = logging.getLogger("celery.worker.consumer.connection")
request_log = logging.getLogger("celery.worker.request")


class Telling:
    """The engine's observer in real workers. `consumer` is what signals name as their sender."""

    def __init__(self, app: Celery, url: str, on_ready: Callable[[], None]) -> None:
        """`url`: the broker's, without its password."""
        self._app = app
        self._url = url
        self._on_ready = on_ready
        self.consumer: Any = None
        self._says_received = strategy_log.isEnabledFor(logging.INFO)
        self.gates = (Latch(self._says_received), signals.task_received)
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

    def _log_received(self, template: str, message: Message, names: dict[str, Any]) -> None:
        headers = message.headers
        names["args"], names["kwargs"] = headers.get("argsrepr"), headers.get("kwargsrepr")
        names["eta"] = message.eta
        strategy_log.info(template, names, extra={"data": names})

    def refused(self, delivery: Delivery, refusal: Refuse) -> None:
        severity, text = describe(delivery, refusal)
        consumer_log.log(severity, "%s", text)
        message = delivery.message if delivery.message is not None else delivery
        exc = ValueError(refusal.reason)
        if refusal.kind == "unknown" and delivery.message is not None:
            signals.task_unknown.send(
                sender=self.consumer, name=refusal.reason, id=delivery.message.id, message=message, exc=exc
            )
        else:
            signals.task_rejected.send(sender=self.consumer, message=message, exc=exc)

    def expired(self, message: Message) -> None:
        request_log.info("Discarding revoked task: %s[%s]", message.shadow or message.task, message.id)
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=self._app.tasks.get(message.task),
                request=self._request(message),
                terminated=False,
                signum=None,
                expired=True,
            )

    def lost(self, message: Message, exc: BaseException) -> None:
        request_log.error("Task handler raised error: %r (%s[%s])", exc, message.task, message.id)
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=self._app.tasks.get(message.task),
                task_id=message.id,
                exception=exc,
                args=(),
                kwargs={},
                traceback=None,
                einfo=None,
            )

    def connecting_failed(self, exc: BaseException, attempt: int, limit: int | None, seconds: float) -> None:
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
        info = {"exchange": message.exchange, "routing_key": message.routing_key, "priority": message.priority}
        return self._app.Context({**message.headers, "name": message.task, "delivery_info": info})
