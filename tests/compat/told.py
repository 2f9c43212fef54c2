"""A third party's backend that is told of results: documents go to whoever has said which tasks he waits for."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, ClassVar

from celery import states
from celery.backends.asynchronous import AsyncBackendMixin, BaseResultConsumer
from celery.backends.base import Backend

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ear", "Told"]


class Ear(BaseResultConsumer):
    """Hears of the tasks that somebody waits for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wanted: set[str] = set()
        self.waits: list[dict[str, Any]] = []
        self.heard: queue.Queue[dict[str, Any]] = queue.Queue()
        Told.ears.append(self)

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        self.consume_from(initial_task_id)

    def consume_from(self, task_id: str) -> None:
        self.wanted.add(task_id)
        if task_id in Told.kept:
            self.heard.put(Told.kept[task_id])

    def cancel_for(self, task_id: str) -> None:
        self.wanted.discard(task_id)

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **kwargs: Any) -> None:
        self.waits.append({"timeout": timeout, **kwargs})

    def drain_events(self, timeout: float | None = None) -> None:
        try:
            meta = self.heard.get(timeout=timeout) if timeout != 0 else self.heard.get_nowait()
        except queue.Empty:
            raise TimeoutError from None
        self.on_state_change(meta, None)


class Told(Backend, AsyncBackendMixin):
    """Everything is in this process."""

    supports_native_join = True
    kept: ClassVar[dict[str, dict[str, Any]]] = {}
    ears: ClassVar[list[Ear]] = []
    lock: ClassVar[Any] = threading.Lock()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.result_consumer = Ear(self, self.app, self.accept, self._pending_results, self._pending_messages)

    @classmethod
    def forget_all(cls) -> None:
        cls.kept.clear()
        cls.ears.clear()

    def tell(self, meta: dict[str, Any], to: Callable[[Ear], bool] = lambda ear: True) -> None:
        for ear in self.ears:
            if to(ear):
                ear.heard.put(meta)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        meta = {"task_id": task_id, "status": state, "result": result, "traceback": traceback, "children": []}
        self.kept[task_id] = meta
        self.tell(meta, lambda ear: task_id in ear.wanted)
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self.meta_from_decoded(
            self.kept.get(task_id, {"task_id": task_id, "status": states.PENDING, "result": None})
        )
