"""Adapter. When a pool's child has done enough: after so many runs, or with so much memory."""

from __future__ import annotations

import logging
import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.concurrency.terms import Terms

__all__ = ["Retirement", "resident_memory"]

logger = logging.getLogger(__name__)


class Retirement:
    """Asked after each run whether it was the child's last (`[pool.6]`). Made in the child."""

    def __init__(self, max_tasks: int | None, max_memory: int | None) -> None:
        self._left = max_tasks or sys.maxsize
        self._max_memory = max_memory

    @classmethod
    def under(cls, terms: Terms) -> Retirement | None:
        """None: children are kept for ever."""
        return cls(terms.max_tasks, terms.max_memory) if terms.max_tasks or terms.max_memory else None

    def due(self) -> bool:
        """One more run is over: was it the last?"""
        self._left -= 1
        if not self._left:
            return True
        most = self._max_memory
        if most is None or (used := resident_memory()) <= most:
            return False
        logger.warning(
            "Pool child (pid %d) is replaced: %d KiB resident, worker_max_memory_per_child is %d KiB",
            os.getpid(), used, most,
        )  # fmt: skip
        return True


def resident_memory() -> int:
    """Kibibytes of memory that this process holds now; where the system does not tell, the most it ever held
    (`[limit.15]`)."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(128).split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak >> 10 if sys.platform == "darwin" else peak


_PAGE = resource.getpagesize() >> 10
