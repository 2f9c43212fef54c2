"""Application. Which process a pid file means, and a signal that reaches no other (`[multi.8]`).

A number in a pid file outlives its process: after a kill or a restart of the machine the system gives it to another
program. Linux tells enough to notice that; elsewhere the number is trusted.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Running", "is_alive", "is_stranger", "send"]

_PROC = Path("/proc")
#: Seconds by which the clock of files may be behind that of processes.
_SLACK = 2.0


def is_alive(pid: int) -> bool:
    """Is there such a process? One that has ended and waits for its parent to notice does not count."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    fields = _stat(pid)
    return not fields or fields[0] not in ("Z", "X")


class Running:
    """A process, known again: the number may be another's later."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._born = _stat(pid)[19:20]

    @property
    def ended(self) -> bool:
        """Is it no more?"""
        return not is_alive(self.pid) or (bool(self._born) and _stat(self.pid)[19:20] != self._born)


def is_stranger(pid: int, pidfile: str, marks: Sequence[str]) -> bool:
    """Is the living process `pid` certainly not the one that wrote the file?

    Both must hold: it was begun after the file was written, and its command line has none of the `marks`. A step of
    the clock alone therefore makes no stranger of anybody.
    """
    begun = _begun(pid)
    if begun is None:
        return False
    try:
        written = os.stat(pidfile).st_mtime
    except OSError:
        return False
    if begun <= written + _SLACK:
        return False
    shown = _command_line(pid)
    return shown is not None and not any(mark in shown for mark in marks)


def send(pid: int, signum: int, is_meant: Callable[[], bool]) -> bool:
    """Send a signal, if `is_meant` still says yes once the process is held fast. False: not sent.

    Raises `PermissionError`.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # another system, an old kernel, a strict container
        return is_meant() and _kill(pid, signum)
    try:
        if not is_meant():
            return False
        signal.pidfd_send_signal(handle, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _kill(pid: int, signum: int) -> bool:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def _stat(pid: int) -> list[str]:
    """What the kernel says of it, from its state on; nothing: it does not say."""
    with suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _begun(pid: int) -> float | None:
    """When it was begun, as a time of day."""
    fields = _stat(pid)
    if len(fields) < 20 or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _command_line(pid: int) -> str | None:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
