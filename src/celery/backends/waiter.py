"""Adapter. Threads of one process that wait for results over one connection.

One of them, the leader, reads the connection itself; the others sleep until it hands them their document, or its place
when it leaves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Waiter", "wake_one"]


class Waiter:
    """One who waits. All of it is guarded by the lock of whoever keeps the waiters, save sleeping at the gate."""

    __slots__ = ("asleep", "found", "gate", "heard", "ids")

    def __init__(self, ids: Iterable[str], heard: deque[bytes] | None = None) -> None:
        self.ids = dict.fromkeys(ids)
        self.found: dict[str, bytes] = {}
        #: Documents of every state, told but not yet passed on; None where only final ones matter.
        self.heard = heard
        self.gate = threading.Lock()
        self.gate.acquire()
        #: It is about to sleep, or does: set with the lock held, by who finds that somebody else leads.
        self.asleep = False

    @property
    def served(self) -> bool:
        """Whether there is something to go on with."""
        return bool(self.found or self.heard)

    def wake(self) -> None:
        """With the lock held."""
        if self.asleep:
            self.asleep = False
            self.gate.release()

    def sleep(self, lock: threading.Lock, seconds: float) -> None:
        """Without the lock: until it is woken, for so long at most. Returns at once if it was woken meanwhile."""
        if not self.asleep:
            return
        if self.gate.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX)):
            return
        with lock:
            if self.asleep:
                self.asleep = False
            else:
                self.gate.acquire(blocking=False)  # woken in this very moment


def wake_one(wanted: Mapping[str, Sequence[Waiter]]) -> None:
    """Wake somebody to lead, with the lock held. Asked of all who leave: who was woken before may have left with an
    answer instead."""
    for waiters in wanted.values():
        for waiter in waiters:
            if waiter.asleep:
                waiter.wake()
                return
