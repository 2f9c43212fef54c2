"""Adapter. The zygote: a single-threaded process, forked early, that forks and reaps every prefork child.

Forked before the main process opens sockets and starts threads (where the caller can have it so), it can replace a
child at any later time without copying locks that some thread holds. It obeys records on a socket and reports births
(with the main process's end of the child's socket, by SCM_RIGHTS) and deaths. Only it may safely signal a child, for
it alone decides when a process id becomes free. What it does is in `nursery`; here is the main process's side.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery.concurrency.forks import fork
from celery.concurrency.nursery import (
    DIED,
    END,
    ENDED,
    LOOKED,
    RECORD,
    SIGNAL,
    SPAWN,
    TERMINATE,
    WATCH,
    be_zygote,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.concurrency.slots import Slots
    from celery.concurrency.spawned import Parcel
    from celery.concurrency.terms import Terms
    from celery.ports import Runner

__all__ = ["Born", "Died", "Ended", "Looked", "Zygote"]

_ANCILLARY = socket.CMSG_SPACE(struct.calcsize("i"))


@dataclass(frozen=True, slots=True)
class Born:
    """A child came to be; it is not ready before it says so on its socket."""

    index: int
    pid: int
    sock: socket.socket


@dataclass(frozen=True, slots=True)
class Died:
    """A child is gone, reaped. `status` as of `os.waitpid`; `pid` 0: it could not even be forked."""

    index: int
    pid: int
    status: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A child has been killed: it ran `key` past its hard limit; `key` None: it was not ready in time. Its death
    follows."""

    index: int
    pid: int
    key: int | None


@dataclass(frozen=True, slots=True)
class Looked:
    """The watch over a child is over: it runs nothing that has a hard limit."""

    index: int
    pid: int


class Zygote:
    """The main process's side."""

    def __init__(self, runner: Runner, slots: Slots, terms: Terms, parcel: Parcel | None = None) -> None:
        """Fork it. Any thread may do this; with other threads about, what they hold stays locked in the children."""
        self._sock, theirs = socket.socketpair()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # else the children would write it again
        tied = threading.current_thread() is threading.main_thread()
        main_pid = os.getpid()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = fork()
            if not self.pid:
                # Only the exit of the thread that forked is signalled, so only the main thread will do.
                self._sock.close()
                be_zygote(theirs, runner, slots, terms, parcel, main_pid if tied else None)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        self._sock.setblocking(True)

    def fileno(self) -> int:
        return self._sock.fileno()

    def spawn(self, index: int, delay: float = 0.0) -> None:
        """Fork a child, in `delay` seconds. Raises `OSError` if the zygote is gone, like all of these."""
        self._sock.sendall(RECORD.pack(SPAWN, index, int(delay * 1000), 0))

    def signal(self, pid: int, signum: int) -> None:
        """Send a signal to this child, unless it has died."""
        self._sock.sendall(RECORD.pack(SIGNAL, 0, pid, signum))

    def terminate(self, index: int, key: int, signum: int) -> None:
        """Send a signal to the child at `index` if it runs the job `key` at that moment, and not otherwise."""
        self._sock.sendall(RECORD.pack(TERMINATE, index, key, signum))

    def watch(self, index: int, limit: float) -> None:
        """Look in `limit` seconds, and from then on whenever it may be due, whether the child at `index` runs a job
        past its hard limit; if so, kill it. Ends with `Looked`."""
        self._sock.sendall(RECORD.pack(WATCH, index, int(limit * 1e6) + 1, 0))

    def events(self) -> Iterator[Born | Died | Ended | Looked | None]:
        """What happened; never blocks. None, as the last: the zygote is gone."""
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    RECORD.size, _ANCILLARY, socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
                )
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            if len(data) < RECORD.size:
                yield None
                return
            kind, index, pid, status = RECORD.unpack(data)
            if kind == DIED:
                yield Died(index, pid, status)
            elif kind == ENDED:
                yield Ended(index, pid, status if status >= 0 else None)
            elif kind == LOOKED:
                yield Looked(index, pid)
            elif ancillary:
                (descriptor,) = struct.unpack("i", ancillary[0][2])
                os.set_inheritable(descriptor, False)
                yield Born(index, pid, socket.socket(fileno=descriptor))

    def close(self) -> None:
        """End the zygote (it kills what children are left) and reap it."""
        with contextlib.suppress(OSError):
            self._sock.sendall(RECORD.pack(END, 0, 0, 0))
        self._hear_out(time.monotonic() + 5.0)
        self.abandon()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # reaped by somebody who reaps everything
            # Its end of the socket is closed, so it is in its last instructions; or else it is stuck.
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def abandon(self) -> None:
        self._sock.close()

    def _hear_out(self, deadline: float) -> None:
        """Read until the zygote has closed its end; what is born now has been killed already."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            events = list(self.events())
            for event in events:
                if isinstance(event, Born):
                    event.sock.close()
            if None in events:
                return
