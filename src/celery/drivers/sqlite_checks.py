"""Adapter. How well a broker file is placed: for `celery check`, before it is asked of the file in earnest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery.ports import Finding

if TYPE_CHECKING:
    from celery.drivers.sqlite import Handle

__all__ = ["examine"]

#: Bytes of free space below which it is worth a word.
_LITTLE = 256 << 20
#: Of which nobody else should read: messages hold arguments.
_OTHERS = 0o077


def examine(handle: Handle) -> list[Finding]:
    """Open the file (which refuses network file systems and what is none of ours), write to it, and look around.

    Raises `ImproperlyConfigured` or `OperationalError` as any use of it does.
    """
    file = handle.file
    with handle.writing as db:  # the write lock, and nothing written
        (mode,) = db.execute("PRAGMA journal_mode").fetchone()
        (version,) = db.execute("SELECT sqlite_version()").fetchone()
        (size,) = db.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").fetchone()
    found = [Finding("good", f"{file.path} is writable ({_amount(size)}, SQLite {version}, journal {mode})")]
    if os.stat(file.path).st_mode & _OTHERS:
        found.append(
            Finding(
                "doubtful",
                f"{file.path} may be read by other users, and messages hold arguments: chmod 600 {file.path}",
            )
        )
    room = os.statvfs(os.path.dirname(file.path))
    free = room.f_bavail * room.f_frsize
    text = f"{_amount(free)} free where {file.path} lies"
    if free < _LITTLE:
        found.append(Finding("doubtful", f"only {text}: once the disk is full nothing can be sent. Free some space"))
    else:
        found.append(Finding("good", text))
    return found


def _amount(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 10_240 or unit == "GiB":
            return f"{size} {unit}"
        size //= 1024
    raise AssertionError("unreachable")
