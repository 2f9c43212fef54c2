"""Compatibility. A third-party backend behind the port `ResultBackend`: a worker of ours saves to it ([backend.3])."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celery import states
from celery.app.chords import unpack
from celery.backends.base import DisabledBackend
from celery.backends.face import StoreBackend
from celery.backends.redis import RedisBackend
from celery.codecs import accept_types, decode_from
from celery.documents import decode, encode
from celery.exceptions import BackendError, ChordError, OperationalError
from celery.result import result_from_tuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.app.base import Celery
    from celery.outcome import Arrival, Record
    from celery.ports import Full

__all__ = ["Bridged", "brings_storage"]

logger = logging.getLogger("celery.backends.base")

_OURS = (RedisBackend, StoreBackend, DisabledBackend)
#: What a class replaces if it wants to store or read otherwise than ours.
_STORAGE = (
    "store_result", "_store_result", "mark_as_done", "mark_as_failure", "mark_as_retry", "mark_as_revoked",
    "mark_as_started", "get_task_meta", "_get_task_meta_for", "wait_for", "wait_for_pending",
)  # fmt: skip
#: Seconds between two looks of `wait`.
_PAUSE = 0.05


def brings_storage(backend: Any) -> bool:
    """Whether records are kept by the class itself, not by an adapter of ours."""
    home = next((cls for cls in _OURS if isinstance(backend, cls)), None)
    return home is None or any(getattr(type(backend), name, None) is not getattr(home, name, None) for name in _STORAGE)


class Bridged:
    """Records go to the app's backend as Celery's worker would hand them over: `mark_as_done`, `mark_as_failure` ….

    Each thread uses what `app.backend` is there. Errors that the backend calls safe to try again are
    `OperationalError`: the worker keeps the records and tries again. After any other the record is dropped, and logged.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def save(self, records: Sequence[Record]) -> None:
        backend = self._app.backend
        try:
            for record in records:
                self._save(backend, record)
        finally:
            backend.process_cleanup()

    def _save(self, backend: Any, record: Record) -> None:
        try:
            document = decode(record.meta, backend.serializer, accept_types([backend.serializer]))
            request = self._request(document, record)
            _hand_over(backend, record, document, request)
        except Exception as exc:
            if isinstance(exc, BackendError | OperationalError) or _may_pass(backend, exc):
                raise OperationalError(f"the result backend {type(backend).__name__} failed: {exc}") from exc
            logger.exception("Result %s (%s) could not be stored and is dropped", record.id, record.state)

    def _request(self, document: dict[str, Any], record: Record) -> Any:
        """The call's request, as far as the record carries it."""
        request = self._app.Context(document.get("request") or {}, id=record.id)
        children = document.get("children")
        if children:
            request.children.extend(result_from_tuple(child, self._app) for child in children)
        return request

    # -- chords ------------------------------------------------------------------------------------------------------

    @property
    def barriers(self) -> Bridged:
        """It counts the members of chords in its own way, or leaves that to a task that looks."""
        return self

    def arrive(self, arrivals: Sequence[Arrival]) -> list[Full]:
        """Tell the backend, as Celery's worker does. It sends bodies by itself, so no barrier is ever full here."""
        backend = self._app.backend
        for one in arrivals:
            packed = unpack(one.body)
            _, task_id, state, data = decode_from(one.part, backend.serializer, accept_types([backend.serializer]))
            value = backend.exception_to_python(data) if state in states.EXCEPTION_STATES else data
            kin = {"root_id": packed["root_id"], "group": one.barrier, "group_index": one.index}
            request = self._app.Context(id=task_id, chord=packed["body"], **kin)
            try:
                backend.on_chord_part_return(request, state, value)
            except Exception as exc:
                if isinstance(exc, BackendError | OperationalError) or _may_pass(backend, exc):
                    name = type(backend).__name__
                    raise OperationalError(f"the result backend {name} failed to count {task_id}: {exc}") from exc
                logger.exception("The chord %s cannot be told of %s", one.barrier, task_id)
                self._end(packed["body"], ChordError(f"Dependency {task_id} could not be counted: {exc!r}"))
        return []

    def _end(self, body: Any, error: ChordError) -> None:
        """A chord whose members cannot be counted never fires: its body fails, unless it has ended already."""
        backend, task_id = self._app.backend, body["options"].get("task_id")
        if task_id is not None and backend.get_state(task_id) not in states.READY_STATES:
            backend.chord_error_from_stack(body, error)

    def full(self) -> list[Full]:
        """None is full here."""
        return []

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        backend = self._app.backend
        metas = [backend.get_task_meta(task_id, cache=False) for task_id in ids]
        return [None if meta["status"] == states.PENDING else _encoded(backend, meta) for meta in metas]

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """See `ResultBackend.wait`; looks every 50 ms."""
        backend = self._app.backend
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            metas = {task_id: backend.get_task_meta(task_id) for task_id in ids}
            found = {task_id: meta for task_id, meta in metas.items() if meta["status"] in states.READY_STATES}
            left = _PAUSE if deadline is None else deadline - time.monotonic()
            if found or left <= 0:
                return {task_id: _encoded(backend, meta) for task_id, meta in found.items()}
            time.sleep(min(left, _PAUSE))

    def forget(self, ids: Sequence[str]) -> None:
        for task_id in ids:
            self._app.backend.forget(task_id)

    def close(self) -> None:
        """Connections are the backend's own."""


def _hand_over(backend: Any, record: Record, document: dict[str, Any], request: Any) -> None:
    """As Celery's tracer does it, by the method that is meant for the state."""
    task_id, state, result, text = record.id, record.state, document.get("result"), document.get("traceback")
    if state == states.SUCCESS:
        backend.mark_as_done(task_id, result, request, True, state=state)
    elif state == states.FAILURE:
        backend.mark_as_failure(task_id, result, traceback=text, request=request, call_errbacks=False)
    elif state == states.RETRY:
        backend.mark_as_retry(task_id, result, text, request=request)
    else:
        backend.store_result(task_id, result, state, traceback=text, request=request)


def _may_pass(backend: Any, exc: Exception) -> bool:
    errors = tuple(getattr(backend, "connection_errors", ()) or ())
    return isinstance(exc, errors) or bool(backend.exception_safe_to_retry(exc))


def _encoded(backend: Any, meta: dict[str, Any]) -> bytes:
    result = meta.get("result")
    kept = backend.prepare_exception(result) if isinstance(result, BaseException) else result
    return encode({**meta, "result": kept}, backend.serializer)
