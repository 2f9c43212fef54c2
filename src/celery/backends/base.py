"""Compatibility. `app.backend`: records under the wide API that Celery's backends have, over the port `ResultBackend`.

Adapters know nothing of this class; it turns names of tasks and states into encoded records and back ([backend.4]).
Groups, chords and third-party subclasses that bring their own storage have no home here yet.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from traceback import format_exception
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from celery import _state, codecs, states
from celery.current import get_current_task
from celery.documents import Documents, decode, decompressed, encode, exception_from_data, exception_to_data
from celery.exceptions import BackendGetMetaError, BackendStoreError, ImproperlyConfigured, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.outcome import Record

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from celery.app.base import Celery
    from celery.ports import ResultBackend

__all__ = ["Backend", "BackendGetMetaError", "BackendStoreError", "BaseBackend", "DisabledBackend"]

E_NO_BACKEND = (
    "No result backend is configured.\n"
    "Set result_backend (or make the app with backend=…) to a URL such as 'redis://' or 'sqlite:///results.db'."
)
E_CHORD_NO_BACKEND = (
    "Starting chords requires a result backend to be configured.\n"
    "A group that is chained with a task becomes a chord too, since the task waits for the whole group. "
    "Set result_backend to a URL such as 'redis://' or 'sqlite:///results.db'."
)

Meta = dict[str, Any]


class _Result(Protocol):
    id: str


class Backend:
    """The results of one app: reads and writes state documents, waits for them, forgets them.

    `url` is where the records are; None: wherever the app's `result_backend` says. Errors of the server are kombu's
    `OperationalError`.
    """

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES
    TimeoutError = CeleryTimeoutError
    #: Records outlive the connection that wrote them.
    persistent = True
    #: Records expire by themselves: there is no cleanup to be scheduled ([backend.34]).
    supports_autoexpire = True
    supports_native_join = True
    supports_failure_expires = False
    supports_result_compression = False
    #: One object serves all threads ([backend.37]).
    thread_safe = True
    subpolling_interval: float | None = None
    #: For old callers, who retried connections by it; adapters retry on their own.
    retry_policy: ClassVar[Mapping[str, Any]] = {
        "max_retries": 20,
        "interval_start": 0,
        "interval_step": 1,
        "interval_max": 1,
    }

    def __init__(
        self,
        app: Celery,
        serializer: str | None = None,
        max_cached_results: int | None = None,
        accept: Iterable[str] | None = None,
        expires: Any = None,
        expires_type: Any = None,
        url: str | None = None,
        *,
        store: ResultBackend | None = None,
        **kwargs: Any,
    ) -> None:
        conf = app.conf
        self.app = app
        self.url = url
        self.serializer: str = serializer or conf.result_serializer
        accepted = accept if accept is not None else (conf.result_accept_content or conf.accept_content)
        self.accept = codecs.accept_types(accepted or ("json",))
        self.expires = self.prepare_expires(expires, expires_type)
        self._documents = Documents(self.serializer, extended=bool(conf.result_extended))
        limit = conf.result_cache_max if max_cached_results is None else max_cached_results
        self._cache = _Cache(limit)
        self._store = store
        #: Nothing stands between a result and the app's store: no subclass, no cache, no store of its own.
        self.reads_straight = type(self) is Backend and limit is not None and limit < 0 and store is None

    def __reduce__(self) -> Any:
        return unpickle_backend, (type(self), (), {"url": self.url})

    @property
    def store(self) -> ResultBackend:
        """The adapter that keeps the records."""
        if self._store is not None:
            return self._store
        return cast("ResultBackend", self.app.assembly.store)

    def as_uri(self, include_password: bool = False) -> str:
        """Where the records are, with the password starred out unless asked for ([backend.6])."""
        url = self.url or ""
        if include_password or "@" not in url:
            return url
        from kombu.utils.url import maybe_sanitize_url

        return str(maybe_sanitize_url(url))

    # -- reading -----------------------------------------------------------------------------------------------------

    def get_task_meta(self, task_id: str, cache: bool = True) -> Meta:
        """The state document; that of PENDING if nothing is known ([state.9]).

        Raises kombu's `ContentDisallowed` or `DecodeError` for a document that is not what the settings expect.
        """
        known = self._cache.get(task_id) if cache else None
        return known if known is not None else self._read(task_id, self.store.load([task_id])[0])

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
        return self.store.load([task_id])[0] is not None

    def reload_task_result(self, task_id: str) -> None:
        """Read the document again into the cache."""
        self._cache[task_id] = self.get_task_meta(task_id, cache=False)

    def is_cached(self, task_id: str) -> bool:
        return task_id in self._cache

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait_ready(self, task_ids: Sequence[str], timeout: float | None = None) -> dict[str, Meta]:
        """Wait until at least one of the tasks is in a ready state; the documents of all that are, by id.

        Empty once `timeout` seconds have passed; 0 looks once.
        """
        found = self.store.wait(task_ids, timeout)
        return {task_id: self._read(task_id, meta) for task_id, meta in found.items()}

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
        step = None if on_interval is None else interval
        while True:
            found = self.wait_ready([task_id], _patience(deadline, step))
            if found:
                return found[task_id]
            if deadline is not None and time.monotonic() >= deadline:
                raise CeleryTimeoutError("The operation timed out.")
            if on_interval is not None:
                on_interval()

    def wait_for_pending(
        self,
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
        self._ensure_no_messages(on_message)
        self.wait_for(result.id, timeout, interval, no_ack, on_interval)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
    ) -> Iterator[tuple[str, Meta]]:
        """Yield `(id, document)` as tasks become ready ([backend.36]); stops when `timeout` seconds have passed."""
        waiting = dict.fromkeys(getattr(task_id, "id", task_id) for task_id in task_ids)
        deadline = None if timeout is None else time.monotonic() + timeout
        step = interval if on_interval is not None or max_iterations else None
        rounds = 0
        while waiting:
            found = self.wait_ready(list(waiting), _patience(deadline, step))
            for task_id, meta in found.items():
                del waiting[task_id]
                yield task_id, meta
            rounds += 1
            if (max_iterations and rounds >= max_iterations) or (deadline is not None and time.monotonic() >= deadline):
                return
            if on_interval is not None and not found:
                on_interval()

    @staticmethod
    def _ensure_no_messages(on_message: Any) -> None:
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")

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
        """Keep a state; returns the result as it was encoded. Nothing changes for a task that is SUCCESS already."""
        encoded = self.encode_result(result, state)
        text = traceback if traceback is None else str(traceback)
        meta = self._documents.write(state, encoded, request, text, task_id)
        self.store.save([Record(task_id, state, meta)])
        return encoded

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        return self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        if store_result:
            self.store_result(task_id, result, state, request=request)

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
        if store_result:
            self.store_result(task_id, TaskRevokedError(reason), state, request=request)

    def fail_from_current_stack(self, task_id: str, exc: BaseException | None = None) -> BaseException | None:
        """Keep the exception that is being handled here as the task's failure."""
        failure = exc or sys.exc_info()[1]
        if failure is not None:
            text = "".join(format_exception(failure))
            self.mark_as_failure(task_id, failure, text)
        return failure

    def forget(self, task_id: str) -> None:
        """Delete what is kept for the task."""
        self._cache.pop(task_id, None)
        self.store.forget([task_id])

    # -- encoding ----------------------------------------------------------------------------------------------------

    def encode(self, data: Any) -> Any:
        """A document in the result serializer's format: text where that is text."""
        payload = encode(data, self.serializer)
        return payload.decode() if self.serializer in ("json", "yaml") else payload

    def decode(self, payload: Any) -> Any:
        """A document from bytes or text, decompressed if need be; exceptions stay data. See `get_task_meta`."""
        plain = decompressed(payload.encode() if isinstance(payload, str) else bytes(payload))
        return codecs.decode_from(plain, self.serializer, self.accept)

    def decode_result(self, payload: Any) -> Meta:
        return self.meta_from_decoded(self.decode(payload))

    def meta_from_decoded(self, meta: Meta) -> Meta:
        """Turn a failure's data into its exception, in place."""
        if meta["status"] in self.EXCEPTION_STATES:
            meta["result"] = self.exception_to_python(meta["result"])
        return meta

    def encode_result(self, result: Any, state: str) -> Any:
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def prepare_value(self, result: Any) -> Any:
        """What is kept of a value: a result (of `delay()`) as a tuple, anything else as it is ([result.26])."""
        return result.as_tuple() if hasattr(result, "as_tuple") and hasattr(result, "maybe_throw") else result

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        return exception_to_data(exc, serializer or self.serializer)

    def exception_to_python(self, exc: Any) -> BaseException | None:
        return exception_from_data(exc)

    def prepare_expires(self, value: Any, type: Callable[[float], Any] | None = None) -> Any:
        """Seconds from a number or a timedelta; None stands for the setting `result_expires`."""
        chosen: dt.timedelta | float | None = self.app.conf.result_expires if value is None else value
        seconds: Any = chosen if chosen is None or isinstance(chosen, int | float) else chosen.total_seconds()
        return type(seconds) if seconds and type else seconds

    def prepare_persistent(self, enabled: bool | None = None) -> bool:
        if enabled is not None:
            return enabled
        return self.persistent if self.app.conf.result_persistent is None else self.app.conf.result_persistent

    # -- hooks of old ------------------------------------------------------------------------------------------------

    def current_task_children(self, request: Any = None) -> list[Any] | None:
        """The children of the request (or of the task that runs here) as tuples."""
        if request is None:
            task = get_current_task()
            request = None if task is None else task.request
        return None if request is None else [child.as_tuple() for child in request.children or ()]

    def on_task_call(self, producer: Any, task_id: str) -> Mapping[str, Any]:
        """Options that a call needs for its result to be found: none."""
        return {}

    def process_cleanup(self) -> None:
        """Called by old tracers after each task; nothing is held that long."""

    def cleanup(self) -> None:
        """Records expire by themselves; nothing is left to delete."""

    def ensure_chords_allowed(self) -> None:
        """Raises where chords cannot work."""

    # -- inside ------------------------------------------------------------------------------------------------------

    def _read(self, task_id: str, payload: bytes | None) -> Meta:
        if payload is None:
            return {"status": states.PENDING, "result": None}
        meta = decode(payload, self.serializer, self.accept)
        if self._cache.limit >= 0 and meta.get("status") == states.SUCCESS:
            self._cache[task_id] = meta
        return meta


BaseBackend = Backend


class DisabledBackend(Backend):
    """No results are kept: writing does nothing, reading raises `NotImplementedError` ([backend.7])."""

    persistent = False
    supports_native_join = False

    @property
    def store(self) -> ResultBackend:
        raise NotImplementedError(E_NO_BACKEND)

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        return None

    def as_uri(self, include_password: bool = False) -> str:
        return "disabled://"

    def ensure_chords_allowed(self) -> None:
        raise NotImplementedError(E_CHORD_NO_BACKEND)


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


def _patience(deadline: float | None, step: float | None) -> float | None:
    """How long to wait at once: until the deadline (monotonic seconds), but no longer than `step`."""
    if deadline is None:
        return step
    left = max(deadline - time.monotonic(), 0.0)
    return left if step is None else min(left, step)
