"""Many threads that call a task at the same moment, and how long the slowest of them had to wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["GRACE", "PROMISED", "THREADS", "Crowd"]

THREADS = 100
#: Seconds that are promised, and some for a machine that has other things to do.
PROMISED, GRACE = 10.0, 5.0


class Crowd:
    """Many threads that each call one task at the same time."""

    def __init__(self, app: Celery, threads: int = THREADS) -> None:
        self.errors: list[BaseException] = []
        self.ids: list[str] = []
        self.slowest = 0.0
        self._app = app
        self._threads = [threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(threads)]

    def go(self) -> Crowd:
        began = time.monotonic()
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(began + 60 - time.monotonic())
            assert not thread.is_alive(), "delay() hangs"
        return self

    def _call(self, number: int) -> None:
        began = time.monotonic()
        try:
            self._app.send_task("proj.late", (0.0,), task_id=f"c{number}")
        except BaseException as exc:  # noqa: BLE001 - looked at by the test
            self.errors.append(exc)
        else:
            self.ids.append(f"c{number}")
        self.slowest = max(self.slowest, time.monotonic() - began)

    def check_refused(self, within: float | None = None) -> None:
        """All of them, in so many seconds; None: as it is promised."""
        assert not self.ids
        assert all(isinstance(error, OperationalError) for error in self.errors), self.errors
        assert self.slowest < (within or PROMISED) + GRACE
