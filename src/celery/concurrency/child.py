"""Adapter. A prefork child: runs jobs one at a time in its main thread, beside a thread that reads its socket.

The main thread runs user code and does nothing else but queue and journal. The reader thread calls nothing of the
user's: it takes jobs in, gives back what has not begun when it is recalled, and speaks for the main thread while
that is inside a long run (sends outcomes that have waited, tells which job is running).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from celery.concurrency.billiard_worker import replaced_worker
from celery.concurrency.forks import abandon_in_forks, die_with_parent, exit_on_signal
from celery.concurrency.frames import (
    BEGUN,
    HELLO,
    JOBS,
    OUTCOMES,
    PING,
    PONG,
    RECALL,
    RETIRING,
    RETURNED,
    STOP,
    WARNED,
    FrameReader,
    array,
    decode_jobs,
    encode,
    frame,
)
from celery.concurrency.retirement import Retirement
from celery.concurrency.soft import SoftLimits
from celery.message import MalformedMessage, Message
from celery.outcome import Rejected

if TYPE_CHECKING:
    from celery.concurrency.slots import Slot, Slots
    from celery.concurrency.terms import Terms
    from celery.outcome import Outcome
    from celery.ports import Runner

__all__ = ["Child", "be_child"]

#: Outcomes are sent when they have waited for so many seconds, or fill so many bytes, or nothing is left to do.
_LINGER = 0.010
_FULL = 64 << 10
#: Seconds after which the reader thread looks what the main thread is at.
_WATCH = 0.005
#: Bytes asked of the socket at once.
_READ = 256 << 10


#: Key, redelivered, envelope, soft and hard limit.
_Parcel = tuple[int, bool, bytes, float | None, float | None]


class Child:
    """One child, from its first instruction after the fork to its last."""

    def __init__(self, index: int, runner: Runner, sock: socket.socket, slot: Slot, terms: Terms) -> None:
        self._index = index
        self._runner = runner
        self._sock = sock
        self._slot = slot
        self._pid = os.getpid()
        self._queue: SimpleQueue[_Parcel | None] = SimpleQueue()
        self._terms = terms
        self._soft = SoftLimits(runner)
        #: Guards the journal (its fields in the slot) and the sending side of the socket.
        self._sending = threading.Lock()
        #: When the oldest unsent outcome came about; 0.0 if there is none.
        self._oldest = 0.0
        #: How many jobs the reader thread has handed on, and the main thread has ended. Each counts for itself, so that
        #: neither can take back what the other has just found: where they are equal, nothing is under way.
        self._handed = self._ended = 0
        #: The main process wants no more of it, or is gone.
        self._stopped = threading.Event()
        #: Billiard's worker, if somebody has put methods of his own into it.
        self._worker: Any = None
        #: The job that BEGUN was sent for last.
        self._told: int | None = None

    def live(self) -> NoReturn:
        """Start, work until told to stop, end the process. Never returns and never raises: below this frame lies the
        stack of the process that called `Pool.start`, which must not be unwound here."""
        status = 1
        try:
            status = self._live()
        except SystemExit as exc:
            status = _exit_status(exc)
        except BaseException:  # noqa: BLE001  the top of a process; nobody else could tell
            traceback.print_exc()
        finally:
            self._end(status)

    def abandon(self) -> None:
        """Called in a process that user code has forked off this one: the socket is not its own."""
        self._sock.close()

    def _live(self) -> int:
        self._soft.install()
        self._runner.start(self._index)
        self._slot.greet()
        try:
            self._sock.sendall(frame(HELLO))
        except (BrokenPipeError, ConnectionResetError):  # the worker is gone already: nobody waits for this process
            return 0
        threading.Thread(target=self._read, name="pool-reader", daemon=True).start()
        self._worker = replaced_worker()
        try:
            if self._worker is None:
                self._work()
            else:
                self._worker.run(self._work)
        finally:
            if os.getpid() == self._pid:
                self._send_outcomes()
                self._runner.stop()
        return 0

    def _end(self, status: int) -> NoReturn:
        if os.getpid() != self._pid:
            os._exit(status)  # user code forked, and its child came up to here
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already
        try:
            self._send_outcomes()
            self._runner.flush()
            # Those registered in this child; the zygote has dropped the ones of the main process.
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            if self._worker is not None:
                self._worker._do_exit(self._pid, status, None)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(status)

    # ------------------------------------------------------------------------------------------------ main thread

    def _work(self) -> None:
        queue, slot = self._queue, self._slot
        retirement = Retirement.under(self._terms)
        while True:
            try:
                job = queue.get_nowait()
            except Empty:
                job = self._wait()
            if job is None:
                return
            key, redelivered, envelope, soft, hard = job
            now = monotonic()
            if self._oldest and now - self._oldest > _LINGER:
                self._send_outcomes()
                self._runner.flush()
            if soft is not None:
                self._soft.arm(key, soft)
            slot.begin(key, now, hard or 0.0)
            outcome = self._outcome(envelope, redelivered)
            if soft is not None:
                self._soft.disarm()
            self._finish(key, encode((key, outcome)), now)
            self._ended += 1
            if retirement is not None and retirement.due():
                self._retire()
                return

    def _outcome(self, envelope: bytes, redelivered: bool) -> Outcome:
        try:
            message = _read(envelope)
        except MalformedMessage as exc:
            return Rejected(reason=str(exc))
        if redelivered:
            message.redelivered = True
        return self._runner.run(message)

    def _retire(self) -> None:
        """Run no more: what is still in the queue, or on its way, is given back by the reader thread when the main
        process answers with STOP."""
        self._send_outcomes()
        with self._sending:
            self._sock.sendall(frame(RETIRING))
        self._stopped.wait()

    def _wait(self) -> _Parcel | None:
        self._send_outcomes()
        self._runner.flush()
        return self._queue.get()

    def _finish(self, key: int, outcome: bytes, began: float) -> None:
        with self._sending:
            if self._slot.finish(key, outcome):
                if not self._oldest:
                    self._oldest = began
                if self._slot.used < _FULL:
                    return
                self._send_journal()
            else:
                self._send_journal()
                self._sock.sendall(frame(OUTCOMES, array(outcome, 1)))
                self._slot.sent(key)
        self._runner.flush()

    # -------------------------------------------------------------------------------------------------- both threads

    def _send_outcomes(self) -> None:
        if self._oldest:
            with self._sending:
                self._send_journal()

    def _send_journal(self) -> None:
        """With `_sending` held. The journal is emptied only after it was sent: killed between the two, the main
        process sees some outcomes twice and passes over the second."""
        if self._slot.count:
            self._sock.sendall(frame(OUTCOMES, self._slot.unsent()))
            self._slot.sent()
        self._oldest = 0.0

    # ------------------------------------------------------------------------------------------------- reader thread

    def _read(self) -> None:
        # A signal that this thread took would not interrupt what the main thread waits in.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(OSError):  # the main process is gone, or has closed its end
            self._listen()
        self._drain()
        self._queue.put(None)
        self._stopped.set()

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        frames = FrameReader()
        while True:
            if not poll.poll(self._patience()):
                self._watch()
                continue
            data = self._sock.recv(_READ)
            if not data:
                return
            for kind, body in frames.feed(memoryview(data)):
                self._obey(kind, body)

    def _obey(self, kind: int, body: memoryview) -> None:
        if kind == JOBS:
            put = self._queue.put
            for job in decode_jobs(body):
                self._handed += 1
                put(job)
        elif kind == PING:
            with self._sending:
                self._sock.sendall(frame(PONG))
        elif kind in (RECALL, STOP):
            keys = self._drain()
            with self._sending:
                self._sock.sendall(frame(RETURNED, encode(keys)))
            if kind == STOP:
                self._queue.put(None)
                self._stopped.set()

    def _drain(self) -> list[int]:
        keys: list[int] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                return keys
            if job is not None:
                self._handed -= 1
                keys.append(job[0])

    def _patience(self) -> float | None:
        """Milliseconds to wait for a frame before `_watch`; None: until one comes."""
        if not self._quiet():
            return _WATCH * 1000
        left = self._soft.left(monotonic())
        return None if left is None else max(0.0, left * 1000)

    def _quiet(self) -> bool:
        """Nothing will be worth telling before the next frame comes: whatever ends meanwhile, the main thread sends."""
        if self._oldest or not self._queue.empty():
            return False
        if self._handed == self._ended:
            return True
        run = self._slot.read()
        return run is not None and run.running and run.key == self._told

    def _watch(self) -> None:
        now = monotonic()
        oldest = self._oldest
        if oldest and now - oldest > _WATCH:
            self._send_outcomes()
        run = self._slot.read()
        if run is not None and run.running and run.key != self._told and now - run.since > _WATCH:
            self._told = run.key
            with self._sending:
                self._sock.sendall(frame(BEGUN, encode(run.key)))
        warned = self._soft.enforce(now)
        if warned is not None:
            with self._sending:
                self._sock.sendall(frame(WARNED, encode(warned)))


def be_child(index: int, runner: Runner, sock: int, slots: Slots, terms: Terms, parent: int) -> NoReturn:
    """What a freshly made process does for the rest of its life: serve as the child at `index`, by this socket."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, exit_on_signal)
        die_with_parent(parent)
        child = Child(index, runner, socket.socket(fileno=sock), slots.slot(index), terms)
        abandon_in_forks(child)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(1)
    child.live()


def _exit_status(exc: SystemExit) -> int:
    """What the interpreter would make of it."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    print(exc.code, file=sys.stderr)  # noqa: T201  as the interpreter does
    return 1


def _read(envelope: bytes) -> Message:
    """All of it, or what the main process has read too: its run then says what is wrong with the rest."""
    try:
        return Message.whole(envelope)
    except MalformedMessage:
        return Message.from_envelope(envelope)
