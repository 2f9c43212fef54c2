"""A worker of threads on a memory broker, and the commands that it obeys, called as the mailbox would."""

from __future__ import annotations

import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.worker import state
from celery.worker.consumer.consumer import state_for
from celery.worker.control import Panel
from tests.flow.engine import DEADLINE, until
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.worker import WorkController


class Commanded:
    """An app with tasks that a test holds and lets go, and a worker of it."""

    def __init__(self, **conf: Any) -> None:
        name = f"memory://{uuid.uuid4()}"
        self.app = Celery("commanded", broker=name, backend=name, set_as_current=False)
        self.app.conf.update(broker_connection_retry_on_startup=True, **conf)
        self.gate = threading.Event()
        self.ran: list[Any] = []
        self.worker: WorkController
        self._declare()

    def _declare(self) -> None:
        @self.app.task(name="hold")
        def hold(mark: Any = None) -> Any:
            self.ran.append(mark)
            assert self.gate.wait(DEADLINE)
            return mark

        @self.app.task(name="spin")
        def spin(mark: Any = None) -> None:
            """Runs until it is ended, in Python code."""
            self.ran.append(mark)
            while not self.gate.is_set():
                self.gate.wait(0.001)

        @self.app.task(name="quick")
        def quick(mark: Any = None) -> Any:
            self.ran.append(mark)
            return mark

        self.hold, self.spin, self.quick = hold, spin, quick

    @contextmanager
    def running(self, **options: Any) -> Iterator[WorkController]:
        with working(self.app, **{"pool": "threads", "concurrency": 1, **options}) as self.worker:
            self.state = state_for(self.worker)
            try:
                yield self.worker
            finally:
                self.gate.set()

    def tell(self, command: str, **arguments: Any) -> Any:
        return Panel.data[command](self.state, **arguments)

    def held(self, mark: Any = "first", **options: Any) -> Any:
        """A task that runs until the gate is opened, and runs by now, as far as the worker knows."""
        result = self.hold.apply_async((mark,), **options)
        until(lambda: result.id in [info["id"] for info in self.tell("active")], f"{mark} runs")
        return result


def reset() -> None:
    state.reset_state()
