"""Compatibility. What third-party backends derive from: `celery.backends.base` as Celery has it ([backend.4])."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from celery import states
from celery.app import unlocking
from celery.backends.wide import Backend, SyncBackendMixin, unpickle_backend
from celery.current import get_current_task
from celery.exceptions import BackendGetMetaError, BackendStoreError, ChordError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import result_from_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from celery.backends.encoding import Meta

__all__ = [
    "Backend", "BackendGetMetaError", "BackendStoreError", "BaseBackend", "BaseDictBackend", "BaseKeyValueStoreBackend",
    "ChordError", "DisabledBackend", "KeyValueStoreBackend", "SyncBackendMixin", "get_current_task", "unpickle_backend",
]  # fmt: skip

E_NO_BACKEND = (
    "No result backend is configured.\n"
    "Set result_backend (or make the app with backend=…) to a URL such as 'redis://' or 'sqlite:///results.db'."
)
E_CHORD_NO_BACKEND = (
    "Starting chords requires a result backend to be configured.\n"
    "A group that is chained with a task becomes a chord too, since the task waits for the whole group. "
    "Set result_backend to a URL such as 'redis://' or 'sqlite:///results.db'."
)


class BaseBackend(Backend, SyncBackendMixin):
    """The base of most third-party backends."""


BaseDictBackend = BaseBackend


class DisabledBackend(BaseBackend):
    """No results are kept: writing does nothing, reading raises `NotImplementedError` ([backend.7])."""

    persistent = False
    thread_safe = True
    supports_autoexpire = True

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        return None

    def _warn_of_failure_expires(self) -> None:
        """Nothing is kept, so nothing is kept too long."""

    def prepare_compression(self, compression: str | None) -> str | None:
        return None

    def _is_disabled(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(E_NO_BACKEND)

    get_state = get_status = get_result = get_traceback = get_task_meta_for = wait_for = get_many = _is_disabled
    get_task_meta = task_result_exists = forget = wait_ready = wait_for_pending = get_group_meta = _is_disabled

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        return "disabled://"

    def ensure_chords_allowed(self) -> None:
        raise NotImplementedError(E_CHORD_NO_BACKEND)


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


class BaseKeyValueStoreBackend(Backend):
    """Keeps each document under a key.

    Subclasses bring `get`, `set`, `delete`, and `mget`, `incr`, `expire` if they can.
    Keys are what `key_t` makes of text: bytes.
    """

    key_t: Callable[[Any], Any] = staticmethod(_as_bytes)
    task_keyprefix: Any = "celery-task-meta-"
    group_keyprefix: Any = "celery-taskset-meta-"
    chord_keyprefix: Any = "chord-unlock-"
    implements_incr = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.app.conf.result_backend_transport_options or {}
        prefix = options.get("global_keyprefix") or ""
        if prefix and prefix[-1] not in ":_-.":
            prefix += "_"
        names = ("task_keyprefix", "group_keyprefix", "chord_keyprefix")
        for name in names:
            setattr(self, name, self.key_t(self.key_t(prefix) + self.key_t(getattr(self, name))))

    # -- for subclasses ----------------------------------------------------------------------------------------------

    def get(self, key: Any) -> Any:
        """What is kept under the key, or None."""
        raise NotImplementedError("Must implement the get method.")

    def mget(self, keys: Sequence[Any]) -> Any:
        """What is kept under each key, in order; or a dict of what was found."""
        raise NotImplementedError("Does not support get_many")

    def set(self, key: Any, value: Any) -> Any:
        raise NotImplementedError("Must implement the set method.")

    def delete(self, key: Any) -> Any:
        raise NotImplementedError("Must implement the delete method")

    def incr(self, key: Any) -> Any:
        raise NotImplementedError("Does not implement incr")

    def expire(self, key: Any, value: Any) -> Any:
        raise NotImplementedError("Does not implement expire")

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        """`set`, for storages that treat states differently."""
        return self.set(key, value)

    # -- keys --------------------------------------------------------------------------------------------------------

    def get_key_for_task(self, task_id: str, key: Any = "") -> Any:
        return self._get_key_for(self.task_keyprefix, task_id, key)

    def get_key_for_group(self, group_id: str, key: Any = "") -> Any:
        return self._get_key_for(self.group_keyprefix, group_id, key)

    def get_key_for_chord(self, group_id: str, key: Any = "") -> Any:
        return self._get_key_for(self.chord_keyprefix, group_id, key)

    def _get_key_for(self, prefix: Any, id: str, key: Any = "") -> Any:
        return self.key_t(prefix) + self.key_t(id) + self.key_t(key)

    def _strip_prefix(self, key: Any) -> str:
        """The id that a key was made of."""
        text = self.key_t(key)
        for prefix in map(self.key_t, (self.task_keyprefix, self.group_keyprefix, self.chord_keyprefix)):
            text = text.removeprefix(prefix)
        return text.decode() if isinstance(text, bytes) else str(text)

    # -- documents ---------------------------------------------------------------------------------------------------

    def task_result_exists(self, task_id: str) -> bool:
        return self.get(self.get_key_for_task(task_id)) is not None

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        meta = self._get_result_meta(result, state, traceback, request)
        meta["task_id"] = task_id
        if self._get_task_meta_for(task_id)["status"] != states.SUCCESS:
            self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        return result

    def _get_task_meta_for(self, task_id: str) -> Meta:
        payload = self.get(self.get_key_for_task(task_id))
        return self.decode_result(payload) if payload else {"status": states.PENDING, "result": None}

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))

    def _save_group(self, group_id: str, result: Any) -> Any:
        self._set_with_state(
            self.get_key_for_group(group_id), self.encode({"result": result.as_tuple()}), states.SUCCESS
        )
        return result

    def _restore_group(self, group_id: str) -> Meta | None:
        payload = self.get(self.get_key_for_group(group_id))
        if not payload:
            return None
        meta: Meta = self.decode(payload)
        return {**meta, "result": result_from_tuple(meta["result"], self.app)}

    def _delete_group(self, group_id: str) -> None:
        self.delete(self.get_key_for_group(group_id))

    # -- chords: those that can count do so ------------------------------------------------------------------------

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Keep the header, so that whoever runs its last member can join it; else send the task that looks."""
        self.ensure_chords_allowed()
        if not self.implements_incr:
            super().apply_chord(header_result_args, body, **kwargs)
            return
        header = header_result_args
        (self.app.GroupResult(*header) if isinstance(header, tuple) else header).save(backend=self)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a member that has come to its end; the last one sends the body ([rkeys.10])."""
        group_id = request.group
        if not (self.implements_incr and group_id):
            return
        header = self.restore_group(group_id)
        if header is None:
            unlocking.fail_body(self.app, request.chord, ValueError(f"Chord {group_id!r} no longer exists"))
            return
        key = self.get_key_for_chord(group_id)
        arrived = self.incr(key)
        size = unlocking.size_of(request.chord) or len(header)
        if arrived >= size:
            try:
                unlocking.join_and_send(self.app, header, request.chord, request)
            finally:
                header.delete(backend=self)
                self.delete(key)
        else:
            self.expire(key, self.expires)

    # -- many at once ------------------------------------------------------------------------------------------------

    def get_many(
        self,
        task_ids: Iterable[Any],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: Any = states.READY_STATES,  # noqa: N803 - a public name
    ) -> Iterator[tuple[str, Meta]]:
        """Yield `(id, document)` as tasks become ready, asking for all at once ([backend.36]).

        Raises `celery.exceptions.TimeoutError`; 0 looks once.
        """
        waiting = dict.fromkeys(getattr(task_id, "id", task_id) for task_id in task_ids)
        deadline = None if timeout is None else time.monotonic() + timeout
        rounds = 0
        while waiting:
            for task_id, meta in self._look_at(list(waiting), READY_STATES).items():
                del waiting[task_id]
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            rounds += 1
            if not waiting or (max_iterations and rounds >= max_iterations):
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise CeleryTimeoutError(f"Operation timed out ({timeout})")
            if on_interval is not None:
                on_interval()
            time.sleep(interval if deadline is None else min(interval, max(deadline - time.monotonic(), 0.0)))

    def _look_at(self, task_ids: list[str], ready: Any) -> dict[str, Meta]:
        known = {task_id: self._cache[task_id] for task_id in task_ids if task_id in self._cache}
        keys = [self.get_key_for_task(task_id) for task_id in task_ids if task_id not in known]
        return {**known, **self._mget_to_results(self.mget(keys) if keys else [], keys, ready)}

    def _mget_to_results(self, values: Any, keys: Sequence[Any], READY_STATES: Any = states.READY_STATES) -> Any:  # noqa: N803
        """The ready ones of what `mget` gave, by id."""
        pairs = values.items() if hasattr(values, "items") else zip(keys, values, strict=True)
        found = {}
        for key, payload in pairs:
            meta = self.decode_result(payload) if payload is not None else None
            if meta is not None and meta["status"] in READY_STATES:
                task_id = self._strip_prefix(key)
                found[task_id] = self._remember(task_id, meta)
        return found


class KeyValueStoreBackend(BaseKeyValueStoreBackend, SyncBackendMixin):
    """The base of third-party key/value backends."""
