"""Application. `task-sent` events: a client tells monitors what it has sent (`[event.2]`, `[call.29]`)."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from celery.lifecycle import Latch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.app.base import Celery
    from celery.producer import Sketch

__all__ = ["SentEvents"]

logger = logging.getLogger("celery.events")


class SentEvents:
    """Tells of messages that were sent, where the setting `task_send_sent_event` asks for it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.gate = Latch(bool(app.conf.task_send_sent_event))
        self._dispatcher: Any = None
        self._pid = 0

    def tell(self, sketches: Sequence[Sketch]) -> None:
        """One event each; several in one message. A call that is on its way does not fail for want of its event."""
        try:
            dispatcher = self._own_dispatcher()
            if len(sketches) == 1:
                dispatcher.send("task-sent", **_fields(sketches[0]))
            else:
                dispatcher.send_all("task-sent", [_fields(sketch) for sketch in sketches])
        except Exception as exc:  # noqa: BLE001 - whatever a broker raises
            logger.warning("%d task-sent events cannot be sent: %s", len(sketches), exc)

    def _own_dispatcher(self) -> Any:
        """Of this process: a forked child has another name."""
        if self._dispatcher is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._dispatcher = self._app.events.Dispatcher(buffer_while_offline=False)
        return self._dispatcher


def _fields(sketch: Sketch) -> dict[str, Any]:
    headers, route = sketch.headers, sketch.route
    names = ("root_id", "parent_id", "retries", "eta", "expires")
    return {
        "uuid": headers["id"],
        "name": headers["task"],
        "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"],
        **{name: headers[name] for name in names},
        "queue": route.queue.name if route.queue is not None else route.routing_key if not route.exchange else "",
        "exchange": route.exchange,
        "routing_key": route.routing_key,
    }
