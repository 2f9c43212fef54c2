"""Adapter. Notices in a file: rows with a short life, written only where somebody listens.

A listener is alive as long as it holds its lock (`drivers.custody`), which ends with its process: no clock says who is
dead. What is told to everybody is one row that each listener reads; what is told to a mailbox of replies is taken by
one of those who listen there.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, TypeAlias

from celery import exceptions
from celery.brokers.bindings import matches
from celery.brokers.notices import MalformedNotice, from_envelope, to_envelope
from celery.drivers.custody import lock_file
from celery.drivers.sqlite import Handle, Watch
from celery.waits import wait_readable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celery.drivers.sqlite import File
    from celery.ports import Clock, Notice
    from celery.routing import QueueSpec

__all__ = ["SqliteListener", "Teller"]

logger = logging.getLogger("celery.brokers.sqlite")

#: Seconds that a notice is kept for those who have not read it yet, and how many are kept at most.
_KEPT, _MOST = 30.0, 10_000
#: Seconds between two searches for listeners that have died.
_BURY_EVERY = 5.0
#: Seconds between two looks at the file while waiting.
_PAUSES = (0.001, 0.002, 0.005, 0.01, *[0.025] * 80, 0.05)

#: A listener's number, and its mailbox: name, exchange, kind and routing key.
_Bound: TypeAlias = "tuple[int, str, str, str, str]"

_BOUND = "SELECT listener, name, exchange, kind, routing_key FROM mailboxes WHERE exchange IN ({})"
_TELL = "INSERT INTO notices (mailbox, exchange, told, envelope) VALUES (?, ?, ?, ?)"
_SWEEP = "DELETE FROM notices WHERE told < ? OR told > ? OR id <= (SELECT max(id) FROM notices) - ?"
_HEAR = """
    SELECT id, mailbox, envelope FROM notices
    WHERE (mailbox IS NULL AND id > ? AND exchange IN ({})) OR mailbox IN ({}) ORDER BY id
