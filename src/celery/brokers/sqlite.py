"""Adapter. The broker `sqlite://`: queues in a file that any number of processes of one machine share.

Publishing commits with `synchronous=FULL` (option `synchronous`): what was accepted survives a power cut. Claims and
settlements commit with NORMAL: they survive the death of any process, and a power cut at worst repeats a task.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery.brokers import sqlite_queues as queues_of
from celery.brokers.dead_letters import cut
from celery.brokers.queue_options import Unrouted, without_effect
from celery.brokers.sqlite_dead import Cemetery, SqliteDeadLetters
from celery.brokers.sqlite_inspecting import SqliteInspection
from celery.brokers.sqlite_listening import SqliteListener, Teller
from celery.drivers.custody import lock_file
from celery.drivers.sqlite import Handle, Watch, file_of, options_of
from celery.drivers.sqlite_checks import examine
from celery.drivers.sqlite_records import Records
from celery.message import MalformedMessage, Message, mark_redelivered
from celery.ports import Delivery, SystemClock
from celery.waits import wait_readable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celery.drivers.sqlite import File
    from celery.drivers.sqlite_barriers import Arrivals
    from celery.ports import BrokerConfig, Clock, Finding, Firing, Full, Notice, Publication, ResultBackend, Settled
    from celery.routing import QueueSpec

__all__ = ["SqliteBroker", "SqliteConsumer"]

#: Seconds between two looks at the file while waiting: often right after something happened, and after two seconds of
#: silence just often enough that a task begins within 30 ms (median).
PAUSES = (0.001, 0.002, 0.005, 0.01, *[0.025] * 80, 0.04)
#: Seconds between two searches for the messages of dead workers.
RECLAIM_EVERY = 0.5
#: Seconds that a settlement may wait for the next fetch.
SETTLE_WITHIN = 0.05


class SqliteBroker:
    """Moves messages through a file. Publishers of a process share one connection: SQLite has one writer anyway."""

    def __init__(self, config: BrokerConfig, *, clock: Clock = SystemClock()) -> None:  # noqa: B008 - stateless
        self.file = file_of(config.url)
        self.url_text = self.file.url_text
        self._node = config.node
        self._clock = clock
        self._bounds = config.dead_letters
        synchronous, self._timeout = options_of(config.url, config.options)
        self._writer = Handle(self.file, synchronous, self._timeout)
        self.dead_letters = SqliteDeadLetters(self._writer, self._bounds, clock)
        self._unrouted = Unrouted()
        self._teller = Teller(self.file, self._timeout, clock)
        self.inspection = SqliteInspection(self._writer)

    def publish(self, publications: Sequence[Publication]) -> None:
        if not publications:
            return
        if len(publications) == 1 and not publications[0].route.exchange:
            row = queues_of.row_of(publications[0], self._clock.time())
            with self._writer.reading as db:  # one statement is a transaction of its own
                queues_of.put_row(db, row)
            return
        with self._writer.writing as db:
            dropped = queues_of.put(db, publications, self._clock.time())
        if dropped:
            self._unrouted.note(dropped)

    def consume(self, queues: Sequence[QueueSpec]) -> SqliteConsumer:
        without_effect(queues, self.url_text)
        dead = Cemetery(self._bounds, self._clock)
        return SqliteConsumer(self.file, self._timeout, self._node, queues, self._clock, dead)

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        with self._writer.writing as db:
            queues_of.bind(db, queues)

    def purge(self, queue: str) -> int:
        with self._writer.writing as db:
            return db.execute("DELETE FROM messages WHERE holder = 0 AND queue = ?", (queue,)).rowcount

    def depth(self, queue: str) -> int:
        """Messages waiting in the queue; parked ones once they are due."""
        with self._writer.reading as db:
            return queues_of.depth(db, queue, self._clock.time())

    def tell(self, notices: Sequence[Notice]) -> int:
        """See `Broadcasting.tell`."""
        return self._teller.tell(notices)

    def listen(self, mailboxes: Sequence[QueueSpec]) -> SqliteListener:
        """See `Broadcasting.listen`."""
        self._teller.bury()
        return SqliteListener(self.file, self._timeout, mailboxes)

    def examine(self) -> Sequence[Finding]:
        """See `Examinable`."""
        return examine(self._writer)

    def server_time(self) -> float | None:
        """It has no clock of its own."""
        return None

    def close(self) -> None:
        self._writer.close()
        self._teller.close()


class SqliteConsumer:
    """Takes messages from queues of a file and keeps them in the custody of a lock that dies with the process.

    What is acked or rejected is gathered, and written in the transaction of the next fetch.
    """

    def __init__(
        self, file: File, timeout: float, node: str, queues: Sequence[QueueSpec], clock: Clock, dead: Cemetery
    ) -> None:
        self._clock = clock
        self._dead = dead
        self._handle = Handle(file, "NORMAL", timeout, pinned=True)
        self._locks = lock_file(file.path + "-workers")
        self._names = [queue.name for queue in queues]
        self._held: dict[int, Delivery] = {}
        self._acked: list[tuple[int]] = []
        #: (died, tag)
        self._returned: list[tuple[int, int]] = []
        #: (reason, traceback, died, tag)
        self._refused: list[tuple[str, str, int, int]] = []
        self._settle_by = 0.0
        self._records: Records | None = None
        self._arrivals: Arrivals | None = None
        self._watch = Watch(self._handle)
        self._unrouted = Unrouted()
        #: True: the last look left, or this consumer made, something that the watch does not tell of.
        self._more = True
        self._due: float | None = None
        #: Looks since something last happened.
        self._looks = -1
        self._next_reclaim = 0.0
        self._others = 0
        self._holder = self._register(node, queues)

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """See `Consumer.fetch`. New messages are seen within 40 ms."""
        deadline = self._clock.monotonic() + timeout
        while True:
            taken = self._look(limit)
            remaining = deadline - self._clock.monotonic()
            if taken or remaining <= 0:
                return taken
            self._looks = min(self._looks + 1, len(PAUSES) - 1)
            if wait_readable(until_readable, self._until_due(min(PAUSES[self._looks], remaining))):
                return []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        held, acked = self._held, self._acked
        for delivery in deliveries:
            if held.get(delivery.tag) is delivery:
                del held[delivery.tag]
                acked.append((delivery.tag,))
        self._gathered()

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        for delivery in deliveries:
            if self._held.get(delivery.tag) is delivery:
                del self._held[delivery.tag]
                if requeue:
                    self._returned.append((int(delivery.died), delivery.tag))
                else:
                    reason, traceback = cut(delivery.error, delivery.traceback)
                    self._refused.append((reason, traceback, int(delivery.died), delivery.tag))
        self._gathered()

    def begun(self, deliveries: Sequence[Delivery]) -> None:
        """See `Blaming.begun`."""
        with self._handle.writing as db:
            self._write_settled(db)
            tags = [(d.tag,) for d in deliveries if self._held.get(d.tag) is d]
            db.executemany("UPDATE messages SET begun = 1 WHERE id = ?", tags)
        self._settled()

    def defer(self, deliveries: Sequence[tuple[Delivery, float]]) -> None:
        """See `Deferring.defer`. Any worker of the file releases what is due."""
        mine = [(d.tag, due) for d, due in deliveries if self._held.get(d.tag) is d]
        rows = [(-1 if due > 0 else 0, due, tag, self._holder) for tag, due in mine]
        with self._handle.writing as db:
            self._write_settled(db)
            db.executemany("UPDATE messages SET holder = ?, due = ?, begun = 0 WHERE id = ? AND holder = ?", rows)
        self._settled()
        for tag, _ in mine:
            del self._held[tag]
        self._more = True

    def join(self, backend: ResultBackend) -> bool:
        """See `Joining.join`: true for the backend of the same file."""
        records = getattr(backend, "records", None)
        self._records = records if isinstance(records, Records) and records.file is self._handle.file else None
        self._arrivals = None if self._records is None else getattr(backend, "arrivals", None)
        return self._records is not None

    def settle(self, settled: Sequence[Settled]) -> Sequence[Full]:
        """See `Joining.settle`. Committed on return."""
        valid = [
            one for one in settled if one.disposition == "done" or self._held.get(one.delivery.tag) is one.delivery
        ]
        records = [one.record for one in valid if one.record is not None]
        further = [one.further for one in valid if one.further is not None]
        records += [record for one in further for record in one.records]
        full: Sequence[Full] = ()
        self.ack([one.delivery for one in valid if one.disposition == "ack"])
        self.reject([one.delivery for one in valid if one.disposition == "reject"], requeue=False)
        self.reject([one.delivery for one in valid if one.disposition == "requeue"], requeue=True)
        with self._handle.writing as db:
            self._write_settled(db)
            dropped = queues_of.put(db, [one for each in valid for one in each.publications], self._clock.time())
            if records:
                assert self._records is not None, "settle with a record needs join first"
                self._records.write(db, records)
            if further:
                assert self._arrivals is not None, "settle with arrivals needs join first"
                full = self._arrivals.write(db, [arrival for one in further for arrival in one.arrivals])
        self._settled()
        if dropped:
            self._unrouted.note(dropped)
        self._more = True  # what was published may be for this very consumer
        if records:
            self._handle.file.told()
        return full

    def fire(self, firings: Sequence[Firing]) -> Sequence[Full]:
        """See `Joining.fire`. Committed on return."""
        assert self._arrivals is not None, "fire needs join first"
        assert self._records is not None, "fire needs join first"
        full, dropped = [], []
        with self._handle.writing as db:
            for one in firings:
                if not self._arrivals.take(db, one.barrier):
                    continue
                dropped += queues_of.put(db, one.publications, self._clock.time())
                self._records.write(db, one.records)
                self._arrivals.fired(db, one.barrier, one.failed)
                full += self._arrivals.write(db, one.arrivals)
        if dropped:
            self._unrouted.note(dropped)
        self._more = True
        self._handle.file.told()
        return full

    def others(self, *, ask: bool = False) -> int:
        """See `Accompanied.others`."""
        if ask:
            self._reclaim()
        return self._others

    def flush(self) -> None:
        if self._unwritten:
            with self._handle.writing as db:
                self._write_settled(db)
            self._settled()

    def add_queue(self, queue: QueueSpec) -> None:
        without_effect([queue], self._handle.file.url_text)
        with self._handle.writing as db:
            queues_of.attend(db, self._holder, [queue])
        if queue.name not in self._names:
            self._names.append(queue.name)
        self._more = True

    def cancel_queue(self, name: str) -> None:
        if name in self._names:
            self._names.remove(name)
            with self._handle.writing as db:
                queues_of.leave(db, self._holder, name)

    def close(self) -> None:
        if not self._holder:
            return
        holder, self._holder = self._holder, 0
        try:
            with self._handle.writing as db:
                self._write_settled(db)
                queues_of.unregister(db, holder)
        finally:  # even if the file is gone: a free lock tells the others to take what this one had
            self._locks.release(holder)
            self._handle.close()
            self._held.clear()

    # ------------------------------------------------------------------------------------------------------ looking

    def _look(self, limit: int) -> list[Delivery]:
        """Write what was settled, and take what is there, if anything can be there."""
        now = self._clock.monotonic()
        if now >= self._next_reclaim:
            self._reclaim()
            self._next_reclaim = now + RECLAIM_EVERY
            self._watch.recheck()
        if not limit or not self._names:
            self.flush()
            return []
        if not (self._unwritten or self._worth_it()):
            return []
        with self._handle.writing as db:
            self._write_settled(db)
            rows = self._claim_due(db, limit)
            rows += queues_of.claim(db, self._holder, self._names, limit - len(rows))
        self._settled()
        self._more = len(rows) == limit
        self._looks = -1
        return [self._deliver(row) for row in rows]

    def _claim_due(self, db: sqlite3.Connection, limit: int) -> list[queues_of.Row]:
        now = self._clock.time()
        if self._due is None or self._due > now:
            return []
        rows = queues_of.claim_due(db, self._holder, self._names, limit, now)
        self._due = queues_of.next_due(db, self._names)
        return rows

    def _worth_it(self) -> bool:
        """Whether there is something to take: asked without the write lock, that an idle worker has no use for."""
        if self._more or not self._watch.quiet():
            with self._handle.reading as db:
                if self._watch.changed(db) or self._more:
                    self._due = queues_of.next_due(db, self._names)
                    self._more = queues_of.waiting(db, self._names)
        return self._more or (self._due is not None and self._due <= self._clock.time())

    def _until_due(self, seconds: float) -> float:
        return seconds if self._due is None else max(0.0, min(seconds, self._due - self._clock.time()))

    def _deliver(self, row: queues_of.Row) -> Delivery:
        _, tag, queue, redelivered, deaths, envelope = row
        try:
            message = Message.from_envelope(mark_redelivered(envelope, deaths) if redelivered else envelope)
        except MalformedMessage as exc:
            delivery = Delivery(tag, queue, None, envelope, str(exc))
        else:
            delivery = Delivery(tag, queue, message)
        self._held[tag] = delivery
        return delivery

    # ----------------------------------------------------------------------------------------------------- settling

    @property
    def _unwritten(self) -> bool:
        return bool(self._acked or self._returned or self._refused)

    def _gathered(self) -> None:
        """Something was: write it now if it has waited long enough."""
        now = self._clock.monotonic()
        if now >= self._settle_by:
            if self._settle_by:
                self.flush()
            else:
                self._settle_by = now + SETTLE_WITHIN

    def _write_settled(self, db: sqlite3.Connection) -> None:
        if self._refused:
            self._dead.bury(db, self._refused)
        if self._acked:
            db.executemany("DELETE FROM messages WHERE id = ?", self._acked)
        if self._returned:
            db.executemany(
                "UPDATE messages SET holder = 0, redelivered = redelivered + 1, deaths = deaths + ?, begun = 0 "
                "WHERE id = ?",
                self._returned,
            )
            self._more = True

    def _settled(self) -> None:
        """It is committed."""
        self._acked.clear()
        self._returned.clear()
        self._refused.clear()
        self._settle_by = 0.0

    # ------------------------------------------------------------------------------------------------------ custody

    def _register(self, node: str, queues: Iterable[QueueSpec]) -> int:
        """A number, locked before anybody else can see it: a number whose lock is free is a dead worker's."""
        holder = 0
        try:
            with self._handle.writing as db:
                holder = queues_of.register(db, node, os.getpid())
                queues_of.attend(db, holder, queues)
                self._locks.hold(holder)
        except BaseException:
            self._locks.release(holder)
            self._handle.close()
            raise
        return holder

    def _reclaim(self) -> None:
        """Give back what dead workers held. Whoever gets a dead one's lock does it; the others pass on."""
        with self._handle.reading as db:
            holders = [holder for (holder,) in db.execute("SELECT id FROM holders")]
        alive = len(holders)
        for holder in holders:
            if self._locks.inherit(holder):
                self._take_over(holder)
                alive -= 1
        self._others = max(0, alive - 1)

    def _take_over(self, holder: int) -> None:
        try:
            with self._handle.writing as db:
                queues_of.unregister(db, holder, dead=True)
        finally:
            self._locks.release(holder)
        self._more = True
