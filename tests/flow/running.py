"""Workers in threads of the test's own process, on a memory broker."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.worker import WorkController
from tests.flow.engine import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery


@contextmanager
def working(app: Celery, cls: type[WorkController] = WorkController, **options: Any) -> Iterator[WorkController]:
    """A worker, by default with one child; made and started in a thread, ready when this is entered."""
    ready = threading.Event()
    made: list[WorkController] = []
    options = {"pool": "prefork", "concurrency": 1, **options}

    def run() -> None:
        made.append(cls(app=app, ready_callback=lambda _: ready.set(), **options))
        made[0].start()

    thread = threading.Thread(target=run, name="embedding")
    thread.start()
    try:
        assert ready.wait(DEADLINE)
        yield made[0]
    finally:
        if made:
            made[0].stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()
