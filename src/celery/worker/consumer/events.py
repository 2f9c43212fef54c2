"""Application. Everything of a worker that has to do with events: what it tells, its heart, gossip and mingle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from celery.ports import Broadcasting
from celery.utils.timer2 import Timer
from celery.worker import state
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle
from celery.worker.course import Course
from celery.worker.heartbeat import Heart
from celery.worker.parts import left
from celery.worker.watched import shared_gate

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ["Events"]


class Events:
    """A part of the worker. It begins once the broker has answered, and ends after the engine: what the last tasks
    came to is told too.

    Task events are told while the dispatcher's `groups` are empty or have "task" among them; that may change at any
    time (`enable_events`, `disable_events`).
    """

    name = "Events"
    requires: ClassVar[tuple[Any, ...]] = ()

    def __init__(
        self,
        worker: WorkController,
        task_events: bool = False,
        without_heartbeat: bool = False,
        without_gossip: bool = False,
        without_mingle: bool = False,
        heartbeat_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        self._worker = worker
        app = worker.app
        #: Whether the broker can carry events at all.
        self.possible = isinstance(app.assembly.broker, Broadcasting)
        worker.timer = Timer()
        worker.event_dispatcher = dispatcher = app.events.Dispatcher(
            None,
            worker.hostname,
            enabled=self.possible,
            buffer_while_offline=False,
            groups=None if task_events else ["worker"],
        )
        #: Seen by the pool's processes too.
        self.watched = shared_gate()
        self.course = Course(dispatcher, self.watched, self._wanted, lambda: state.all_total_count[0])
        self._gossip = Gossip(worker, without_gossip or not self.possible)
        if not self._gossip.enabled:
            worker.gossip = None
        self._mingle = Mingle(worker, without_mingle or not self.possible)
        worker.heart = None
        self._interval = None if without_heartbeat or not self.possible else heartbeat_interval or 2.0

    def _wanted(self, name: str) -> bool:
        task = self._worker.app.tasks.get(name)
        return task is None or bool(task.send_events)

    def _active(self) -> int:
        return sum(1 for one in list(self._worker.consumer.held.values()) if one.begun)

    def start(self, c: Any = None) -> None:
        """Nothing is told before the broker has answered: see `begin`."""

    def begin(self) -> None:
        """The broker has answered, and nothing has been taken yet."""
        worker = self._worker
        self._mingle.start(worker)
        self.course.start()
        self._gossip.start(worker)
        if self._interval is not None and worker.heart is None:
            worker.heart = Heart(worker.timer, worker.event_dispatcher, self._interval, self._active)
            worker.heart.start()

    def stop(self, deadline: float | None = None) -> None:
        """Tell what is left to be told, and goodbye."""
        worker = self._worker
        self._gossip.stop(deadline=deadline)
        self.course.stop(deadline)
        worker.timer.stop(deadline)
        if not left(deadline, 1.0):  # whoever sends now waits for the broker, and holds the dispatcher
            return
        if worker.heart is not None:
            worker.heart.stop()
        worker.event_dispatcher.close()

    shutdown = stop
