"""Compatibility. Results that somebody attached a callback to: one thread waits for all of them ([result.12])."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from celery.exceptions import OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["PendingResults"]

logger = logging.getLogger("celery.result")

#: Seconds of one wait: how long a result that is added must wait to be waited for.
_STEP = 0.2


class PendingResults:
    """Thread-safe. The thread lives while there is something to wait for; it does not keep the process alive."""

    def __init__(self, wait: Callable[[Sequence[str], float], dict[str, Any]]) -> None:
        self._wait = wait
        self._lock = threading.Lock()
        #: id → references to the results with that id.
        self._waiting: dict[str, list[Callable[[], Any]]] = {}
        self._thread: threading.Thread | None = None

    def add(self, result: Any, weak: bool) -> None:
        """Call `result._remember(document)` once it is ready; `weak`: unless nobody else holds it by then."""
        reference = weakref.ref(result) if weak else lambda: result
        with self._lock:
            self._waiting.setdefault(result.id, []).append(reference)
            if self._thread is None or not self._thread.is_alive():  # after a fork there is no thread
                self._thread = threading.Thread(target=self._run, name="celery-results", daemon=True)
                self._thread.start()

    def remove(self, result: Any) -> None:
        with self._lock:
            left = [one for one in self._waiting.pop(result.id, ()) if one() is not result]
            if left:
                self._waiting[result.id] = left

    def _run(self) -> None:
        while ids := self._ids():
            try:
                found = self._wait(ids, _STEP)
            except OperationalError as exc:
                logger.warning("Waiting for results failed, trying again: %s", exc)
                time.sleep(_STEP)
                continue
            except Exception:  # noqa: BLE001 - one record that cannot be read must not hide the others
                found = self._one_by_one(ids)
            for task_id, meta in found.items():
                self._tell(self._take(task_id), meta)

    def _one_by_one(self, ids: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for task_id in ids:
            try:
                found |= self._wait([task_id], 0)
            except OperationalError:
                break
            except Exception:
                logger.exception("The result %s cannot be read; its callbacks are dropped", task_id)
                self._take(task_id)
        return found

    def _ids(self) -> list[str]:
        """What is still wanted; without anything, the thread is about to end."""
        with self._lock:
            for task_id, references in list(self._waiting.items()):
                if all(reference() is None for reference in references):
                    del self._waiting[task_id]
            if not self._waiting:
                self._thread = None
            return list(self._waiting)

    def _take(self, task_id: str) -> list[Any]:
        with self._lock:
            return [reference() for reference in self._waiting.pop(task_id, ())]

    @staticmethod
    def _tell(results: Iterable[Any], meta: Any) -> None:
        for result in results:
            if result is not None:
                try:
                    result._remember(meta)
                except Exception:
                    logger.exception("A callback of the result %s raised", result.id)
