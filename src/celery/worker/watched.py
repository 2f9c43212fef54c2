"""Application. A gate that processes share: whether somebody wants to be told of each run."""

from __future__ import annotations

import ctypes
import mmap

__all__ = ["Watched", "shared_gate"]


class Watched(ctypes.Structure):
    """See `lifecycle.Gate`. To ask it costs the read of an attribute, as with every gate."""

    _fields_ = (("receivers", ctypes.c_bool),)
    receivers: bool


def shared_gate() -> Watched:
    """A gate, shut. Opened and shut by a worker's main process; its children, forked off later, see it at once."""
    return Watched.from_buffer(mmap.mmap(-1, ctypes.sizeof(Watched)))
