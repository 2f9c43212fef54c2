"""Application. What a producer asks of its app: who hears of a message (`[signal.3]`), where replies go."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.adapters import scheme_of
from celery.result import task_join_will_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from celery.app.base import Celery
    from celery.app.sent_events import SentEvents
    from celery.producer import Sketch
    from celery.routing import QueueSpec

__all__ = ["Address", "PublishSignals", "ReplyQueue", "address_of"]


class PublishSignals:
    """Tells receivers of a message, before (they may change it in place) and after it is sent; and monitors."""

    def __init__(self, kombu_queue: Callable[[QueueSpec], Any], events: SentEvents) -> None:
        self._kombu_queue = kombu_queue
        self._events = events
        self.before = (signals.before_task_publish,)
        self.after = (signals.after_task_publish, signals.task_sent, events.gate)

    def publishing(self, sketch: Sketch) -> None:
        queue = sketch.route.queue
        signals.before_task_publish.send(
            sender=sketch.call.name,
            body=sketch.body,
            exchange=sketch.route.exchange,
            routing_key=sketch.route.routing_key,
            declare=[] if queue is None or not queue.declare else [self._kombu_queue(queue)],
            headers=sketch.headers,
            properties=sketch.properties,
            retry_policy=sketch.retry_policy,
        )

    def published(self, *sketches: Sketch) -> None:
        for sketch in sketches:
            self._send_signals(sketch)
        if self._events.gate.receivers:
            self._events.tell(sketches)

    def _send_signals(self, sketch: Sketch) -> None:
        if signals.after_task_publish.receivers:
            signals.after_task_publish.send(
                sender=sketch.call.name,
                body=sketch.body,
                headers=sketch.headers,
                exchange=sketch.route.exchange,
                routing_key=sketch.route.routing_key,
            )
        if signals.task_sent.receivers:
            signals.task_sent.send(
                sender=sketch.call.name,
                task_id=sketch.headers["id"],
                task=sketch.call.name,
                args=sketch.call.args,
                kwargs=sketch.call.kwargs,
                eta=sketch.headers["eta"],
                taskset=sketch.headers["group"],
            )


class Address(threading.local):
    """Where replies to this thread go: `text`, looked up once in each thread."""

    def __init__(self, app: Celery) -> None:
        self.text: str = app.thread_oid

    def of(self, other: str | None) -> AbstractContextManager[None]:
        """See `ReplyQueue.of`; results do not go by addresses here."""
        return nullcontext()


class ReplyQueue:
    """Where replies go that are results (`rpc://`): one queue for all threads of a process.

    Within a task it is not there unless the task may wait for what it sends: replies that nobody reads are dropped.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._here = threading.local()

    @property
    def text(self) -> str:
        """Raises `OperationalError` if the queue is not there and cannot be declared now."""
        store = self._store
        if task_join_will_block():
            name: str = self._here.__dict__.get("other") or store.name()
        else:
            name = store.address()
        return name

    @contextmanager
    def of(self, other: str | None) -> Iterator[None]:
        """What this thread sends meanwhile is for whoever waits there: it stands in the place of what he has sent."""
        self._here.other = other
        try:
            yield
        finally:
            self._here.other = None


def address_of(app: Celery) -> Address | ReplyQueue:
    """Where replies to what this app sends go."""
    if scheme_of(str(app.conf.result_backend or "")) == "rpc":
        return ReplyQueue(app.assembly.adapter)
    return Address(app)
