"""Adapter. What the dead letters of every broker have in common: cutting what is said of them, and their overflow."""

from __future__ import annotations

import logging
import time

from celery.message import MalformedMessage, Message

__all__ = ["Overflow", "cut", "priority_of"]

logger = logging.getLogger("celery.worker.dead_letters")

#: Characters of a reason, and of a traceback, that are kept.
MOST_REASON, MOST_TRACEBACK = 2_000, 20_000
#: Seconds after which the overflow of a queue is told again.
_SAY_AGAIN = 60.0


def cut(reason: str, traceback: str) -> tuple[str, str]:
    """Both as text that any store takes: without lone surrogates, of bounded length. A traceback keeps its end."""
    reason = reason if len(reason) <= MOST_REASON else f"{reason[:MOST_REASON]}..."
    traceback = traceback if len(traceback) <= MOST_TRACEBACK else f"...{traceback[-MOST_TRACEBACK:]}"
    return _clean(reason or "rejected"), _clean(traceback)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\\0")


def priority_of(envelope: bytes) -> int:
    """The priority that a message asks for; 0 where it is none."""
    try:
        return Message.from_envelope(envelope).priority
    except MalformedMessage:
        return 0


class Overflow:
    """Says that letters had to go: once a minute for each queue, with how many those were since."""

    def __init__(self) -> None:
        self._dropped: dict[str, int] = {}
        self._quiet_until: dict[str, float] = {}

    def note(self, queue: str, dropped: int) -> None:
        """So many letters of the queue were dropped for want of room."""
        if not dropped:
            return
        self._dropped[queue] = self._dropped.get(queue, 0) + dropped
        now = time.monotonic()
        if now >= self._quiet_until.get(queue, 0.0):
            self._quiet_until[queue] = now + _SAY_AGAIN
            logger.warning(
                "The dead letters of queue %r overflow: the oldest %d were dropped. See `celery dlq list`: requeue or "
                "purge them, or raise dead_letter_max_count or dead_letter_max_size.",
                queue,
                self._dropped.pop(queue),
            )
