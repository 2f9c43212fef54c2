"""Adapter. The dead letters of one `memory://` name: kept in order, bounded, oldest dropped first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from celery.ports import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.ports import DeadLetterBounds

__all__ = ["Cemetery", "size_of"]


def size_of(letter: DeadLetter) -> int:
    """Bytes that count towards the bound."""
    return len(letter.envelope) + len(letter.reason.encode("utf-8", "replace")) + len(letter.traceback)


class Cemetery:
    """Letters by queue. Every method expects that the caller holds the server's lock."""

    def __init__(self) -> None:
        self._queues: dict[str, OrderedDict[str, DeadLetter]] = {}
        self._number = 0

    def bury(self, letter: DeadLetter, bounds: DeadLetterBounds) -> int:
        """Keep a letter under a new id; returns how many others had to go for want of room."""
        self._number += 1
        kept = self._queues.setdefault(letter.queue, OrderedDict())
        kept[str(self._number)] = DeadLetter(
            str(self._number), letter.queue, letter.envelope, letter.reason, letter.traceback, letter.died_at,
            letter.deaths,
        )  # fmt: skip
        self.expire(letter.died_at - bounds.age)
        dropped, size = 0, sum(map(size_of, kept.values()))
        while kept and (len(kept) > bounds.count or size > bounds.size):
            size -= size_of(kept.popitem(last=False)[1])
            dropped += 1
        return dropped

    def expire(self, before: float) -> None:
        """Drop what died before that time."""
        for queue, kept in list(self._queues.items()):
            while kept and next(iter(kept.values())).died_at < before:
                kept.popitem(last=False)
            if not kept:
                del self._queues[queue]

    def queues(self) -> list[str]:
        return sorted(queue for queue, kept in self._queues.items() if kept)

    def newest(self, queue: str, limit: int, before: str) -> list[DeadLetter]:
        letters = reversed(self._queues.get(queue, OrderedDict()).values())
        older = (letter for letter in letters if not before or int(letter.id) < int(before))
        return [letter for _, letter in zip(range(limit), older, strict=False)]

    def find(self, ids: Sequence[str]) -> list[DeadLetter]:
        return [kept[id] for id in ids for kept in self._queues.values() if id in kept]

    def take(self, ids: Iterable[str]) -> list[DeadLetter]:
        """Take letters out, in the order in which they are named."""
        return [kept.pop(id) for id in ids for kept in list(self._queues.values()) if id in kept]
