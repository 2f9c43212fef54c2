"""Adapter. What the main process knows of one child: its socket, and the jobs that it was given."""

from __future__ import annotations

import logging
import sys
from math import inf
from typing import TYPE_CHECKING, Any

from msgspec import DecodeError

from celery.concurrency.frames import JOBS, FrameReader, decode_outcomes, encode, frame

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from celery.outcome import Outcome
    from celery.ports import Job

__all__ = ["Seat"]

logger = logging.getLogger("celery.concurrency.prefork")


class Seat:
    """A child as seen from the main process."""

    __slots__ = (
        "_frames", "_out", "_sock", "alone", "asked", "backlog", "closed", "doomed", "ended", "given", "index",
        "leaving", "limit", "pid", "ready", "recalls", "rest", "size", "slow", "told", "watched", "window", "zygote",
    )  # fmt: skip

    def __init__(self, index: int, pid: int, sock: socket.socket, most: int | None = None, zygote: Any = None) -> None:
        """`most`: how many jobs it will run. `zygote`: who has forked it."""
        self.zygote = zygote
        #: When it was asked whether it is there (monotonic), if nothing has come from it since; else 0.0.
        self.asked = 0.0
        self.index = index
        self.pid = pid
        #: Jobs that it has, in the order in which it will run them.
        self.window: dict[int, Job] = {}
        #: Expected seconds of work in the window, and bytes.
        self.backlog = 0.0
        self.size = 0.0
        #: It has started, and may be given jobs.
        self.ready = False
        #: It has a job that is to have the child for itself.
        self.alone = False
        #: The job known to be running for a while now; None if it runs short ones.
        self.slow: int | None = None
        #: The last job that was reported as begun before its end.
        self.told: int | None = None
        #: Recalls that it has not answered yet.
        self.recalls = 0
        #: Jobs that it was given so far.
        self.given = 0
        #: How many more jobs it may be given.
        self.rest = sys.maxsize if most is None else most
        #: The smallest hard limit among the jobs handed over since the zygote was last told; infinite: none.
        self.limit = inf
        #: When the zygote looks whether it runs past a hard limit; 0.0, or past: not known.
        self.watched = 0.0
        #: The job for whose hard limit it was killed; -1: it was killed because it was not ready in time.
        self.ended: int | None = None
        #: The job that was to be ended because somebody asked for it.
        self.doomed: int | None = None
        #: It has closed its end of the socket.
        self.closed = False
        #: It has been told to end.
        self.leaving = False
        self._sock = sock
        self._frames = FrameReader()
        self._out = bytearray()
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def idle(self) -> bool:
        return self.ready and not self.window and not self.leaving and self.rest > 0

    @property
    def batches(self) -> bool:
        """It may be given (more) short jobs, up to `rest`."""
        return (
            self.rest > 0
            and self.ready
            and not self.alone
            and self.slow is None
            and not self.leaving
            and not self.recalls
        )

    @property
    def unsent(self) -> bool:
        """Something waits for the socket to become writable."""
        return bool(self._out)

    def hand(self, jobs: Sequence[Job], backlog: float) -> None:
        """Give it these jobs, `backlog` seconds of work."""
        window = self.window
        parcel = []
        size = 0
        for job in jobs:
            message = job.message
            envelope = message.to_envelope()
            size += len(envelope)
            window[job.key] = job
            hard = job.hard_limit
            if hard is not None and hard < self.limit:
                self.limit = hard
            parcel.append((job.key, message.redelivered, envelope, job.soft_limit, hard))
        self.given += len(jobs)
        self.rest -= len(jobs)
        self.backlog += backlog
        self.size += size
        self.send(frame(JOBS, encode(parcel)))

    def smallest_limit(self) -> float:
        """The smallest hard limit among the jobs that it has; infinite: none has one."""
        return min((job.hard_limit for job in self.window.values() if job.hard_limit is not None), default=inf)

    def send(self, data: bytes) -> None:
        """Send what fits and keep the rest; a child that is gone is told of by its zygote, not here."""
        if self._out:
            self._out += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):
            self._out += memoryview(data)[sent:]

    def send_rest(self) -> None:
        """The socket is writable."""
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._out)
        del self._out[:sent]

    def receive(self, scratch: bytearray) -> Sequence[tuple[int, Any]] | None:
        """The frames that have come, valid until the next call with this buffer; None: nothing there, and if it has
        `closed` its end, nothing will come."""
        try:
            count = self._sock.recv_into(scratch)
        except BlockingIOError:
            return None
        except OSError:
            count = 0
        if not count:
            self.closed = True
            return None
        return self._frames.feed(memoryview(scratch)[:count])

    def understand(self, body: bytes | memoryview) -> list[tuple[int, Outcome]]:
        """What the child tells, or told, of its runs. One that cannot be understood is not listened to any more."""
        try:
            return decode_outcomes(body)
        except DecodeError as exc:
            logger.error("Pool child %d (pid %d) told what cannot be read: %s; it is killed", self.index, self.pid, exc)
            self.closed = True
            return []

    def take(self, keys: Iterable[int]) -> list[Job]:
        """Remove these jobs from the window; unknown ones are passed over."""
        window = self.window
        held = len(window)
        jobs = [job for key in keys if (job := window.pop(key, None)) is not None]
        if window:
            # Jobs of one window are much alike: in proportion is near enough, and exact in the end.
            left = len(window) / held
            self.backlog *= left
            self.size *= left
        else:
            self.backlog = self.size = 0.0
            self.alone = False
        if self.slow not in window:
            self.slow = None
        return jobs

    def close(self) -> None:
        self._sock.close()
