"""Adapter. The zygote: a single-threaded process, forked early, that forks and reaps every prefork child.

Forked before the main process opens sockets and starts threads (where the caller can have it so), it can replace a
child at any later time without copying locks that some thread holds. It obeys records on a socket and reports births
(with the main process's end of the child's socket, by SCM_RIGHTS) and deaths. Only it may safely signal a child, for
it alone decides when a process id becomes free.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import heapq
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakSet

from celery.concurrency.child import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.concurrency.slots import Slots
    from celery.ports import Runner

__all__ = ["Born", "Died", "Zygote", "abandon_in_forks"]

#: Kind, child's index, two numbers.
_RECORD = struct.Struct("<iiqq")
#: To the zygote: SPAWN(index, delay in ms), SIGNAL(pid, signal), TERMINATE(index; key, signal), END.
_SPAWN, _SIGNAL, _TERMINATE, _END = 1, 2, 3, 4
#: From it: BORN(index, pid) with a descriptor, DIED(index, pid, wait status).
_BORN, _DIED = 5, 6
#: Ignored by the zygote, so that a signal to the whole process group leaves the main process its orderly shutdown.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_ANCILLARY = socket.CMSG_SPACE(struct.calcsize("i"))

#: Objects with descriptors that a fork must not keep open, or the death of this process could not be seen.
_abandoned: WeakSet[Any] = WeakSet()


def abandon_in_forks(holder: Any) -> None:
    """In every process forked off this one from now on, `holder.abandon()` is called first."""
    _abandoned.add(holder)


def _abandon() -> None:
    for holder in list(_abandoned):
        holder.abandon()
    _abandoned.clear()


os.register_at_fork(after_in_child=_abandon)

_masks = threading.local()


def _hold_term() -> None:
    """What a task forks shall die of TERM like any other process (`multiprocessing.Pool` counts on it): our handler is
    not for it, and Python forgets a signal that it has noted but not handled when it forks."""
    _masks.kept = None
    if signal.getsignal(signal.SIGTERM) is _exit_on_signal:
        _masks.kept = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))


def _release_term() -> None:
    if _masks.kept is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.kept)


def _reset_term() -> None:
    if _masks.kept is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _release_term()


os.register_at_fork(before=_hold_term, after_in_parent=_release_term, after_in_child=_reset_term)


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


class Zygote:
    """The main process's side."""

    def __init__(self, runner: Runner, slots: Slots) -> None:
        """Fork it. Any thread may do this; with other threads about, what they hold stays locked in the children."""
        self._sock, theirs = socket.socketpair()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # else the children would write it again
        tied = threading.current_thread() is threading.main_thread()
        main_pid = os.getpid()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = _fork()
            if not self.pid:
                # Only the exit of the thread that forked is signalled, so only the main thread will do.
                _be_zygote(theirs, runner, slots, main_pid if tied else None, self._sock)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        self._sock.setblocking(True)

    def fileno(self) -> int:
        return self._sock.fileno()

    def spawn(self, index: int, delay: float = 0.0) -> None:
        """Fork a child, in `delay` seconds. Raises `OSError` if the zygote is gone, like all of these."""
        self._sock.sendall(_RECORD.pack(_SPAWN, index, int(delay * 1000), 0))

    def signal(self, pid: int, signum: int) -> None:
        """Send a signal to this child, unless it has died."""
        self._sock.sendall(_RECORD.pack(_SIGNAL, 0, pid, signum))

    def terminate(self, index: int, key: int, signum: int) -> None:
        """Send a signal to the child at `index` if it runs the job `key` at that moment, and not otherwise."""
        self._sock.sendall(_RECORD.pack(_TERMINATE, index, key, signum))

    def events(self) -> Iterator[Born | Died | None]:
        """What happened; never blocks. None, as the last: the zygote is gone."""
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    _RECORD.size, _ANCILLARY, socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
                )
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            if len(data) < _RECORD.size:
                yield None
                return
            kind, index, pid, status = _RECORD.unpack(data)
            if kind == _DIED:
                yield Died(index, pid, status)
            elif ancillary:
                (descriptor,) = struct.unpack("i", ancillary[0][2])
                os.set_inheritable(descriptor, False)
                yield Born(index, pid, socket.socket(fileno=descriptor))

    def close(self) -> None:
        """End the zygote (it kills what children are left) and reap it."""
        with contextlib.suppress(OSError):
            self._sock.sendall(_RECORD.pack(_END, 0, 0, 0))
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


