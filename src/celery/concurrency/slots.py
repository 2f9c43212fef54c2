"""Adapter. Shared memory in which each child says what it runs since when, and keeps outcomes until they are sent.

Made before the first fork, so that the main process, the zygote and all children share it. One writer a slot (the
child that sits there now), and readers that never stop it. What it buys: after `kill -9` of a child the main process
knows exactly which job was running, has the outcomes of those that had ended but were not sent yet, and gives back
all others as never begun.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
from typing import NamedTuple

from celery.concurrency.frames import array
from celery.exceptions import ImproperlyConfigured

__all__ = ["Run", "Slot", "Slots"]

# Written as `memory[a:b] = pack(…)`, a plain copy, and never by `pack_into`: that fills the place with zeros first, and
# a child killed between the two would leave a journal that looks empty.
#: Sequence, key, start, hard limit, sequence again (differs if the writer was killed or stopped half-way).
_BEGIN = struct.Struct("@QqddQ")
#: Key of the run that ended last; bytes used in the journal << 32 | outcomes in it.
_END = struct.Struct("@qQ")
_END_AT = _BEGIN.size
#: One byte: the child is ready for jobs.
_READY_AT = _END_AT + _END.size
_HEADER = 64
_JOURNAL = 128 << 10
_STRIDE = _HEADER + _JOURNAL


class Run(NamedTuple):
    """The job that a child began last."""

    key: int
    #: `time.monotonic()` of its beginning; one clock for all processes of a machine.
    since: float
    #: False: it has ended.
    running: bool
    #: Seconds after which it is to be ended from outside; 0.0: none.
    limit: float = 0.0


class Slot:
    """One child's place in the shared memory. `greet`, `begin`, `finish`, `unsent` and `sent` are the child's, the rest
    is the readers'."""

    __slots__ = ("_base", "_ended", "_journal", "_memory", "_sequence", "count", "used")

    def __init__(self, memory: mmap.mmap, index: int) -> None:
        self._memory = memory
        self._base = index * _STRIDE
        self._ended = self._base + _END_AT
        self._journal = self._base + _HEADER
        self._sequence = 0
        #: Outcomes in the journal, and their bytes.
        self.count = 0
        self.used = 0

    def greet(self) -> None:
        """This child is ready for jobs."""
        self._memory[self._base + _READY_AT] = 1

    def begin(self, key: int, now: float, limit: float = 0.0) -> None:
        """This child begins to run the job. Said before the first instruction of the run."""
        self._sequence = sequence = self._sequence + 1
        self._memory[self._base : self._ended] = _BEGIN.pack(sequence, key, now, limit, sequence)

    def finish(self, key: int, outcome: bytes) -> bool:
        """The run has ended with this (encoded) outcome, which is kept until `sent`. False: there is no room."""
        used = self.used
        end = used + len(outcome)
        if end > _JOURNAL:
            return False
        at = self._journal
        self._memory[at + used : at + end] = outcome
        self.used = end
        self.count = count = self.count + 1
        # The last step, so that an outcome cut off by a kill is not counted.
        self._memory[self._ended : self._ended + _END.size] = _END.pack(key, end << 32 | count)
        return True

    def unsent(self) -> bytes:
        """The outcomes in the journal, as one MessagePack array."""
        return array(self._memory[self._journal : self._journal + self.used], self.count)

    def sent(self, key: int | None = None) -> None:
        """The journal has been sent; with `key`, so has the outcome of that run, which did not fit into it."""
        self.used = self.count = 0
        last = _END.unpack_from(self._memory, self._ended)[0] if key is None else key
        self._memory[self._ended : self._ended + _END.size] = _END.pack(last, 0)

    def read(self) -> Run | None:
        """What the child began last; None if nothing yet. Read again while it is being written."""
        for _ in range(1000):
            first = bytes(self._memory[self._base : self._base + _HEADER])
            sequence, key, since, limit, again = _BEGIN.unpack_from(first)
            if sequence == again and first == self._memory[self._base : self._base + _HEADER]:
                break
        # Else the child was stopped or killed just here: the new job counts as begun, which is the safe side.
        if not sequence:
            return None
        return Run(key, since, _END.unpack_from(first, _END_AT)[0] != key, limit)

    @property
    def ready(self) -> bool:
        """The child has said that it is."""
        return bool(self._memory[self._base + _READY_AT])

    def recover(self) -> bytes:
        """What a dead child had not sent (or had, but could not say so any more), as one MessagePack array."""
        _, state = _END.unpack_from(self._memory, self._ended)
        self.used, self.count = state >> 32, state & 0xFFFFFFFF
        return self.unsent()

    def clear(self) -> None:
        """Make the place ready for another child, or the first."""
        self.used = self.count = self._sequence = 0
        # No key is -1, so that a child's first run is never taken for ended.
        header = _BEGIN.pack(0, -1, 0.0, 0.0, 0) + _END.pack(-1, 0)
        self._memory[self._base : self._base + _HEADER] = header.ljust(_HEADER, b"\0")


class Slots:
    """The shared memory: places for `capacity` children. Pages cost nothing before they are used."""

    def __init__(self, capacity: int, *, shared: bool = False) -> None:
        """`shared`: with processes too that are no forks of this one; they `attach` to it by its descriptor."""
        self.capacity = capacity
        self._descriptor = _memory_file(capacity * _STRIDE) if shared else -1
        try:
            self._memory = mmap.mmap(self._descriptor, capacity * _STRIDE)
        except OSError as exc:
            raise ImproperlyConfigured(
                f"worker_concurrency: there is no memory for {capacity} processes, successors counted ({exc}): lower it"
            ) from exc

    @classmethod
    def attach(cls, descriptor: int, capacity: int) -> Slots:
        """The same memory, seen from another process; takes the descriptor over."""
        slots = cls.__new__(cls)
        slots.capacity, slots._descriptor = capacity, descriptor
        slots._memory = mmap.mmap(descriptor, capacity * _STRIDE)
        return slots

    def fileno(self) -> int:
        return self._descriptor

    def slot(self, index: int) -> Slot:
        return Slot(self._memory, index)

    def close(self) -> None:
        self._memory.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _memory_file(size: int) -> int:
    if sys.platform == "linux":
        descriptor = os.memfd_create("celery-pool")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
