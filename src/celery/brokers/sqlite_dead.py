"""Adapter. The dead letters of a broker file: buried in the transaction that takes the message from its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.brokers.dead_letters import Overflow
from celery.ports import DeadLetter

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celery.drivers.sqlite import Handle
    from celery.ports import Clock, DeadLetterBounds

__all__ = ["Cemetery", "SqliteDeadLetters"]

_BURY = """
    INSERT INTO dead_letters (queue, priority, deaths, died_at, size, reason, traceback, envelope)
    SELECT queue, priority, deaths + ?1, ?2, length(envelope) + ?3, ?4, ?5, envelope FROM messages WHERE id = ?6
    RETURNING queue
"""
# The newest letters that fit are kept. Their sizes are in the index: no letter is read.
_CUT = """
    DELETE FROM dead_letters WHERE queue = ?1 AND id <= (
        SELECT max(id) FROM (
            SELECT id, row_number() OVER newest AS place, sum(size) OVER newest AS total
            FROM dead_letters WHERE queue = ?1 WINDOW newest AS (ORDER BY id DESC)
        ) WHERE place > ?2 OR total > ?3
    )
"""
_EXPIRE = "DELETE FROM dead_letters WHERE queue = ? AND died_at < ?"
_LETTER = "SELECT CAST(id AS TEXT), queue, envelope, reason, traceback, died_at, deaths FROM dead_letters"
_NEWEST = f"{_LETTER} WHERE queue = ? AND id < ? AND died_at >= ? ORDER BY id DESC LIMIT ?"
# As it came, but for the mark that somebody held it: it runs alone, and is blamed if it kills again.
_REQUEUE = """
    INSERT INTO messages (queue, priority, redelivered, envelope)
    SELECT queue, priority, 1, envelope FROM dead_letters WHERE id = ?
"""
_LAST = 1 << 62


class Cemetery:
    """Buries what a consumer rejects."""

    def __init__(self, bounds: DeadLetterBounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._overflow = Overflow()

    def bury(self, db: sqlite3.Connection, refused: Iterable[tuple[str, str, int, int]]) -> None:
        """(reason, traceback, died, message id) of each; within the caller's transaction."""
        now, bounds = self._clock.time(), self._bounds
        queues: set[str] = set()
        for reason, traceback, died, id in refused:
            size = len(reason.encode()) + len(traceback.encode())
            rows = db.execute(_BURY, (died, now, size, reason, traceback, id)).fetchall()
            queues.update(queue for (queue,) in rows)
            db.execute("DELETE FROM messages WHERE id = ?", (id,))
        for queue in queues:
            db.execute(_EXPIRE, (queue, now - bounds.age))
            dropped = db.execute(_CUT, (queue, bounds.count, bounds.size)).rowcount
            self._overflow.note(queue, dropped)


class SqliteDeadLetters:
    """See `DeadLetters`."""

    def __init__(self, handle: Handle, bounds: DeadLetterBounds, clock: Clock) -> None:
        self._handle = handle
        self._bounds = bounds
        self._clock = clock

    def queues(self) -> list[str]:
        sql = "SELECT DISTINCT queue FROM dead_letters WHERE died_at >= ? ORDER BY queue"
        with self._handle.reading as db:
            return [queue for (queue,) in db.execute(sql, (self._oldest,))]

    def counts(self) -> dict[str, int]:
        with self._handle.reading as db:
            oldest = self._clock.time() - self._bounds.age
            sql = "SELECT queue, count(*) FROM dead_letters WHERE died_at >= ? GROUP BY queue"
            return dict(db.execute(sql, (oldest,)).fetchall())

    def newest(self, queue: str, limit: int, before: str = "") -> list[DeadLetter]:
        with self._handle.reading as db:
            rows = db.execute(_NEWEST, (queue, int(before or _LAST), self._oldest, limit)).fetchall()
        return [DeadLetter(*row) for row in rows]

    def find(self, ids: Sequence[str]) -> list[DeadLetter]:
        with self._handle.reading as db:
            rows = [db.execute(f"{_LETTER} WHERE id = ?", (id,)).fetchone() for id in _numbers(ids)]
        return [DeadLetter(*row) for row in rows if row is not None]

    def requeue(self, ids: Sequence[str]) -> int:
        numbers = _numbers(ids)
        with self._handle.writing as db:
            for id in numbers:
                db.execute(_REQUEUE, (id,))
            return _delete(db, numbers)

    def discard(self, ids: Sequence[str]) -> int:
        with self._handle.writing as db:
            return _delete(db, _numbers(ids))

    @property
    def _oldest(self) -> float:
        return self._clock.time() - self._bounds.age


def _numbers(ids: Sequence[str]) -> list[int]:
    """What is no number is the id of nothing here. Each once: a letter goes back once."""
    return [int(id) for id in dict.fromkeys(ids) if id.isascii() and id.isdigit() and len(id) < 19]


def _delete(db: sqlite3.Connection, numbers: Iterable[int]) -> int:
    return sum(db.execute("DELETE FROM dead_letters WHERE id = ?", (id,)).rowcount for id in numbers)
