"""Entrance. The log records of a pool's processes come to the process of the test, where `caplog` sees them."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import traceback
from typing import TYPE_CHECKING, Any

from celery import signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import Job, Pool, Report

__all__ = ["RecordHandler", "RecordQueue", "RecordedPool"]

#: Seconds that a child waits for room before it drops a record: the test's process is gone or stuck.
_PATIENCE = 1.0
#: Characters kept of a message that does not fit.
_KEPT = 4096


class RecordQueue:
    """Carries records from forked children: a datagram each, so that any number of processes may write."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reader.setblocking(False)
        self._writer.settimeout(_PATIENCE)

    def fileno(self) -> int:
        """Readable when `deliver` has something to do."""
        return self._reader.fileno()

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a record, made portable before. What cannot be sent is dropped."""
        try:
            self._send(record.__dict__)
        except OSError:
            kept = dict(record.__dict__, msg=str(record.msg)[:_KEPT], exc_text=(record.exc_text or "")[:_KEPT] or None)
            try:
                self._send(kept)
            except OSError:
                return

    def _send(self, fields: dict[str, Any]) -> None:
        self._writer.send(pickle.dumps(fields))

    def deliver(self) -> None:
        """Give what has come to the loggers of this process, where levels, filters and handlers are the test's."""
        while True:
            try:
                data = self._reader.recv(1 << 20)
            except OSError:  # nothing more, or closed
                return
            record = logging.makeLogRecord(pickle.loads(data))  # noqa: S301 - of our own children
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)

    def close(self) -> None:
        """Let go of the descriptors."""
        self._reader.close()
        self._writer.close()


class RecordHandler(logging.Handler):
    """Puts records on a `RecordQueue`, their messages and tracebacks as text."""

    def __init__(self, queue: RecordQueue) -> None:
        super().__init__()
        self.queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        """Send it."""
        try:
            self.queue.put_nowait(self.prepare(record))
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """A copy that can be pickled: extras that cannot are shown as text."""
        fields = dict(record.__dict__, msg=record.getMessage(), args=None, exc_info=None)
        if record.exc_info:
            fields["exc_text"] = record.exc_text or "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        return logging.makeLogRecord({key: _portable(value) for key, value in fields.items()})


def _portable(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever an object of the user's raises
        return repr(value)
    return value


class RecordedPool:
    """A pool of forked processes whose log records are delivered before the outcomes that they tell of."""

    def __init__(self, pool: Pool, records: RecordQueue) -> None:
        self._pool = pool
        self._records = records
        self._main = os.getpid()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def start(self) -> None:
        """Fork, with a receiver connected that only the children's copies will ever hear from."""
        signals.worker_process_init.connect(self._enter_child, weak=False)
        try:
            self._pool.start()
        finally:
            signals.worker_process_init.disconnect(self._enter_child)

    def _enter_child(self, **_: Any) -> None:
        """The parent's handlers are copies here that nobody reads. Levels are the parent's to judge, from INFO on."""
        if os.getpid() == self._main:
            return
        root = logging.getLogger()
        root.handlers = [RecordHandler(self._records)]
        root.setLevel(min(root.level, logging.INFO))

    def submit(self, jobs: Sequence[Job]) -> None:
        self._pool.submit(jobs)

    def report(self) -> Report:
        report = self._pool.report()
        self._records.deliver()
        return report

    def descriptors(self) -> Sequence[int]:
        return [*self._pool.descriptors(), self._records.fileno()]

    @property
    def free(self) -> int:
        return self._pool.free

    def take_back(self) -> None:
        self._pool.take_back()

    def stop(self, deadline: float) -> None:
        self._pool.stop(deadline)
        self._records.deliver()
