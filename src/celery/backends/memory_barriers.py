"""Adapter. `Barrier` and `Groups` of the backend `memory://`: takes the lock, and the time."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.drivers.memory import Server
    from celery.outcome import Arrival
    from celery.ports import Clock, Full

__all__ = ["LockedBarriers"]


class LockedBarriers:
    """The barriers of a server, for whoever does not hold its lock."""

    def __init__(self, server: Server, expires: float | None, clock: Clock) -> None:
        self._server = server
        self._expires = inf if expires is None else expires
        self._clock = clock

    def until(self) -> float:
        """When what happens now is forgotten."""
        return self._clock.time() + self._expires

    def open(self, id: str, size: int) -> None:
        with self._server.changed:
            self._server.barriers.open(id, size, self.until())

    def grow(self, id: str, more: int) -> None:
        with self._server.changed:
            self._server.barriers.grow(id, more, self.until())

    def arrive(self, arrivals: Sequence[Arrival]) -> list[Full]:
        with self._server.changed:
            return self.put(arrivals)

    def put(self, arrivals: Sequence[Arrival]) -> list[Full]:
        """Arrive, for a caller who holds the server's lock (a consumer that settles)."""
        return self._server.barriers.arrive(arrivals, self._clock.time(), self.until())

    def parts(self, id: str) -> Iterator[list[bytes]]:
        with self._server.changed:
            batches = list(self._server.barriers.parts(id))
        yield from batches

    def full(self) -> list[Full]:
        with self._server.changed:
            return self._server.barriers.full(self._clock.time())

    def fired(self, id: str, *, failed: bool = False) -> None:
        with self._server.changed:
            self._server.barriers.fired(id, failed, self._clock.time())

    def standing(self, id: str) -> tuple[int | None, int]:
        with self._server.changed:
            return self._server.barriers.standing(id)

    def save_group(self, id: str, document: bytes) -> None:
        with self._server.changed:
            self._server.barriers.save_group(id, document, self.until())

    def load_group(self, id: str) -> bytes | None:
        with self._server.changed:
            return self._server.barriers.load_group(id, self._clock.time())

    def delete_group(self, id: str) -> None:
        with self._server.changed:
            self._server.barriers.delete_group(id)
