"""Adapter. The statements that move messages within a broker file; each runs in its caller's transaction."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from celery.brokers.bindings import matches, pattern_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from celery.ports import Publication
    from celery.routing import QueueSpec

__all__ = [
    "Row", "attend", "bind", "claim", "claim_due", "depth", "leave", "next_due", "put", "put_row", "register",
    "row_of", "unregister", "waiting",
]  # fmt: skip

#: (priority, id, queue, redelivered, deaths, envelope)
Row = tuple[int, int, str, int, int, bytes]

_PUT = "INSERT INTO messages (queue, priority, envelope) VALUES (?, ?, ?)"
#: The driver keeps a statement together with the values last bound to it, until it is used again. Nothing can unbind
#: them but other values: those of `_NOTHING`, with which this one does not write.
_PUT_LARGE = "INSERT INTO messages (queue, priority, envelope) SELECT ?1, ?2, ?3 WHERE ?3 IS NOT NULL"
_NOTHING = (None, None, None)
#: Bytes of an envelope that are too many to be kept for nothing.
_LARGE = 1 << 18
_BIND = "INSERT OR IGNORE INTO bindings (exchange, kind, routing_key, queue) VALUES (?, ?, ?, ?)"
_CLAIM = """
    UPDATE messages SET holder = ?
    WHERE id IN (SELECT id FROM messages WHERE holder = 0 AND queue = ? ORDER BY priority, id LIMIT ?)
    RETURNING priority, id, queue, redelivered, deaths, envelope
"""
_DUE = """
    SELECT due, id FROM messages WHERE holder = -1 AND queue = ? AND due <= ?
    AND priority <= ifnull((SELECT min(priority) FROM messages WHERE holder = 0 AND queue = ?), priority)
    ORDER BY due LIMIT ?
"""
_CLAIM_DUE = """
    UPDATE messages SET holder = ?, due = NULL WHERE id = ?
    RETURNING priority, id, queue, redelivered, deaths, envelope
