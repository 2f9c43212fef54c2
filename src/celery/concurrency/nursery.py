"""Adapter. The zygote's own loop: forks children, reaps them, and ends the runs that must be ended.

Only one run is ever ended, never the next one in its place: the child is stopped first, so that it cannot go on to
another job while its slot is read; then it is killed or goes on. While the zygote waits for it to stop (a process deep
in the kernel may take its time), it serves the others.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import heapq
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NoReturn

from celery.concurrency.child import be_child
from celery.concurrency.forks import die_with_parent, fork
from celery.concurrency.kin import kill_with_kin

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.concurrency.slots import Run, Slots
    from celery.concurrency.spawned import Parcel
    from celery.concurrency.terms import Terms
    from celery.ports import Runner

__all__ = ["BORN", "DIED", "END", "ENDED", "LOOKED", "RECORD", "SIGNAL", "SPAWN", "TERMINATE", "WATCH", "be_zygote"]

#: Kind, child's index, two numbers.
RECORD = struct.Struct("<iiqq")
#: To the zygote: SPAWN(index, delay in ms), SIGNAL(pid, signal), TERMINATE(index; key, signal), END,
#: WATCH(index, microseconds).
SPAWN, SIGNAL, TERMINATE, END, WATCH = 1, 2, 3, 4, 5
#: From it: BORN(index, pid) with a descriptor, DIED(index, pid, wait status), ENDED(index, pid, key or -1),
#: LOOKED(index, pid).
BORN, DIED, ENDED, LOOKED = 6, 7, 8, 9
#: Ignored by the zygote, so that a signal to the whole process group leaves the main process its orderly shutdown.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
#: Seconds after which a child that was told to stop and has not said so is taken for stopped: it was already, or it
#: is in the kernel, which will let it run no further.
_STOPPING = 0.5


def be_zygote(
    sock: socket.socket, runner: Runner, slots: Slots, terms: Terms, parcel: Parcel | None, main_pid: int | None
) -> NoReturn:
    """What the freshly forked process does for the rest of its life. `parcel`: children are spawned, not forked."""
    status = 1
    try:
        _prepare(main_pid)
        _Nursery(sock, runner, slots, terms, parcel).serve()
        status = 0
    except BaseException:  # noqa: BLE001  the top of a process; nobody else could tell
        traceback.print_exc()
    finally:
        os._exit(status)


def _prepare(main_pid: int | None) -> None:
    """Shed what belongs to the main process: its signal handlers, exit handlers and standard input."""
    gc.freeze()  # so that no collection writes to, and thereby copies, the pages shared with the main process
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # They are the main process's to run: pid files to remove, temporary folders, threads to join.
    atexit._clear()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if main_pid is not None:
        die_with_parent(main_pid)


@dataclass(eq=False, slots=True)
class _Sentence:
    """A signal for the child that runs this job, to be carried out or dropped once the child has stopped."""

    key: int
    signum: int
    #: For its hard limit; False: because the main process asked.
    timed: bool


class _Nursery:
    """The zygote's loop."""

    def __init__(self, sock: socket.socket, runner: Runner, slots: Slots, terms: Terms, parcel: Parcel | None) -> None:
        self._sock = sock
        self._runner = runner
        self._slots = slots
        self._terms = terms
        self._parcel = parcel
        self._children: dict[int, int] = {}  # pid → index
        self._pids: dict[int, int] = {}  # index → pid
        #: What is to be done when: (when, number, what).
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        #: (index, when) of the looks in the agenda.
        self._watches: set[tuple[int, float]] = set()
        self._sentences: dict[int, list[_Sentence]] = {}
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        self._wake_write = write

    def serve(self) -> None:
        """Obey until told to end, or until the main process is gone; then no child is left either."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes `poll` through the descriptor below
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while True:
                ready = dict(poll.poll(self._timeout()))
                if self._wake in ready:
                    os.read(self._wake, 4096)
                self._reap()
                if self._sock.fileno() in ready and not self._obey():
                    return
                self._do_due()
        finally:
            self._kill_all()

    def _timeout(self) -> float | None:
        if not self._agenda:
            return None
        return max(0.0, (self._agenda[0][0] - time.monotonic()) * 1000)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), what))

    def _do_due(self) -> None:
        while self._agenda and self._agenda[0][0] <= time.monotonic():
            heapq.heappop(self._agenda)[2]()

    def _obey(self) -> bool:
        try:
            data = self._sock.recv(RECORD.size, socket.MSG_WAITALL)
        except OSError:
            return False
        if len(data) < RECORD.size:
            return False  # the main process is gone
        kind, index, number, signum = RECORD.unpack(data)
        if kind == SPAWN:
            self._at(time.monotonic() + number / 1000, lambda: self._fork_one(index))
        elif kind == SIGNAL and number in self._children:
            os.kill(number, signum)
        elif kind == TERMINATE and index in self._pids:
            self._sentence(self._pids[index], _Sentence(number, signum, timed=False))
        elif kind == WATCH:
            self._watch(index, time.monotonic() + number / 1e6)
        return bool(kind != END)

    def _tell(self, kind: int, index: int, pid: int, number: int = 0) -> None:
        with contextlib.suppress(OSError):
            self._sock.sendall(RECORD.pack(kind, index, pid, number))

    # ------------------------------------------------------------------------------------------------- ending runs

    def _watch(self, index: int, when: float) -> None:
        if (index, when) not in self._watches:
            self._watches.add((index, when))
            self._at(when, lambda: self._look(index, when))

    def _look(self, index: int, when: float) -> None:
        """Is the child at `index` past the limit of what it runs? Whatever it begins later is due later than now."""
        self._watches.discard((index, when))
        pid = self._pids.get(index, 0)
        run = self._slots.slot(index).read() if pid else None
        if run is None or not run.running or not run.limit:
            self._tell(LOOKED, index, pid)
        elif run.since + run.limit > time.monotonic():
            self._watch(index, run.since + run.limit)
        else:
            self._sentence(pid, _Sentence(run.key, signal.SIGKILL, timed=True))

    def _sentence(self, pid: int, sentence: _Sentence) -> None:
        """Stop the child, so that it cannot go on to its next job while we look; `_reap` hears that it has."""
        self._sentences.setdefault(pid, []).append(sentence)
        os.kill(pid, signal.SIGSTOP)
        self._at(time.monotonic() + _STOPPING, lambda: self._judge_at_last(pid, sentence))

    def _judge_at_last(self, pid: int, sentence: _Sentence) -> None:
        if sentence in self._sentences.get(pid, ()):
            self._judge(pid)

    def _judge(self, pid: int) -> None:
        """The child stands still: kill it, or let it go."""
        sentences = self._sentences.pop(pid, ())
        if not sentences or pid not in self._children:
            return
        index = self._children[pid]
        run = self._slots.slot(index).read()
        for sentence in sentences:
            if run is not None and run.running and run.key == sentence.key:
                self._carry_out(pid, index, sentence)
            elif sentence.timed:
                self._look_again(index, run)
        os.kill(pid, signal.SIGCONT)

    def _carry_out(self, pid: int, index: int, sentence: _Sentence) -> None:
        if sentence.timed:
            self._tell(ENDED, index, pid, sentence.key)
        if sentence.signum == signal.SIGKILL:
            kill_with_kin(pid)
        else:
            os.kill(pid, sentence.signum)

    def _look_again(self, index: int, run: Run | None) -> None:
        """The run that was too long has ended in the last moment; another one may have begun."""
        self._watch(index, time.monotonic() if run is None else run.since + run.limit)

    def _expect(self, pid: int, index: int) -> None:
        """Kill the child if it is not ready by now."""
        if self._pids.get(index) == pid and not self._slots.slot(index).ready:
            self._tell(ENDED, index, pid, -1)
            os.kill(pid, signal.SIGKILL)

    # ---------------------------------------------------------------------------------------------------- children

    def _fork_one(self, index: int) -> None:
        ours, theirs = socket.socketpair()
        zygote = os.getpid()
        try:
            pid = fork()
        except OSError as exc:
            print(f"celery: cannot fork a child: {exc}", file=sys.stderr)  # noqa: T201  nobody else can tell
            ours.close()
            theirs.close()
            self._tell(DIED, index, 0, 1 << 8)
            return
        if not pid:
            ours.close()
            self._be_child(index, theirs, zygote)
        theirs.close()
        self._children[pid] = index
        self._pids[index] = pid
        record = RECORD.pack(BORN, index, pid, 0)
        self._sock.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", ours.fileno()))])
        ours.close()
        if self._terms.alive_timeout is not None:
            self._at(time.monotonic() + self._terms.alive_timeout, lambda: self._expect(pid, index))

    def _be_child(self, index: int, sock: socket.socket, zygote: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            os.close(self._wake)
            os.close(self._wake_write)
            self._sock.close()
            for signum in (*_IGNORED, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            if self._parcel is not None:
                self._parcel.become(index, sock, zygote)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
        be_child(index, self._runner, sock.detach(), self._slots, self._terms, zygote)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if os.WIFSTOPPED(status):
                self._judge(pid)
            else:
                self._gone(pid, status)

    def _gone(self, pid: int, status: int) -> None:
        index = self._children.pop(pid, None)
        self._sentences.pop(pid, None)
        if index is not None:
            del self._pids[index]
            self._tell(DIED, index, pid, status)

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        while self._children:
            pid, status = os.waitpid(-1, 0)
            self._gone(pid, status)
