"""Adapter. Writing result records into a broker file: for its backend, and for consumers that settle in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from celery.drivers.sqlite import File
    from celery.outcome import Record
    from celery.ports import Clock

__all__ = ["Records"]

# SUCCESS is final ([state.10]), until it has expired.
_SAVE = """
    INSERT INTO results (id, state, meta, expires) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, meta = excluded.meta, expires = excluded.expires
    WHERE results.state <> 'SUCCESS' OR results.expires <= ?5
"""
_CLEAN = "DELETE FROM results WHERE id IN (SELECT id FROM results WHERE expires <= ? ORDER BY expires LIMIT ?)"


class Records:
    """Writes records with the expiry of one backend."""

    def __init__(self, file: File, expires: float | None, clock: Clock) -> None:
        self.file = file
        self._expires = expires
        self._clock = clock

    def write(self, db: sqlite3.Connection, records: Iterable[Record]) -> None:
        """Store records within the caller's transaction."""
        now = self._clock.time()
        expires = None if self._expires is None else now + self._expires
        db.executemany(_SAVE, [(record.id, record.state, record.meta, expires, now) for record in records])

    def clean(self, db: sqlite3.Connection, limit: int) -> bool:
        """Delete up to `limit` expired records; True if there may be more."""
        return db.execute(_CLEAN, (self._clock.time(), limit)).rowcount == limit
