"""Adapter. Who is alive: each holder locks one byte of a file, and the kernel lets go of it when its process dies."""

from __future__ import annotations

import fcntl
import os
import threading

__all__ = ["LockFile", "lock_file"]


class LockFile:
    """The lock file beside a database. Holders are numbers above 0; each is the byte of that place in the file.

    POSIX locks belong to a process, not to a descriptor: whoever closes any descriptor of the file loses all of them.
    So a process has one of these for each path, with one descriptor, and knows its own holders by itself.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._mine: set[int] = set()
        self._fd = -1

    def hold(self, holder: int) -> None:
        """Be alive as this holder, until `release` or the death of the process."""
        with self._lock:
            fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, holder)
            self._mine.add(holder)

    def inherit(self, holder: int) -> bool:
        """Take the place of a dead holder, so that nobody else does; False if it is alive. `release` it soon."""
        with self._lock:
            if holder in self._mine:
                return False
            try:
                fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, holder)
            except OSError:
                return False
            self._mine.add(holder)
            return True

    def release(self, holder: int) -> None:
        with self._lock:
            if holder not in self._mine:
                return
            self._mine.discard(holder)
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, holder)
            if not self._mine:
                os.close(self._fd)
                self._fd = -1

    def after_fork_in_child(self) -> None:
        """Locks are not inherited; closing the descriptor here does nothing to the parent's."""
        self._lock = threading.Lock()
        self._mine.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _descriptor(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._fd


def lock_file(path: str) -> LockFile:
    """This process's one lock file of that path."""
    with _lock:
        if path not in _lock_files:
            _lock_files[path] = LockFile(path)
        return _lock_files[path]


_lock_files: dict[str, LockFile] = {}
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _lock  # another thread may have held it
    _lock = threading.Lock()
    for file in _lock_files.values():
        file.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
