"""Compatibility. `app.backend` over an adapter of ours: the wide API on the port `ResultBackend` ([backend.4])."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from celery import states
from celery.app import unlocking
from celery.backends.pending import PendingResults
from celery.backends.wide import Backend, SyncBackendMixin
from celery.documents import Documents, decode
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.outcome import Record
from celery.result import result_from_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.app.base import Celery
    from celery.backends.encoding import Meta
    from celery.ports import Barrier, Groups, ResultBackend, Watching

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
        self.store.save([Record(task_id, state, meta, str(getattr(request, "reply_to", None) or ""))])
        return result

    def _get_task_meta_for(self, task_id: str) -> Meta:
        return self._read(self.store.load([task_id])[0])

    def task_result_exists(self, task_id: str) -> bool:
        return self.store.load([task_id])[0] is not None

    def _forget(self, task_id: str) -> None:
        self.store.forget([task_id])

    # -- groups and chords -------------------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        self._groups.save_group(group_id, self._documents.group(result))
        return result

    def _restore_group(self, group_id: str) -> Meta | None:
        payload = self._groups.load_group(group_id)
        if payload is None:
            return None
        meta = self.decode(payload)
        return {**meta, "result": result_from_tuple(meta["result"], self.app)}

    def _delete_group(self, group_id: str) -> None:
        self._groups.delete_group(group_id)

    @property
    def _groups(self) -> Groups:
        groups: Groups | None = getattr(self.store, "groups", None)
        return self._missing("_save_group") if groups is None else groups

    @property
    def _barriers(self) -> Barrier | None:
        return getattr(self.store, "barriers", None)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Open the chord's barrier: so many members are awaited."""
        if self._barriers is not None:
            self._barriers.open(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        if self._barriers is None:
            super().add_to_chord(chord_id, result)
        else:
            self._barriers.grow(chord_id, 1)

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Nothing is to be done: members are counted as their results are saved."""
        self.ensure_chords_allowed()
        if self._barriers is None:
            super().apply_chord(header_result_args, body, **kwargs)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A member of a chord that somebody else than our worker has run has come to its end."""
        if self._barriers is not None and request.group:
            unlocking.arrive(self.app, request, state, result)

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

    def each_ready(self, task_ids: Sequence[str], patience: Callable[[], float | None]) -> Iterator[dict[str, Meta]]:
        """Documents of the tasks as they become ready, each once; ends with the last. An empty dict whenever nothing
        came for `patience()` seconds (None: for ever)."""
        if self.app.assembly._held:
            self.app.assembly.pending.reveal(task_ids)
        store = self.store
        each = getattr(store, "each", None) or partial(_each, store)
        for found in each(task_ids, patience):
            yield {task_id: self._remember(task_id, self._read(meta)) for task_id, meta in found.items()}

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


def _each(store: ResultBackend, ids: Sequence[str], patience: Callable[[], float | None]) -> Iterator[dict[str, bytes]]:
    """`Streaming.each` for stores that look at all ids cheaply."""
    left = dict.fromkeys(ids)
    while left:
        found = store.wait(list(left), patience())
        for task_id in found:
            del left[task_id]
        yield found
