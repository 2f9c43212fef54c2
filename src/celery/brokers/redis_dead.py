"""Adapter. The dead letters of a Redis broker: a stream a queue, under keys of our own (see `lua/graves.lua`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.brokers.dead_letters import cut, priority_of
from celery.brokers.redis_scripts import EXHUME
from celery.message import mark_redelivered
from celery.ports import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.dead_letters import Overflow
    from celery.brokers.redis_layout import Layout
    from celery.drivers.redis import Command
    from celery.drivers.redis_pool import LinkPool
    from celery.ports import Clock, DeadLetterBounds, Delivery

__all__ = ["RedisDeadLetters", "bounds_of", "note_overflow", "why"]


def bounds_of(bounds: DeadLetterBounds) -> tuple[int, int, float]:
    """As the scripts take them."""
    return bounds.count, bounds.size, bounds.age


def why(delivery: Delivery) -> str:
    """Reason and traceback, as the scripts take them."""
    return "\0".join(cut(delivery.error, delivery.traceback))


def note_overflow(overflow: Overflow, reply: Sequence[Any]) -> None:
    """Tell of the letters that a script has dropped: queue, number, …"""
    for queue, dropped in zip(reply[::2], reply[1::2], strict=True):
        overflow.note(queue.decode("utf-8", "replace"), dropped)


class RedisDeadLetters:
    """See `DeadLetters`. The id of a letter is `<queue>:<id in the stream>`."""

    def __init__(self, pool: LinkPool, layout: Layout, bounds: DeadLetterBounds, clock: Clock) -> None:
        self._pool = pool
        self._layout = layout
        self._bounds = bounds
        self._clock = clock

    def queues(self) -> list[str]:
        names = sorted(name.decode() for name in self._pool.run([("SMEMBERS", self._layout.dead)])[0])
        return [name for name in names if self.newest(name, 1)]

    def counts(self) -> dict[str, int]:
        """See `DeadLetters.counts`: too old ones are counted until they are dropped."""
        names = self.queues()
        lengths = self._pool.run([("XLEN", self._stream(name)) for name in names]) if names else []
        return dict(zip(names, lengths, strict=True))

    def newest(self, queue: str, limit: int, before: str = "") -> list[DeadLetter]:
        oldest = f"{max(int((self._clock.time() - self._bounds.age) * 1000), 0)}-0"
        newest = _earlier(before.rpartition(":")[2]) if before else "+"
        found = self._pool.run([("XREVRANGE", self._stream(queue), newest, oldest, "COUNT", limit)])[0]
        return [_letter(queue, *entry) for entry in found]

    def find(self, ids: Sequence[str]) -> list[DeadLetter]:
        places = [place for place in map(_place, dict.fromkeys(ids)) if place is not None]
        commands: list[Command] = [("XRANGE", self._stream(queue), id, id) for queue, id in places]
        replies = self._pool.run(commands) if commands else []
        return [_letter(queue, *entry) for (queue, _), reply in zip(places, replies, strict=True) for entry in reply]

    def requeue(self, ids: Sequence[str]) -> int:
        moves: list[Any] = []
        for letter in self.find(ids):
            envelope = mark_redelivered(letter.envelope)
            target = self._layout.list_of(letter.queue, priority_of(envelope))
            moves += (letter.queue, letter.id.rpartition(":")[2], target, envelope)
        return self._exhume(moves)

    def discard(self, ids: Sequence[str]) -> int:
        places = [place for place in map(_place, dict.fromkeys(ids)) if place is not None]
        return self._exhume([part for place in places for part in (*place, "", "")])

    def _exhume(self, moves: list[Any]) -> int:
        if not moves:
            return 0
        count: int = self._pool.run([EXHUME.call((), (*self._layout.arguments, self._layout.dead, *moves))])[0]
        return count

    def _stream(self, queue: str) -> str:
        return f"{self._layout.dead}.{queue}"


def _place(id: str) -> tuple[str, str] | None:
    """Queue and id in its stream; None if it is no id of ours."""
    queue, _, entry = id.rpartition(":")
    time, dash, number = entry.partition("-")
    well = queue and dash and all(part.isascii() and part.isdigit() and len(part) < 20 for part in (time, number))
    return (queue, entry) if well else None


def _earlier(entry: str) -> str:
    """The greatest id before this one."""
    time, _, number = entry.partition("-")
    return f"{time}-{int(number) - 1}" if int(number) else f"{int(time) - 1}-{2**64 - 1}"


def _letter(queue: str, entry: bytes, flat: Sequence[bytes]) -> DeadLetter:
    id = entry.decode()
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    text = {name: fields.get(name, b"").decode("utf-8", "replace") for name in (b"reason", b"traceback")}
    died_at = int(id.partition("-")[0]) / 1000
    deaths = int(fields.get(b"deaths", b"0"))
    return DeadLetter(
        f"{queue}:{id}", queue, fields.get(b"message", b""), text[b"reason"], text[b"traceback"], died_at, deaths
    )
