"""Adapter. The barriers of chords in a broker file, for its backend and for consumers that settle in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.ports import Full

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from celery.drivers.sqlite import Handle
    from celery.outcome import Arrival
    from celery.ports import Clock

__all__ = ["Arrivals", "SqliteBarriers"]

#: Seconds for which whoever fills a barrier is trusted to fire it; a fired one is remembered for this long.
_CLAIM, _REMEMBERED = 30.0, 300.0
#: Where members without a place stand: behind the others, as they came.
_BEHIND = 1e15
#: Parts that are read at once.
_BATCH = 1000

_OPEN = """
    INSERT INTO barriers (id, size, expires) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET size = ?2, expires = ?3, body = NULL, claimed = NULL, done = 0
"""
_KNOWN = "INSERT OR IGNORE INTO barriers (id, expires) VALUES (?, ?)"
_ARRIVE = """
    INSERT OR IGNORE INTO arrivals (barrier, member, place, part)
    SELECT id, ?2, coalesce(?3, ?4 + arrived), ?5 FROM barriers WHERE id = ?1 AND NOT done
"""
_COUNT = "UPDATE barriers SET arrived = arrived + 1, more = more + ?2, expires = ?3 WHERE id = ?1"
_FILL = """
    UPDATE barriers SET body = ?2, claimed = ?3
    WHERE id = ?1 AND arrived >= size + more AND NOT done AND coalesce(claimed, 0) <= ?4
"""
_FULL = """
    UPDATE barriers SET claimed = ?1 WHERE body IS NOT NULL AND NOT done AND coalesce(claimed, 0) <= ?2
    RETURNING id, body
"""
_PARTS = """
    SELECT place, member, part FROM arrivals WHERE barrier = ?1 AND (place, member) > (?2, ?3)
    ORDER BY place, member LIMIT ?4
"""


class Arrivals:
    """Writes what happens at barriers within transactions of others."""

    def __init__(self, expires: float | None, clock: Clock) -> None:
        """`expires`: seconds that a barrier is kept after something happened at it; None: for ever."""
        self._expires = expires
        self._clock = clock

    def open(self, db: sqlite3.Connection, id: str, size: int) -> None:
        db.execute(_OPEN, (id, size, self.until()))

    def grow(self, db: sqlite3.Connection, id: str, more: int) -> None:
        db.execute(_KNOWN, (id, self.until()))
        db.execute("UPDATE barriers SET more = more + ? WHERE id = ?", (more, id))

    def write(self, db: sqlite3.Connection, arrivals: Iterable[Arrival]) -> list[Full]:
        """Note arrivals; returns the barriers that are full now."""
        found = []
        now, until = self._clock.time(), self.until()
        for one in arrivals:
            id = one.barrier
            db.execute(_KNOWN, (id, until))
            if db.execute(_ARRIVE, (id, one.member, one.index, _BEHIND, one.part)).rowcount:
                db.execute(_COUNT, (id, one.more, until))
            if db.execute(_FILL, (id, one.body, now + _CLAIM, now)).rowcount:
                found.append(Full(id, one.body))
        return found

    def take(self, db: sqlite3.Connection, id: str) -> bool:
        """Whether the barrier is full and was not fired yet."""
        return db.execute("SELECT 1 FROM barriers WHERE id = ? AND body IS NOT NULL", (id,)).fetchone() is not None

    def fired(self, db: sqlite3.Connection, id: str, failed: bool) -> None:
        """Only that it was fired is remembered for a while; and what the members came to, if it failed."""
        if failed:
            db.execute("UPDATE barriers SET done = 1, body = NULL WHERE id = ?", (id,))
            return
        db.execute("DELETE FROM arrivals WHERE barrier = ?", (id,))
        sql = "UPDATE barriers SET done = 1, body = NULL, size = NULL, more = 0, arrived = 0, expires = ? WHERE id = ?"
        db.execute(sql, (self._clock.time() + _REMEMBERED, id))

    def clean(self, db: sqlite3.Connection, limit: int) -> bool:
        """Delete what has expired, up to `limit` barriers and groups each; True if there may be more."""
        now = self._clock.time()
        gone = db.execute(
            "SELECT id FROM barriers WHERE expires <= ? ORDER BY expires LIMIT ?", (now, limit)
        ).fetchall()
        db.executemany("DELETE FROM arrivals WHERE barrier = ?", gone)
        db.executemany("DELETE FROM barriers WHERE id = ?", gone)
        sql = "DELETE FROM groups WHERE id IN (SELECT id FROM groups WHERE expires <= ? ORDER BY expires LIMIT ?)"
        return db.execute(sql, (now, limit)).rowcount == limit or len(gone) == limit

    def until(self) -> float | None:
        return None if self._expires is None else self._clock.time() + self._expires


class SqliteBarriers:
    """See `Barrier` and `Groups`."""

    def __init__(self, writer: Handle, reader: Handle, arrivals: Arrivals, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self.arrivals = arrivals
        self._clock = clock

    def open(self, id: str, size: int) -> None:
        with self._writer.writing as db:
            self.arrivals.open(db, id, size)

    def grow(self, id: str, more: int) -> None:
        with self._writer.writing as db:
            self.arrivals.grow(db, id, more)

    def arrive(self, arrivals: Iterable[Arrival]) -> list[Full]:
        with self._writer.writing as db:
            return self.arrivals.write(db, arrivals)

    def parts(self, id: str) -> Iterator[list[bytes]]:
        place, member = -1.0, ""
        while True:
            with self._reader.reading as db:
                rows = db.execute(_PARTS, (id, place, member, _BATCH)).fetchall()
            if not rows:
                return
            place, member, _ = rows[-1]
            yield [part for _, _, part in rows]

    def full(self) -> list[Full]:
        with self._reader.reading as db:
            if db.execute("SELECT 1 FROM barriers WHERE body IS NOT NULL LIMIT 1").fetchone() is None:
                return []
        now = self._clock.time()
        with self._writer.writing as db:
            return [Full(id, body) for id, body in db.execute(_FULL, (now + _CLAIM, now)).fetchall()]

    def fired(self, id: str, *, failed: bool = False) -> None:
        with self._writer.writing as db:
            self.arrivals.fired(db, id, failed)

    def standing(self, id: str) -> tuple[int | None, int]:
        with self._reader.reading as db:
            row = db.execute("SELECT size + more, arrived FROM barriers WHERE id = ?", (id,)).fetchone()
        return (None, 0) if row is None else (row[0], row[1])

    # -- groups ------------------------------------------------------------------------------------------------------

    def save_group(self, id: str, document: bytes) -> None:
        with self._writer.writing as db:
            sql = "INSERT OR REPLACE INTO groups (id, meta, expires) VALUES (?, ?, ?)"
            db.execute(sql, (id, document, self.arrivals.until()))

    def load_group(self, id: str) -> bytes | None:
        with self._reader.reading as db:
            sql = "SELECT meta FROM groups WHERE id = ? AND (expires IS NULL OR expires > ?)"
            row = db.execute(sql, (id, self._clock.time())).fetchone()
        return None if row is None else row[0]

    def delete_group(self, id: str) -> None:
        with self._writer.writing as db:
            db.execute("DELETE FROM groups WHERE id = ?", (id,))
