"""Adapter. What a process of the prefork pool must do about forks: its own, and those of user code."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import warnings
from typing import Any, NoReturn
from weakref import WeakSet

__all__ = ["abandon_in_forks", "die_with_parent", "exit_on_signal", "fork"]

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
    if signal.getsignal(signal.SIGTERM) is exit_on_signal:
        _masks.kept = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))


def _release_term() -> None:
    if _masks.kept is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.kept)


def _reset_term() -> None:
    if _masks.kept is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _release_term()


os.register_at_fork(before=_hold_term, after_in_parent=_release_term, after_in_child=_reset_term)


def exit_on_signal(signum: int, _frame: Any) -> NoReturn:
    """`[shutdown.13]`: TERM ends a child through SystemExit, as if the task had asked for it."""
    raise SystemExit(128 + signum)


def fork() -> int:
    """`os.fork`, without a word about other threads."""
    with warnings.catch_warnings():
        # Python 3.12 warns where other threads exist. They may: an embedded worker has no choice.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def die_with_parent(parent: int) -> None:
    """Be killed by the kernel when the parent's thread that forked us ends (Linux; elsewhere the socket tells)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before we asked