"""
_TAKE = "DELETE FROM notices WHERE id = ? RETURNING id"
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'notices'"


class Teller:
    """Writes notices, and takes away what dead listeners have left. Thread-safe."""

    def __init__(self, file: File, timeout: float, clock: Clock) -> None:
        self._clock = clock
        self._locks = lock_file(file.path + "-listeners")
        #: A notice need not survive a power cut.
        self._handle = Handle(file, "NORMAL", timeout)
        self._next_burial = 0.0

    def tell(self, notices: Sequence[Notice]) -> int:
        """See `Broadcasting.tell`. Writes nothing if nobody listens."""
        exchanges = list({notice.exchange for notice in notices})
        if not exchanges:
            return 0
        self._bury_now_and_then()
        question = _BOUND.format(_marks(exchanges))
        with self._handle.reading as db:
            bound = db.execute(question, exchanges).fetchall()
        if not any(_is_for(notice, row) for notice in notices for row in bound):
            return 0
        now = self._clock.time()
        with self._handle.writing as db:
            bound = db.execute(question, exchanges).fetchall()
            db.executemany(_TELL, [row for notice in notices for row in _rows(notice, bound, now)])
            db.execute(_SWEEP, (now - _KEPT, now + _KEPT, _MOST))
        return sum(_told(notice, bound) for notice in notices)

    def bury(self) -> None:
        """Take away the mailboxes of listeners that have died, and what was told to nobody else."""
        with self._handle.reading as db:
            listeners = [listener for (listener,) in db.execute("SELECT id FROM listeners")]
        for listener in listeners:
            if not self._locks.inherit(listener):
                continue
            try:
                with self._handle.writing as db:
                    forget(db, listener)
            finally:
                self._locks.release(listener)

    def _bury_now_and_then(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_burial:
            self._next_burial = now + _BURY_EVERY
            self.bury()

    def close(self) -> None:
        self._handle.close()


class SqliteListener:
    """See `ports.Listener`. Sees what is new within 50 ms."""

    def __init__(self, file: File, timeout: float, mailboxes: Sequence[QueueSpec]) -> None:
        self._mailboxes = list(mailboxes)
        self._handle = Handle(file, "NORMAL", timeout, pinned=True)
        self._locks = lock_file(file.path + "-listeners")
        self._watch = Watch(self._handle)
        self._pid = os.getpid()
        #: Our number; 0: not registered, after trouble.
        self._number = 0
        self._closed = False
        #: What was told before is not for us.
        self._seen = 0
        told = {mailbox.exchange for mailbox in mailboxes if mailbox.exchange_type != "direct"}
        asked = {mailbox.name for mailbox in mailboxes if mailbox.exchange_type == "direct"}
        self._question = _HEAR.format(_marks(told), _marks(asked))
        self._arguments = (*told, *asked)
        self._register()

    def hear(self, timeout: float, until_readable: Sequence[int] = ()) -> list[Notice]:
        """See `Listener.hear`."""
        deadline = time.monotonic() + timeout
        looks = -1
        while True:
            heard = self._look()
            left = deadline - time.monotonic()
            if heard or left <= 0 or self._closed:
                return heard
            looks = min(looks + 1, len(_PAUSES) - 1)
            if wait_readable(until_readable, min(_PAUSES[looks], left)):
                deadline = time.monotonic()  # once more, for what has come meanwhile

    def close(self) -> None:
        """See `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        number, self._number = self._number, 0
        if not number or self._pid != os.getpid():
            return
        try:
            with self._handle.writing as db:
                forget(db, number)
        except exceptions.OperationalError as exc:  # others find the free lock, and do it
            logger.debug("a listener could not sign off: %s", exc)
        finally:
            self._locks.release(number)
            self._handle.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _look(self) -> list[Notice]:
        if self._closed:
            return []
        try:
            if not self._number:
                self._register()
            return self._read()
        except exceptions.OperationalError:
            self._let_go()
            raise

    def _read(self) -> list[Notice]:
        if self._watch.quiet():
            return []
        with self._handle.reading as db:
            if not self._watch.changed(db):
                return []
            rows = db.execute(self._question, (self._seen, *self._arguments)).fetchall()
        if any(mailbox is not None for _, mailbox, _ in rows):
            rows = self._taken(rows)
        heard = []
        for number, mailbox, envelope in rows:
            notice = self._notice(mailbox, envelope)
            if mailbox is None:
                self._seen = number
            if notice is not None:
                heard.append(notice)
        return heard

    def _taken(self, rows: list[tuple[int, str | None, bytes]]) -> list[tuple[int, str | None, bytes]]:
        """Of replies only those that nobody else has taken."""
        with self._handle.writing as db:
            return [row for row in rows if row[1] is None or db.execute(_TAKE, (row[0],)).fetchone()]

    def _notice(self, mailbox: str | None, envelope: bytes) -> Notice | None:
        try:
            notice = from_envelope(envelope, "fanout" if mailbox is None else "direct")
        except MalformedNotice as exc:  # somebody has edited the file
            logger.warning("A notice cannot be read, and is passed over: %s", exc)
            return None
        if mailbox is not None:
            return notice
        for one in self._mailboxes:
            if one.exchange == notice.exchange and matches(one.exchange_type, one.routing_key, notice.routing_key):
                notice.exchange_type = one.exchange_type
                return notice
        return None

    def _register(self) -> None:
        """A number, locked before anybody else can see it: a number whose lock is free is a dead listener's."""
        number = 0
        try:
            with self._handle.writing as db:
                number = db.execute("INSERT INTO listeners DEFAULT VALUES RETURNING id").fetchone()[0]
                self._locks.hold(number)
                rows = [(number, m.name, m.exchange, m.exchange_type, m.routing_key) for m in self._mailboxes]
                db.executemany("INSERT INTO mailboxes VALUES (?, ?, ?, ?, ?)", rows)
                last = db.execute(_LAST).fetchone()
        except BaseException:
            self._locks.release(number)
            self._handle.close()
            raise
        self._number, self._seen = number, last[0] if last else 0
        self._watch.forget()

    def _let_go(self) -> None:
        number, self._number = self._number, 0
        self._locks.release(number)
        self._handle.close()


def forget(db: sqlite3.Connection, listener: int) -> None:
    """Take a listener away, and the replies that nobody will read any more."""
    db.execute("DELETE FROM listeners WHERE id = ?", (listener,))
    db.execute("DELETE FROM mailboxes WHERE listener = ?", (listener,))
    db.execute("DELETE FROM notices WHERE mailbox IS NOT NULL AND mailbox NOT IN (SELECT name FROM mailboxes)")
    db.execute("DELETE FROM notices WHERE mailbox IS NULL AND NOT EXISTS (SELECT 1 FROM mailboxes)")


def _rows(notice: Notice, bound: Iterable[_Bound], now: float) -> list[tuple[str | None, str, float, bytes]]:
    names = {row[1]: None for row in bound if _is_for(notice, row)}
    if not names:
        return []
    places: Iterable[str | None] = names if notice.exchange_type == "direct" else [None]
    return [(place, notice.exchange, now, to_envelope(notice)) for place in places]


def _told(notice: Notice, bound: Iterable[_Bound]) -> int:
    """How many hear it: of those who share a mailbox of replies, one."""
    by = 1 if notice.exchange_type == "direct" else 0
    return len({row[by] for row in bound if _is_for(notice, row)})


def _is_for(notice: Notice, row: _Bound) -> bool:
    _, _, exchange, kind, routing_key = row
    return exchange == notice.exchange and matches(kind, routing_key, notice.routing_key)


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)
