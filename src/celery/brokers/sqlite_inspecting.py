"""Adapter. Looks at the queues of a broker file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from celery.brokers.inspecting import sent_at
from celery.ports import QueueStats, Resting

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from celery.drivers.sqlite import Handle

__all__ = ["SqliteInspection"]

#: Each of these reads an index alone.
_WAITING = "SELECT queue, count(*), min(id) FROM messages WHERE holder = 0 GROUP BY queue"
_PARKED = "SELECT queue, count(*) FROM messages WHERE holder = -1 GROUP BY queue"
_HELD = "SELECT queue, count(*) FROM messages WHERE holder > 0 GROUP BY queue"
_PEEK = "SELECT id, envelope FROM messages WHERE holder = 0 AND queue = ? ORDER BY priority, id LIMIT ?"


class SqliteInspection:
    """See `Inspection`. The id of a message is that of its row."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        with self._handle.reading as db:
            waiting = {name: (count, _envelope(db, first)) for name, count, first in db.execute(_WAITING).fetchall()}
            held, parked = Counter(dict(db.execute(_HELD))), Counter(dict(db.execute(_PARKED)))
        names = [*dict.fromkeys(queues), *sorted({*waiting, *held, *parked} - {*queues})]
        return [
            QueueStats(name, count, held[name], parked[name], None if envelope is None else sent_at(envelope))
            for name in names
            for count, envelope in [waiting.get(name, (0, None))]
        ]

    def peek(self, queue: str, limit: int) -> list[Resting]:
        with self._handle.reading as db:
            return [Resting(str(id), queue, envelope) for id, envelope in db.execute(_PEEK, (queue, limit))]

    def parked(self, queues: Sequence[str], limit: int, after: Resting | None = None) -> list[Resting]:
        sql, values = "SELECT id, queue, envelope, due FROM messages WHERE holder = -1", list[object]()
        if queues:
            sql += f" AND queue IN ({','.join('?' * len(queues))})"
            values += queues
        if after is not None:
            sql += " AND (due, id) > (?, ?)"
            values += (after.due, int(after.id))
        with self._handle.reading as db:
            rows = db.execute(sql + " ORDER BY due, id LIMIT ?", (*values, limit)).fetchall()
        return [Resting(str(id), queue, envelope, due) for id, queue, envelope, due in rows]

    def cancel(self, ids: Sequence[str]) -> list[str]:
        numbers = [id for id in dict.fromkeys(ids) if id.isascii() and id.isdigit() and len(id) < 19]
        with self._handle.writing as db:
            sql = "DELETE FROM messages WHERE id = ? AND holder = -1"
            return [id for id in numbers if db.execute(sql, (int(id),)).rowcount]


def _envelope(db: sqlite3.Connection, id: int) -> bytes | None:
    row = db.execute("SELECT envelope FROM messages WHERE id = ?", (id,)).fetchone()
    return None if row is None else row[0]