"""


def row_of(publication: Publication, now: float) -> tuple[str, int, bytes]:
    """What is put on a queue: the one that the routing key names, where there is no exchange."""
    message = publication.message
    envelope = message.to_envelope(f"{message.id}.{message.retries}@{now:.3f}")  # read by `inspecting.sent_at`
    return publication.route.routing_key, message.priority, envelope


def put(db: sqlite3.Connection, publications: Sequence[Publication], now: float) -> list[Publication]:
    """Put messages on their queues, in order; returns those that no queue is bound for: they are dropped."""
    rows: list[tuple[str, int, bytes]] = []
    dropped: list[Publication] = []
    for publication in publications:
        route = publication.route
        row = row_of(publication, now)
        if not route.exchange:
            rows.append(row)
            continue
        if route.queue is not None and route.queue.declare:
            bind(db, [route.queue])
        bound = _bound(db, route.exchange, route.routing_key, publication.message.headers)
        if not bound:
            dropped.append(publication)
        rows += [(queue, *row[1:]) for queue in bound]
    if rows and len(rows[-1][2]) > _LARGE:  # the last one's values would stay
        db.executemany(_PUT_LARGE, [*rows, _NOTHING])
    else:
        db.executemany(_PUT, rows)
    return dropped


def put_row(db: sqlite3.Connection, row: tuple[str, int, bytes]) -> None:
    """Put one where `row_of` says: nearly every `delay()`."""
    if len(row[2]) > _LARGE:
        db.executemany(_PUT_LARGE, (row, _NOTHING))
    else:
        db.execute(_PUT, row)


def bind(db: sqlite3.Connection, queues: Iterable[QueueSpec]) -> None:
    """Bind queues to their exchanges. On the default exchange a queue needs nothing: it is where its messages are."""
    rows = [
        (binding.exchange.name, binding.exchange.type, pattern_of(binding), queue.name)
        for queue in queues
        if not queue.no_declare
        for binding in queue.bound
    ]
    db.executemany(_BIND, rows)


def attend(db: sqlite3.Connection, holder: int, queues: Iterable[QueueSpec]) -> None:
    """Bind queues that the holder takes from. Those that are deleted with their last consumer are his as well."""
    queues = list(queues)
    bind(db, queues)
    rows = [(queue.name, holder) for queue in queues if queue.auto_delete]
    db.executemany("INSERT OR IGNORE INTO transient (queue, holder) VALUES (?, ?)", rows)


def leave(db: sqlite3.Connection, holder: int, name: str | None = None) -> None:
    """The holder takes no more from a queue, or from any: queues that nobody is left for go, with what lies in them."""
    mine = [queue for (queue,) in db.execute("SELECT queue FROM transient WHERE holder = ?", (holder,))]
    for queue in mine:
        if name not in (None, queue):
            continue
        db.execute("DELETE FROM transient WHERE queue = ? AND holder = ?", (queue, holder))
        if db.execute("SELECT 1 FROM transient WHERE queue = ?", (queue,)).fetchone() is None:
            db.execute("DELETE FROM bindings WHERE queue = ?", (queue,))
            db.execute("DELETE FROM messages WHERE queue = ? AND holder <= 0", (queue,))


def _bound(db: sqlite3.Connection, exchange: str, routing_key: str, headers: Mapping[str, Any]) -> dict[str, None]:
    rows = db.execute("SELECT kind, routing_key, queue FROM bindings WHERE exchange = ?", (exchange,))
    return dict.fromkeys(queue for kind, key, queue in rows if matches(kind, key, routing_key, headers))


def waiting(db: sqlite3.Connection, names: Sequence[str]) -> bool:
    """Whether any of the queues has a message to take."""
    marks = ",".join("?" * len(names))
    sql = f"SELECT 1 FROM messages WHERE holder = 0 AND queue IN ({marks}) LIMIT 1"  # noqa: S608 - question marks
    return db.execute(sql, names).fetchone() is not None


def claim(db: sqlite3.Connection, holder: int, names: list[str], limit: int) -> list[Row]:
    """Take up to `limit` messages into the holder's custody, equally from each queue.

    `names` is turned so that the next call begins where this one ended.
    """
    taken: dict[str, list[Row]] = {}
    missing, asked = limit, 0
    for at, name in enumerate(names):
        if not missing:
            break
        share = -(-missing // (len(names) - at))
        taken[name] = _claim(db, holder, name, share)
        missing -= len(taken[name])
        asked += 1
    for name in [name for name, rows in taken.items() if rows]:  # those after it had less than their share
        if missing:
            more = _claim(db, holder, name, missing)
            taken[name] += more
            missing -= len(more)
    turn = asked if asked < len(names) else 1
    names[:] = names[turn:] + names[:turn]
    if len(taken) == 1:
        return next(iter(taken.values()))
    return [row for row in chain.from_iterable(zip_longest(*taken.values())) if row is not None]


def _claim(db: sqlite3.Connection, holder: int, name: str, limit: int) -> list[Row]:
    rows: list[Row] = db.execute(_CLAIM, (holder, name, limit)).fetchall()
    rows.sort()  # RETURNING keeps no order; the id decides before anything that does not compare
    return rows


def claim_due(db: sqlite3.Connection, holder: int, names: Iterable[str], limit: int, now: float) -> list[Row]:
    """Take up to `limit` parked messages whose time has come, the earliest first, whatever their queue; but none while
    its queue has a more urgent one."""
    due = sorted(row for name in names for row in db.execute(_DUE, (name, now, name, limit)))
    return [db.execute(_CLAIM_DUE, (holder, tag)).fetchone() for _, tag in due[:limit]]


def next_due(db: sqlite3.Connection, names: Sequence[str]) -> float | None:
    """When the next parked message of these queues is due; None: there is none."""
    sql = "SELECT min(due) FROM messages WHERE holder = -1 AND queue = ?"
    dues = [due for name in names if (due := db.execute(sql, (name,)).fetchone()[0]) is not None]
    return min(dues, default=None)


def depth(db: sqlite3.Connection, queue: str, now: float) -> int:
    """How many messages of a queue wait to be taken, those whose time has come among them."""
    sql = "SELECT count(*) FROM messages WHERE holder = 0 AND queue = ?"
    (waiting,) = db.execute(sql, (queue,)).fetchone()
    sql = "SELECT count(*) FROM messages WHERE holder = -1 AND queue = ? AND due <= ?"
    (due,) = db.execute(sql, (queue, now)).fetchone()
    return int(waiting + due)


def register(db: sqlite3.Connection, node: str, pid: int) -> int:
    """A number for a new holder, never used before."""
    holder = db.execute("INSERT INTO holders (node, pid) VALUES (?, ?)", (node, pid)).lastrowid
    assert holder is not None
    return holder


def unregister(db: sqlite3.Connection, holder: int, *, dead: bool = False) -> int:
    """Give back what the holder has, marked redelivered, and forget it; returns how many messages that were.

    `dead`: it is gone without a word. What it may have run counts a death (`ports.Blaming`).
    """
    blame = "deaths = deaths + (redelivered = 0 OR begun), " if dead else ""
    sql = f"""
        UPDATE messages SET {blame} begun = 0, holder = 0, redelivered = redelivered + 1
        WHERE holder = ? AND holder > 0
    """  # noqa: S608 - no values
    n = db.execute(sql, (holder,)).rowcount
    leave(db, holder)
    db.execute("DELETE FROM holders WHERE id = ?", (holder,))
    return n
