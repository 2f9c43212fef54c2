"""Compatibility. `app.backend` over an adapter of ours: the wide API on the port `ResultBackend` ([backend.4])."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from celery import states
from celery.backends.pending import PendingResults
from celery.backends.wide import Backend, SyncBackendMixin
from celery.documents import Documents, decode
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.outcome import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.base import Celery
    from celery.backends.encoding import Meta
    from celery.ports import ResultBackend, Watching

__all__ = ["StoreBackend"]

_TIMED_OUT = "The operation timed out."


class StoreBackend(Backend, SyncBackendMixin):
    """The results that an adapter keeps. Waiting polls nobody. Errors of the server are kombu's `OperationalError`."""

    supports_autoexpire = True
    supports_native_join = True
    thread_safe = True

    def __init__(self, app: Celery, *args: Any, store: ResultBackend | None = None, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)
        self._documents = Documents(
            self.serializer, extended=bool(app.conf.result_extended), compression=self.compression
        )
        self._store = store
        self._pending = PendingResults(self.wait_ready)

    @property
    def reads_straight(self) -> bool:
        """Nothing stands between a result and the app's store: no cache, no retries, no store of its own."""
        return self._cache.limit < 0 and self._store is None and not self.always_retry

    @property
    def store(self) -> ResultBackend:
        """The adapter that keeps the records."""
        return self._store if self._store is not None else cast("ResultBackend", self.app.assembly.records)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, OperationalError)

    # -- the storage -------------------------------------------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        text = traceback if traceback is None else str(traceback)
        meta = self._documents.write(state, result, request, text, task_id)
        self.store.save([Record(task_id, state, meta)])
        return result

    def _get_task_meta_for(self, task_id: str) -> Meta:
        return self._read(self.store.load([task_id])[0])

    def task_result_exists(self, task_id: str) -> bool:
        return self.store.load([task_id])[0] is not None

    def _forget(self, task_id: str) -> None:
        self.store.forget([task_id])

    def _read(self, payload: bytes | None) -> Meta:
        if payload is None:
            return {"status": states.PENDING, "result": None}
        return decode(payload, self.serializer, self.accept)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait_ready(self, task_ids: Sequence[str], timeout: float | None = None) -> dict[str, Meta]:
        """Wait until at least one of the tasks is in a ready state; the documents of all that are, by id.

        Empty once `timeout` seconds have passed; 0 looks once.
        """
        found = self._ensure_retryable(self.store.wait, task_ids, timeout)
        return {task_id: self._remember(task_id, self._read(meta)) for task_id, meta in found.items()}

    def watch(self, task_id: str, timeout: float | None, on_message: Callable[[Meta], Any]) -> Meta | None:
        """As `wait_ready` for one task, calling `on_message` with each of its states ([call.10]).

        Raises `ImproperlyConfigured` where the adapter tells of final states only.
        """
        store = self.store
        watching: Watching | None = cast("Any", store) if hasattr(store, "watch") else None
        if watching is None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        found = watching.watch(task_id, timeout, lambda meta: on_message(self._read(meta)))
        return None if found is None else self._remember(task_id, self._read(found))

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Meta:
        """The document of the task once it is ready; `on_interval` is called every `interval` seconds until then.

        Raises `celery.exceptions.TimeoutError` when `timeout` seconds have passed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            step = left if on_interval is None else interval if left is None else min(left, interval)
            found = self.wait_ready([task_id], step)
            if found:
                return found[task_id]
            if deadline is not None and time.monotonic() >= deadline:
                raise CeleryTimeoutError(_TIMED_OUT)
            if on_interval is not None:
                on_interval()

    def _ready_among(self, task_ids: list[str], patience: float) -> dict[str, Meta]:
        return self.wait_ready(task_ids, patience)

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Let the result know once its task is in a ready state ([result.12])."""
        self._pending.add(result, weak)
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """The opposite of `add_pending_result`."""
        self._pending.remove(result)
        return result

    @property
    def is_async(self) -> bool:
        """States are told, not looked for."""
        return hasattr(self.store, "watch")
