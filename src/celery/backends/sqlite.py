"""Adapter. The result backend `sqlite://`: records in a file, beside the messages of the same file's broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.drivers.sqlite import Handle, file_of, options_of
from celery.drivers.sqlite_barriers import Arrivals, SqliteBarriers
from celery.drivers.sqlite_checks import examine
from celery.drivers.sqlite_records import Records
from celery.ports import SystemClock
from celery.states import READY_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.outcome import Record
    from celery.ports import BackendConfig, Clock, Finding

__all__ = ["SqliteBackend"]

#: Seconds between two deletions of expired records, and records deleted at once.
CLEANUP_EVERY, CLEANUP_BATCH = 60.0, 500
#: Seconds between two looks at the file while waiting: often at first, for what comes soon.
PAUSES = (0.001, 0.002, 0.005, 0.01, 0.025)
#: Ids in one statement.
CHUNK = 500

_READY = ", ".join(f"'{state}'" for state in sorted(READY_STATES))


class SqliteBackend:
    """Keeps records in a file that any number of processes of one machine share.

    A saved record outlives the death of any process; a power cut may take those of the last moments with it, as it may
    take the acknowledgements that came with them (`synchronous` is NORMAL here).
    """

    def __init__(self, config: BackendConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self.file = file_of(config.url)
        self.url_text = self.file.url_text
        self.records = Records(self.file, config.expires, clock)
        _, timeout = options_of(config.url, config.options)
        self._clock = clock
        self._writer = Handle(self.file, "NORMAL", timeout)
        self._reader = Handle(self.file, "NORMAL", timeout)
        self.arrivals = Arrivals(config.chord_expires, clock)
        #: See `Barrier` and `Groups`.
        self.barriers = self.groups = SqliteBarriers(self._writer, self._reader, self.arrivals, clock)
        self._next_cleanup = clock.monotonic()

    def save(self, records: Sequence[Record]) -> None:
        if not records:
            return
        with self._writer.writing as db:
            self.records.write(db, records)
        self.file.told()
        if self._clock.monotonic() >= self._next_cleanup:
            self._clean()

    def examine(self) -> Sequence[Finding]:
        """See `Examinable`."""
        return examine(self._writer)

    def server_time(self) -> float | None:
        """It has no clock of its own."""
        return None

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        found: dict[str, bytes] = {}
        with self._reader.reading as db:
            for chunk, marks in _chunks(ids):
                sql = f"SELECT id, meta FROM results WHERE id IN ({marks}) AND (expires IS NULL OR expires > ?)"  # noqa: S608
                found.update(db.execute(sql, (*chunk, self._clock.time())))
        return [found.get(id) for id in ids]

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """See `ResultBackend.wait`. Records saved in this process wake at once, those of others within 25 ms."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        seen: tuple[int, int] | None = None
        pauses = iter(PAUSES)
        pause = 0.0
        while True:
            saves = self.file.saves
            version, found = self._look(ids, seen)
            remaining = None if deadline is None else deadline - self._clock.monotonic()
            if found or (remaining is not None and remaining <= 0):
                return found
            pause = next(pauses, pause)
            self._pause(saves, pause if remaining is None else min(pause, remaining))
            seen = version

    def watch(self, id: str, timeout: float | None, heard: Callable[[bytes], object]) -> bytes | None:
        """See `Watching.watch`. States that follow each other within the 25 ms between two looks are told as one."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        before = self.load([id])[0]
        first = True
        while True:
            saves = self.file.saves
            document = before if first else self.load([id])[0]
            ready = bool(self._look([id], None)[1]) if document is not None else False
            if document is not None and (document != before or ready):
                before = document
                heard(document)
            if ready:
                return document
            first = False
            remaining = None if deadline is None else deadline - self._clock.monotonic()
            if remaining is not None and remaining <= 0:
                return None
            self._pause(saves, PAUSES[-1] if remaining is None else min(PAUSES[-1], remaining))

    def forget(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        with self._writer.writing as db:
            db.executemany("DELETE FROM results WHERE id = ?", [(id,) for id in ids])

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    def _look(self, ids: Sequence[str], seen: tuple[int, int] | None) -> tuple[tuple[int, int], dict[str, bytes]]:
        """The version of the file, and which ids are ready, if that version was not seen before."""
        found: dict[str, bytes] = {}
        with self._reader.reading as db:
            (number,) = db.execute("PRAGMA data_version").fetchone()
            version = (self._reader.generation, number)
            if version == seen:
                return version, found
            for chunk, marks in _chunks(ids):
                sql = (
                    f"SELECT id, meta FROM results WHERE id IN ({marks}) AND state IN ({_READY}) "  # noqa: S608
                    "AND (expires IS NULL OR expires > ?)"
                )
                found.update(db.execute(sql, (*chunk, self._clock.time())))
        return version, found

    def _pause(self, saves: int, seconds: float) -> None:
        with self.file.saved:
            if self.file.saves == saves:
                self.file.saved.wait(seconds)

    def _clean(self) -> None:
        with self._writer.writing as db:
            more = self.records.clean(db, CLEANUP_BATCH) | self.arrivals.clean(db, CLEANUP_BATCH)
        self._next_cleanup = self._clock.monotonic() + (1.0 if more else CLEANUP_EVERY)


def _chunks(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        yield chunk, ",".join("?" * len(chunk))
