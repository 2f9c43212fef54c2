"""Child processes for contract tests: run a function in a fork, see how it ended, kill it when wanted."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1


class Child:
    """A forked process that runs `work`, says that it is done, and then stays until it is killed.

    What `work` returns stays referenced, so nothing is released by garbage collection before the kill.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(work, write)
        os.close(write)

    def _live(self, work: Callable[[], object], write: int) -> None:
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a failed test leaves nobody behind
            kept = work()
            os.write(write, b"done")
            while kept is not self:
                signal.pause()
        except BaseException:  # noqa: BLE001 - the parent tells it
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(1)

    def done(self, deadline: float = 60.0) -> None:
        """Wait until `work` has returned; fails with the child's traceback if it raised."""
        ready, _, _ = select.select([self._read], [], [], deadline)
        assert ready, f"the child did nothing for {deadline} s"
        said = os.read(self._read, 1 << 16)
        assert said == b"done", said.decode()

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._read)


def in_child(work: Callable[[], object]) -> None:
    """Run `work` in a fork that dies with SIGKILL right after it."""
    child = Child(work)
    try:
        child.done()
    finally:
        child.kill()
