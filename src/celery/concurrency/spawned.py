"""Adapter. Children of the prefork pool that are fresh interpreters instead of forks: the start method `spawn`.

The zygote forks as ever, but its fork at once becomes a new interpreter, which finds all that it needs behind inherited
descriptors: the socket, the shared memory, and a parcel with the runner's pickle. Nothing of the main process's memory
gets into it, so libraries that cannot be forked (CUDA, some RPC clients) work there.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import celery
from celery.concurrency.child import be_child
from celery.concurrency.slots import Slots

if TYPE_CHECKING:
    import socket

    from celery.concurrency.terms import Terms
    from celery.ports import Runner

__all__ = ["Parcel", "main"]

_ROOT = str(Path(celery.__path__[0]).parent)
_COMMAND = "import sys; sys.path.insert(0, {root!r}); from celery.concurrency.spawned import main; main{args!r}"


class Parcel:
    """What every spawned child is given, in a file without a name."""

    def __init__(self, runner: Runner, slots: Slots, terms: Terms) -> None:
        """Raises `ValueError` if the runner, and with it the app, cannot be pickled (`[pool.5]`); the slots are closed
        then."""
        preparation = spawn.get_preparation_data("pool-child")
        preparation["authkey"] = bytes(preparation["authkey"])  # as itself it refuses to be pickled here
        try:
            pickled = pickle.dumps((runner, terms))
        except Exception as exc:
            slots.close()
            raise ValueError(
                "worker_pool_start_method: with 'spawn' the app must be importable or picklable, and it is neither "
                f"({exc!r}); keep the app in a module of its own, or use 'fork'"
            ) from exc
        self._slots = slots
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._file.write(pickle.dumps((preparation, slots.capacity, pickled)))
        self._file.flush()

    def become(self, index: int, sock: socket.socket, zygote: int) -> NoReturn:
        """In a process just forked: become a new interpreter that serves as the child at `index`."""
        descriptors = (sock.fileno(), self._slots.fileno(), self._file.fileno())
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        code = _COMMAND.format(root=_ROOT, args=(*descriptors, index, zygote))
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        os.execv(sys.executable, [sys.executable, *flags, "-c", code])  # noqa: S606  no shell is meant

    def close(self) -> None:
        self._file.close()


def main(sock: int, memory: int, parcel: int, index: int, zygote: int) -> NoReturn:
    """Where a spawned child begins."""
    for descriptor in (sock, memory, parcel):
        os.set_inheritable(descriptor, False)
    # All children share the file's position, so it is left alone.
    preparation, capacity, pickled = pickle.loads(os.pread(parcel, os.fstat(parcel).st_size, 0))  # noqa: S301  our own
    os.close(parcel)
    os.environ["FORKED_BY_MULTIPROCESSING"] = "1"  # as billiard says it to whoever asks ([env.6])
    spawn.prepare(preparation)
    runner, terms = pickle.loads(pickled)  # noqa: S301
    be_child(index, runner, sock, Slots.attach(memory, capacity), terms, zygote)
