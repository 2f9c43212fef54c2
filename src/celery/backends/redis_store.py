"""Adapter. Redis as a result backend, with Celery's keys and channels: real clients wait on ours and ours on theirs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.backends.readiness import is_ready
from celery.backends.redis_barriers import RedisBarriers
from celery.backends.redis_waiting import Waiting
from celery.documents import COMPRESSED
from celery.drivers.redis import open_endpoint
from celery.drivers.redis_pool import LinkPool
from celery.drivers.redis_scripts import Script
from celery.ports import Clock, SystemClock
from celery.states import FAILURE, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.outcome import Record
    from celery.ports import BackendConfig, Finding

__all__ = ["RedisStore"]

#: What stands before a task's id in its key, which is also the name of its channel (`[rkeys.1]`, `[rkeys.2]`).
TASK_KEY = "celery-task-meta-"
_LUA = Path(__file__).parent / "lua"
_SAVE = Script(_LUA / "record.lua", _LUA / "save.lua")
#: Records that one script call stores, so that it never holds up the server for long.
_MOST = 1000


class RedisStore:
    """Stores state documents under Celery's keys, tells them on the channels of the same names, waits on those."""

    def __init__(self, config: BackendConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self.endpoint = open_endpoint(config.url, config.options, config.ssl, config.connect_timeout)
        prefix = _separated(config.key_prefix or self.endpoint.prefix)
        self.key_prefix = prefix + TASK_KEY
        #: Seconds as the server takes them; "" keeps for ever (`[state.13]`).
        self.ttl = _seconds(config.expires)
        self.failure_ttl = self.ttl if config.failure_expires is None else _seconds(config.failure_expires)
        self._pool = LinkPool(self.endpoint, config.pool_limit)
        self._state_of = config.state_of
        self._waiting = Waiting(self.endpoint, self.key_prefix, clock, config.state_of, load=self.load)
        #: See `Barrier` and `Groups`.
        self.barriers = self.groups = RedisBarriers(
            self._pool,
            prefix,
            ordered=bool(config.options.get("result_chord_ordered", True)),
            seconds=_seconds(config.chord_expires),
            task_key=self.key_prefix,
            ttl_of=self.ttl_of,
        )

    def save(self, records: Sequence[Record]) -> None:
        """See `ResultBackend.save`: one script call a thousand records. A SUCCESS is final (`[state.10]`)."""
        for first in range(0, len(records), _MOST):
            arguments: list[Any] = []
            for record in self._new(records[first : first + _MOST]):
                arguments += (self.key_prefix + record.id, record.meta, self.ttl_of(record.state))
            if arguments:
                self._pool.run([_SAVE.call((), arguments)])

    def ttl_of(self, state: str) -> str:
        """Seconds that a record in that state is kept, as the server takes them; "" for ever."""
        return self.failure_ttl if state == FAILURE else self.ttl

    def _new(self, records: Sequence[Record]) -> Sequence[Record]:
        """Without those of tasks whose success is kept compressed, or in a serializer of the user's own: the script
        cannot read that."""
        if self._state_of is None and not any(record.meta.startswith(COMPRESSED) for record in records):
            return records
        heads = [("GETRANGE", self.key_prefix + record.id, 0, len(COMPRESSED) - 1) for record in records]
        marked = [head == COMPRESSED or (self._state_of is not None and bool(head)) for head in self._pool.run(heads)]
        stored = iter(self.load([record.id for record, found in zip(records, marked, strict=True) if found]))
        return [
            record
            for record, found in zip(records, marked, strict=True)
            if not found or not is_ready(next(stored) or b"", (SUCCESS,), self._state_of)
        ]

    def examine(self) -> Sequence[Finding]:
        """See `Examinable`."""
        from celery.drivers.redis_checks import examine

        return examine(self._pool)

    def server_time(self) -> float:
        """See `Examinable.server_time`."""
        from celery.drivers.redis_checks import server_time

        return server_time(self._pool)

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        """See `ResultBackend.load`."""
        if not ids:
            return []
        documents: list[bytes | None] = self._pool.run([("MGET", *(self.key_prefix + id_ for id_ in ids))])[0]
        return documents

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """See `ResultBackend.wait`. Subscribes, then looks, in one round trip."""
        if timeout is not None and timeout <= 0:
            stored = zip(ids, self.load(ids), strict=True)
            return {id_: document for id_, document in stored if document is not None and self._is_ready(document)}
        return self._waiting.wait(ids, timeout)

    def each(self, ids: Sequence[str], patience: Callable[[], float | None]) -> Iterator[dict[str, bytes]]:
        """See `Streaming.each`."""
        return self._waiting.each(ids, patience)

    def _is_ready(self, document: bytes) -> bool:
        return is_ready(document, state_of=self._state_of)

    def watch(self, id: str, timeout: float | None, heard: Callable[[bytes], object]) -> bytes | None:
        """See `Watching.watch`: each message of the task's channel."""
        return self._waiting.watch(id, timeout, heard)

    def forget(self, ids: Sequence[str]) -> None:
        """Remove the records."""
        if ids:
            self._pool.run([("DEL", *(self.key_prefix + id_ for id_ in ids))])

    def close(self) -> None:
        """See `ResultBackend.close`."""
        self._pool.close()
        self._waiting.close()

    def __repr__(self) -> str:
        return f"<RedisStore: {self.endpoint.shown}>"


def _seconds(expires: float | None) -> str:
    return str(max(math.ceil(expires), 1)) if expires else ""


def _separated(prefix: str) -> str:
    """A global prefix as Celery puts it before result keys: with an underscore, unless it ends in a separator."""
    return prefix if not prefix or prefix[-1] in ":_-." else prefix + "_"
