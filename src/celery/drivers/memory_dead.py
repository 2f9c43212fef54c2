"""Adapter. The dead letters of one `memory://` name: kept in order, bounded, oldest dropped first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from celery.ports import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.ports import DeadLetterBounds

__all__ = ["Cemetery", "size_of"]


def size_of(letter: DeadLetter) -> int:
    """Bytes that count towards the bound."""
    return len(letter.envelope) + len(letter.reason.encode("utf-8", "replace")) + len(letter.traceback)


class _Plot(OrderedDict[str, DeadLetter]):
    """The letters of one queue by id, the oldest first, and how many bytes they are."""

    size = 0

    def add(self, letter: DeadLetter) -> None:
        self[letter.id] = letter
        self.size += size_of(letter)

    def remove(self, id: str) -> DeadLetter:
        letter = self.pop(id)
        self.size -= size_of(letter)
        return letter

    @property
    def oldest(self) -> DeadLetter:
        return next(iter(self.values()))


class Cemetery:
    """Letters by queue. Every method expects that the caller holds the server's lock."""

    def __init__(self) -> None:
        self._queues: dict[str, _Plot] = {}
        self._number = 0

    def bury(self, letter: DeadLetter, bounds: DeadLetterBounds) -> int:
        """Keep a letter under a new id; returns how many others had to go for want of room."""
        self._number += 1
        kept = self._queues.setdefault(letter.queue, _Plot())
        kept.add(msgspec.structs.replace(letter, id=str(self._number)))
        self._expire(kept, letter.died_at - bounds.age)
        dropped = 0
        while kept and (len(kept) > bounds.count or kept.size > bounds.size):
            kept.remove(kept.oldest.id)
            dropped += 1
        return dropped

    def expire(self, before: float) -> None:
        """Drop what died before that time."""
        for kept in self._queues.values():
            self._expire(kept, before)

    @staticmethod
    def _expire(kept: _Plot, before: float) -> None:
        while kept and kept.oldest.died_at < before:
            kept.remove(kept.oldest.id)

    def counts(self) -> dict[str, int]:
        """Letters of each queue that has any."""
        return {queue: len(kept) for queue, kept in self._queues.items() if kept}

    def queues(self) -> list[str]:
        return sorted(queue for queue, kept in self._queues.items() if kept)

    def newest(self, queue: str, limit: int, before: str) -> list[DeadLetter]:
        letters = reversed(self._queues.get(queue, _Plot()).values())
        older = (letter for letter in letters if not before or int(letter.id) < int(before))
        return [letter for _, letter in zip(range(limit), older, strict=False)]

    def find(self, ids: Sequence[str]) -> list[DeadLetter]:
        return [kept[id] for id in ids for kept in self._queues.values() if id in kept]

    def take(self, ids: Iterable[str]) -> list[DeadLetter]:
        """Take letters out, in the order in which they are named."""
        return [kept.remove(id) for id in ids for kept in self._queues.values() if id in kept]
