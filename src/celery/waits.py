"""Port. Waiting for descriptors with what the process has: threads, gevent or eventlet (which takes `poll` away)."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["drain", "poke", "read", "wait_readable", "write"]

#: The system's own functions: eventlet's `os.read` and `os.write` wait, which must not happen in its hub, nor in the
#: signal handlers that run there.
_system: Any = sys.modules[os.name]
#: `os.read` and `os.write`, as they are where nothing is patched.
read, write = _system.read, _system.write


def wait_readable(descriptors: Sequence[int], timeout: float) -> list[int]:
    """Wait up to `timeout` seconds; returns the descriptors that are readable (or at their end)."""
    if hasattr(select, "poll"):
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        return [ready for ready, _ in poller.poll(max(timeout, 0.0) * 1000)]
    return list(select.select(descriptors, [], [], max(timeout, 0.0))[0])


def poke(descriptor: int) -> None:
    """Write a byte to a pipe that does not block; where it is full, it is readable anyway. Safe in signal handlers."""
    with suppress(BlockingIOError):
        write(descriptor, b"!")


def drain(descriptor: int) -> None:
    """Read a pipe empty that does not block."""
    with suppress(BlockingIOError):
        while len(read(descriptor, 512)) == 512:
            pass