# ------------------------------------------------------------------------------------------------- in the zygote itself


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns where other threads exist. They may: an embedded worker has no choice.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be_zygote(
    sock: socket.socket, runner: Runner, slots: Slots, main_pid: int | None, theirs: socket.socket
) -> NoReturn:
    status = 1
    try:
        theirs.close()
        _prepare(main_pid)
        _Nursery(sock, runner, slots).serve()
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
        _die_with_parent(main_pid)


def _die_with_parent(parent: int) -> None:
    """Be killed by the kernel when the parent's thread that forked us ends (Linux; elsewhere the socket tells)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before we asked


class _Nursery:
    """The zygote's loop."""

    def __init__(self, sock: socket.socket, runner: Runner, slots: Slots) -> None:
        self._sock = sock
        self._runner = runner
        self._slots = slots
        self._children: dict[int, int] = {}  # pid → index
        self._due: list[tuple[float, int]] = []  # children to fork: (when, index)
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
                self._fork_due()
        finally:
            self._kill_all()

    def _timeout(self) -> int | None:
        if not self._due:
            return None
        return max(0, int((self._due[0][0] - time.monotonic()) * 1000) + 1)

    def _obey(self) -> bool:
        try:
            data = self._sock.recv(_RECORD.size, socket.MSG_WAITALL)
        except OSError:
            return False
        if len(data) < _RECORD.size:
            return False  # the main process is gone
        kind, index, number, signum = _RECORD.unpack(data)
        if kind == _SPAWN:
            heapq.heappush(self._due, (time.monotonic() + number / 1000, index))
        elif kind == _SIGNAL and number in self._children:
            os.kill(number, signum)
        elif kind == _TERMINATE:
            self._terminate(index, number, signum)
        return bool(kind != _END)

    def _terminate(self, index: int, key: int, signum: int) -> None:
        """Stop the child, so that it cannot go on to its next job while we look, then kill it or let it go."""
        for pid, at in self._children.items():
            if at != index:
                continue
            os.kill(pid, signal.SIGSTOP)
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                self._gone(pid, status)
                return
            run = self._slots.slot(index).read()
            if run is not None and run.running and run.key == key:
                os.kill(pid, signum)
            os.kill(pid, signal.SIGCONT)
            return

    def _fork_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            self._fork_one(heapq.heappop(self._due)[1])

    def _fork_one(self, index: int) -> None:
        ours, theirs = socket.socketpair()
        zygote = os.getpid()
        try:
            pid = _fork()
        except OSError as exc:
            print(f"celery: cannot fork a child: {exc}", file=sys.stderr)  # noqa: T201  nobody else can tell
            ours.close()
            theirs.close()
            self._sock.sendall(_RECORD.pack(_DIED, index, 0, 1 << 8))
            return
        if not pid:
            ours.close()
            self._be_child(index, theirs, zygote)
        theirs.close()
        self._children[pid] = index
        record = _RECORD.pack(_BORN, index, pid, 0)
        self._sock.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", ours.fileno()))])
        ours.close()

    def _be_child(self, index: int, sock: socket.socket, zygote: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            os.close(self._wake)
            os.close(self._wake_write)
            self._sock.close()
            for signum in (*_IGNORED, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, _exit_on_signal)
            _die_with_parent(zygote)
            child = Child(index, self._runner, sock, self._slots.slot(index))
            abandon_in_forks(child)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
        child.live()

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._gone(pid, status)

    def _gone(self, pid: int, status: int) -> None:
        index = self._children.pop(pid, None)
        if index is not None:
            with contextlib.suppress(OSError):
                self._sock.sendall(_RECORD.pack(_DIED, index, pid, status))

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        while self._children:
            pid, status = os.waitpid(-1, 0)
            self._gone(pid, status)


def _exit_on_signal(signum: int, _frame: Any) -> NoReturn:
    """`[shutdown.13]`: TERM ends a child through SystemExit, as if the task had asked for it."""
    raise SystemExit(128 + signum)
