"""Compatibility. The wide API that Celery's backends have, for `app.backend` and for classes of others ([backend.4]).

`Backend` asks its storage through a few methods with an underscore: `_store_result`, `_get_task_meta_for`, `_forget`
(and `_save_group`, `_restore_group`, `_delete_group`). Third-party classes bring these; `StoreBackend` answers them
from our own adapters. Chords are counted by those that can; for the others a task looks again and again (`unlocking`).
"""

from __future__ import annotations

import random
import sys
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from celery import _state, states
from celery.app import unlocking
from celery.backends.encoding import Encoding, Meta
from celery.exceptions import (
    BackendGetMetaError,
    BackendStoreError,
    ImproperlyConfigured,
    TaskRevokedError,
)
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.failures import traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from celery.app.base import Celery

__all__ = ["Backend", "SyncBackendMixin"]

#: Seconds between the first two looks at a task that is not ready.
_FIRST_PAUSE = 0.005


class Backend(Encoding):
    """The results of one app: reads and writes state documents, waits for them, forgets them.

    `url` is where the records are. Third-party classes call `__init__` with the names that they know.
    """

    TimeoutError = CeleryTimeoutError
    #: Records expire by themselves: there is no cleanup to be scheduled ([backend.34]).
    supports_autoexpire = False
    supports_native_join = False
    #: One object serves all threads ([backend.37]); else each thread makes one of its own.
    thread_safe = False
    subpolling_interval: float | None = None
    #: For old callers, who retried connections by it; adapters retry on their own.
    retry_policy: ClassVar[Mapping[str, Any]] = {
        "max_retries": 20,
        "interval_start": 0,
        "interval_step": 1,
        "interval_max": 1,
    }
    #: The errors that mean that the storage is away.
    connection_errors: tuple[type[BaseException], ...] = ()

    def __init__(self, app: Celery, *args: Any, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)
        conf = app.conf
        limit = args[1] if len(args) > 1 else kwargs.get("max_cached_results")
        self._cache = _Cache(conf.result_cache_max if limit is None else limit)
        self.always_retry: bool = conf.result_backend_always_retry
        self.max_retries: float = conf.result_backend_max_retries
        self.base_sleep_between_retries_ms: int = conf.result_backend_base_sleep_between_retries_ms
        self.max_sleep_between_retries_ms: int = conf.result_backend_max_sleep_between_retries_ms

    def __reduce__(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return unpickle_backend, (type(self), args, {"url": self.url, **(kwargs or {})})

    def as_uri(self, include_password: bool = False) -> str:
        """Where the records are, with the password starred out unless asked for ([backend.6])."""
        url = self.url or ""
        if include_password or "@" not in url:
            return url
        from kombu.utils.url import maybe_sanitize_url

        return str(maybe_sanitize_url(url))

    # -- the storage: for subclasses ---------------------------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Keep an encoded result."""
        self._missing("_store_result")

    def _get_task_meta_for(self, task_id: str) -> Meta:
        """The document of a task; that of PENDING if nothing is kept."""
        self._missing("_get_task_meta_for")

    def _forget(self, task_id: str) -> None:
        self._missing("_forget")

    def _save_group(self, group_id: str, result: Any) -> Any:
        self._missing("_save_group")

    def _restore_group(self, group_id: str) -> Meta | None:
        self._missing("_restore_group")

    def _delete_group(self, group_id: str) -> None:
        self._missing("_delete_group")

    def _missing(self, name: str) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} cannot do this: backends that can define {name}")

    # -- reading -----------------------------------------------------------------------------------------------------

    def get_task_meta(self, task_id: str, cache: bool = True) -> Meta:
        """The state document; that of PENDING if nothing is known ([state.9]).

        Raises kombu's `ContentDisallowed` or `DecodeError` for a document that is not what the settings expect, and
        `BackendGetMetaError` if the storage failed as often as the settings let it be tried again ([state.15]).
        """
        known = self._cache.get(task_id) if cache else None
        if known is not None:
            return known
        failed = BackendGetMetaError("failed to get meta", task_id=task_id)
        meta: Meta = self._ensure_retryable(self._get_task_meta_for, task_id, fallback_exc=failed)
        return self._remember(task_id, meta) if cache else meta

    def _remember(self, task_id: str, meta: Meta) -> Meta:
        """Only success stays as it is ([result.28])."""
        if meta.get("status") == states.SUCCESS:
            self._cache[task_id] = meta
        return meta

    def get_state(self, task_id: str) -> str:
        return str(self.get_task_meta(task_id)["status"])

    def get_status(self, task_id: str) -> str:
        return self.get_state(task_id)

    def get_result(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("result")

    def get_traceback(self, task_id: str) -> str | None:
        return self.get_task_meta(task_id).get("traceback")

    def get_children(self, task_id: str) -> Any:
        return self.get_task_meta(task_id).get("children")

    def task_result_exists(self, task_id: str) -> bool:
        """Whether anything is kept for the id ([result.7])."""
        return self.get_state(task_id) != states.PENDING

    def reload_task_result(self, task_id: str) -> None:
        """Read the document again into the cache."""
        self._cache[task_id] = self.get_task_meta(task_id, cache=False)

    def is_cached(self, task_id: str) -> bool:
        return task_id in self._cache

    # -- groups ------------------------------------------------------------------------------------------------------

    def get_group_meta(self, group_id: str, cache: bool = True) -> Meta | None:
        known = self._cache.get(group_id) if cache else None
        meta = known if known is not None else self._restore_group(group_id)
        if cache and meta is not None:
            self._cache[group_id] = meta
        return meta

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """The group's result; None if it is not kept."""
        meta = self.get_group_meta(group_id, cache)
        return None if meta is None else meta["result"]

    def reload_group_result(self, group_id: str) -> None:
        """Read the group again into the cache."""
        meta = self.get_group_meta(group_id, cache=False)
        if meta is not None:
            self._cache[group_id] = meta

    def save_group(self, group_id: str, result: Any) -> Any:
        return self._save_group(group_id, result)

    def delete_group(self, group_id: str) -> None:
        self._cache.pop(group_id, None)
        self._delete_group(group_id)

    # -- writing -----------------------------------------------------------------------------------------------------

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Keep a state; returns the result as it was encoded. Nothing changes for a task that is SUCCESS already.

        Raises `BackendStoreError` if the storage failed as often as the settings let it be tried again ([state.15]).
        """
        encoded = self.encode_result(result, state)
        failed = BackendStoreError("failed to store result on the backend", task_id=task_id, state=state)
        self._ensure_retryable(
            self._store_result, task_id, encoded, state, traceback, fallback_exc=failed, request=request, **kwargs
        )
        return encoded

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        return self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        if store_result:
            self.store_result(task_id, result, state, request=request)
        if request is not None and getattr(request, "chord", None):
            self.on_chord_part_return(request, state, result)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Keep a failure. Errbacks are sent by whoever ran the task, not from here."""
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
        if request is not None and getattr(request, "chord", None):
            self.on_chord_part_return(request, state, exc)

    def mark_as_retry(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> Any:
        return self.store_result(task_id, exc, state, traceback=traceback, request=request) if store_result else None

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        exc = TaskRevokedError(reason)
        if store_result:
            self.store_result(task_id, exc, state, request=request)
        if request is not None and getattr(request, "chord", None):
            self.on_chord_part_return(request, state, exc)

    def fail_from_current_stack(self, task_id: str, exc: BaseException | None = None) -> BaseException | None:
        """Keep the exception that is being handled here as the task's failure."""
        failure = exc or sys.exc_info()[1]
        if failure is not None:
            self.mark_as_failure(task_id, failure, traceback_of(failure))
        return failure

    def forget(self, task_id: str) -> None:
        """Delete what is kept for the task."""
        self._cache.pop(task_id, None)
        self._forget(task_id)

    # -- trying again ------------------------------------------------------------------------------------------------

    def _ensure_retryable(
        self,
        func: Callable[..., Any],
        *args: Any,
        fallback_exc: BaseException | None = None,
        fallback_msg: str | None = None,
        max_retries: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call it, again after errors that may pass if the settings say so, with growing pauses ([state.15]).

        Raises `fallback_exc` from the last error once it was tried `max_retries` times more.
        """
        limit = self.max_retries if max_retries is None else max_retries
        retries = 0
        while True:
            try:
                return func(*args, **kwargs)
            except Exception as exc:
                if not (self.always_retry and self.exception_safe_to_retry(exc)):
                    raise
                self.on_backend_retryable_error(exc)
                if retries >= limit:
                    raise (fallback_exc or BackendStoreError(fallback_msg or str(exc))) from exc
            longest = min(self.base_sleep_between_retries_ms * 2**retries, self.max_sleep_between_retries_ms)
            retries = min(retries + 1, 62) if limit > 62 else retries + 1
            self._sleep(random.uniform(0, longest) / 1000)

    def _sleep(self, amount: float) -> None:
        time.sleep(amount)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whether the error may pass by itself; for subclasses."""
        return False

    def on_backend_retryable_error(self, exc: Exception) -> None:
        """Hears of each such error; for subclasses."""

    # -- hooks of old ------------------------------------------------------------------------------------------------

    def on_task_call(self, producer: Any, task_id: str) -> Mapping[str, Any]:
        """Options that a call needs for its result to be found: none."""
        return {}

    def process_cleanup(self) -> None:
        """Called after a batch of results is stored: let go of what was opened for it."""

    def cleanup(self) -> None:
        """Delete what has expired, where the storage does not do it by itself."""

    # -- chords ------------------------------------------------------------------------------------------------------

    def ensure_chords_allowed(self) -> None:
        """Raises where chords cannot work."""

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """So many members are awaited; nothing to those who look for them."""

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """One member more. Raises NotImplementedError where members are not counted."""
        raise NotImplementedError("Backend does not support add_to_chord")

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A member has come to its end; nothing to those who look for them."""

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Called before a chord's header is sent, with its group id and results. Here: sends the task that looks."""
        self.ensure_chords_allowed()
        header = header_result_args
        self.fallback_chord_unlock(
            self.app.GroupResult(*header) if isinstance(header, tuple) else header, body, **kwargs
        )

    def fallback_chord_unlock(self, header_result: Any, body: Any, countdown: float = 1, **kwargs: Any) -> None:
        """Send `celery.chord_unlock`, to the queue of the body ([task.72], [canvas.71])."""
        unlocking.send(self.app, header_result, body, countdown, kwargs)

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> Any:
        """The body of a chord fails with `exc`, or with what is being handled: it, and all that waits for it."""
        return unlocking.fail_body(self.app, callback, exc or sys.exc_info()[1] or RuntimeError("no exception"))


class SyncBackendMixin:
    """Waiting by looking again and again, for storages that tell nobody."""

    def wait_for(
        self: Any,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Meta:
        """The document of the task once it is ready; `on_interval` is called after each look that found it is not.

        Looks often at first, then every `interval` seconds. Raises `celery.exceptions.TimeoutError`.
        """
        self._ensure_not_eager()
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = min(_FIRST_PAUSE, interval)
        while True:
            meta: Meta = self.get_task_meta(task_id)
            if meta["status"] in states.READY_STATES:
                return meta
            if on_interval is not None:
                on_interval()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise CeleryTimeoutError("The operation timed out.")
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 2, interval)

    def wait_for_pending(
        self: Any,
        result: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
        callback: Callable[[str, Any], Any] | None = None,
        propagate: bool = True,
    ) -> Any:
        """As `result.get(…)`, without the guard against waiting inside of a task."""
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        meta = self.wait_for(result.id, timeout=timeout, interval=interval, on_interval=on_interval, no_ack=no_ack)
        if meta:
            result._remember(meta)
            return result.maybe_throw(propagate=propagate, callback=callback)
        return None

    def get_many(
        self: Any,
        task_ids: Iterable[Any],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
    ) -> Iterator[tuple[str, Meta]]:
        """Yield `(id, document)` as tasks become ready ([backend.36]), and call `on_message` with each document.

        Ends after `max_iterations` looks. Raises `celery.exceptions.TimeoutError`; 0 looks once.
        """
        waiting = dict.fromkeys(getattr(task_id, "id", task_id) for task_id in task_ids)
        deadline = None if timeout is None else time.monotonic() + timeout
        rounds = 0
        while waiting:
            found = self._ready_among(list(waiting), _patience(deadline, interval))
            for task_id, meta in found.items():
                del waiting[task_id]
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            rounds += 1
            if not waiting or (max_iterations and rounds >= max_iterations):
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise CeleryTimeoutError(f"Operation timed out ({timeout})")
            if on_interval is not None and not found:
                on_interval()

    def _ready_among(self: Any, task_ids: list[str], patience: float) -> dict[str, Meta]:
        """Those that are ready; after a pause of `patience` seconds if none is."""
        metas = ((task_id, self.get_task_meta(task_id)) for task_id in task_ids)
        found = {task_id: meta for task_id, meta in metas if meta["status"] in states.READY_STATES}
        if not found:
            time.sleep(patience)
        return found

    def iter_native(
        self: Any,
        result: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Meta]]:
        """`get_many` for the results that a result of several holds."""
        ids = [one.id for one in result.results]
        found: Iterator[tuple[str, Meta]]
        found = self.get_many(ids, timeout, interval, no_ack, on_message, on_interval)
        return found

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        return result

    def remove_pending_result(self, result: Any) -> Any:
        return result

    @property
    def is_async(self) -> bool:
        return False

    def _ensure_not_eager(self) -> None:
        """For subclasses."""


def unpickle_backend(cls: type[Backend], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Backend:
    """A pickled backend comes back as one of the current app's."""
    return cls(_state.get_current_app(), *args, **kwargs)


class _Cache(OrderedDict[str, Meta]):
    """The last `limit` documents; none at all if it is negative, all if it is 0 or None ([result.28])."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self.limit = limit or 0

    def __setitem__(self, task_id: str, meta: Meta) -> None:
        if self.limit < 0:
            return
        super().__setitem__(task_id, meta)
        if self.limit and len(self) > self.limit:
            self.popitem(last=False)


def _patience(deadline: float | None, step: float) -> float:
    """How long to wait at once: until the deadline (monotonic seconds), but no longer than `step`."""
    if deadline is None:
        return step
    return min(max(deadline - time.monotonic(), 0.0), step)
