"""A real worker in a thread of the test's own process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery.worker import WorkController

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

DEADLINE = 15.0  # seconds


@contextmanager
def working(app: Celery) -> Iterator[WorkController]:
    """A worker of that app, with a solo pool, that runs what the block sends."""
    worker = WorkController(app=app, pool="solo", concurrency=1)
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(DEADLINE)
        app.close()
    assert not thread.is_alive()
