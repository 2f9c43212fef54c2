"""Adapter. The result backend `memory://` (also `cache+memory://`): records within one process."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from celery.backends.memory_barriers import LockedBarriers
from celery.drivers.memory import server_of
from celery.ports import SystemClock
from celery.states import READY_STATES, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery.outcome import Record
    from celery.ports import BackendConfig, Clock

__all__ = ["MemoryBackend"]

#: Seconds between two looks for expired records.
CLEANUP_EVERY = 60.0


class MemoryBackend:
    """Keeps records for the threads of a process. A forked child begins with none."""

    def __init__(self, config: BackendConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self.server = server_of(config.url)
        self._expires = inf if config.expires is None else config.expires
        self._clock = clock
        #: See `Barrier` and `Groups`.
        self.barriers = self.groups = LockedBarriers(self.server, config.chord_expires, clock)
        self._next_cleanup = 0.0
        self.url_text = config.url if "://" in config.url else "memory://"

    def save(self, records: Sequence[Record]) -> None:
        with self.server.changed:
            self.put(records)

    def put(self, records: Iterable[Record]) -> None:
        """Save, for a caller who holds the server's lock (a consumer that settles)."""
        now = self._clock.time()
        if now >= self._next_cleanup:
            self._next_cleanup = now + CLEANUP_EVERY
            self.server.drop_expired(now)
        self.server.save(records, now, now + self._expires)

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        server, now = self.server, self._clock.time()
        with server.changed:
            return [server.load(id, now) for id in ids]

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        server = self.server
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        with server.changed:
            while True:
                found = server.ready(ids, self._clock.time())
                remaining = None if deadline is None else deadline - self._clock.monotonic()
                if found or (remaining is not None and remaining <= 0):
                    return found
                if not server.changed.wait(remaining):
                    return server.ready(ids, self._clock.time())

    def watch(self, id: str, timeout: float | None, heard: Callable[[bytes], object]) -> bytes | None:
        """See `Watching.watch`."""
        server, told = self.server, deque[tuple[str, bytes]]()
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        with server.changed:
            told.extend((SUCCESS, document) for document in server.ready([id], self._clock.time()).values())
            server.listeners.setdefault(id, []).append(told)
        try:
            while self._something(told, deadline):
                state, document = told.popleft()
                heard(document)
                if state in READY_STATES:
                    return document
            return None
        finally:
            with server.changed:
                server.deafen(id, told)

    def _something(self, told: deque[tuple[str, bytes]], deadline: float | None) -> bool:
        """Whether anything was told before the deadline."""
        left = None if deadline is None else max(deadline - self._clock.monotonic(), 0.0)
        with self.server.changed:
            return bool(self.server.changed.wait_for(lambda: told, left))

    def forget(self, ids: Sequence[str]) -> None:
        with self.server.changed:
            self.server.forget(ids)

    def close(self) -> None:
        """There is nothing to close: the records stay for whoever names the URL next."""
