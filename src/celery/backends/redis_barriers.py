"""Adapter. The barriers of chords in Redis, in Celery's keys: either may begin, run and end a chord ([rkeys])."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.drivers.redis_scripts import Script
from celery.ports import Full

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from celery.drivers.redis_pool import LinkPool
    from celery.outcome import Arrival, Record
    from celery.ports import Firing

__all__ = ["RedisBarriers", "fulls"]

#: What stands before a group's id in its keys (`[rkeys.3]`).
GROUP_KEY = "celery-taskset-meta-"
#: Ours alone, with the version of its format: id → body of barriers that are full and not fired yet.
FULL_KEY = "celery-barriers-full-1"
_LUA = Path(__file__).parent / "lua"
_SHARED = (_LUA / "record.lua", _LUA / "barrier.lua")
_ARRIVE = Script(*_SHARED, _LUA / "arrive.lua")
_FULL = Script(_LUA / "full.lua")
#: Parts of members that are read at once.
_BATCH = 1000


class RedisBarriers:
    """Counts members in scripts; writes the arguments by which scripts of others do it."""

    def __init__(self, pool: LinkPool, prefix: str, *, ordered: bool, seconds: str, task_key: str, ttl_of: Any) -> None:
        """`ordered`: members are kept by place, else as they come (`result_chord_ordered`). `seconds`: how long a
        barrier is kept after something happened at it, "" for ever."""
        self._pool = pool
        self.prefix = prefix + GROUP_KEY
        self.full_key = prefix + FULL_KEY
        self._task_key = task_key
        self._ttl_of = ttl_of
        self._seconds = seconds
        self._ordered = ordered

    # -- for scripts -------------------------------------------------------------------------------------------------

    def arguments(self, records: Iterable[Record], arrivals: Iterable[Arrival]) -> list[Any]:
        """What `further` in `barrier.lua` reads."""
        found: list[Any] = []
        for record in records:
            found += ("record", self._task_key + record.id, record.meta, self._ttl_of(record.state))
        for one in arrivals:
            index = "" if one.index is None else one.index
            found += ("arrive", self.full_key, self.prefix + one.barrier, one.barrier, one.member, index)
            found += (one.part, one.body, one.more, int(self._ordered), self._seconds, f"celery-{os.getpid()}")
        return found

    def firing(self, firing: Firing, pushes: Sequence[Any]) -> list[Any]:
        """What `fire.lua` reads of one barrier; `pushes`: list and text of each message."""
        key = self.prefix + firing.barrier
        head = [self.full_key, key, firing.barrier, int(firing.failed), len(pushes) // 2, *pushes]
        return head + self.arguments(firing.records, firing.arrivals)

    # -- the port ----------------------------------------------------------------------------------------------------

    def open(self, id: str, size: int) -> None:
        key = self.prefix + id
        kept = ("EX", self._seconds) if self._seconds else ()
        self._pool.run([("DEL", key + ".c"), ("SET", key + ".s", size, *kept), ("HDEL", self.full_key, id)])

    def grow(self, id: str, more: int) -> None:
        self._pool.run([("INCRBY", self.prefix + id + ".t", more)])

    def arrive(self, arrivals: Sequence[Arrival]) -> list[Full]:
        return fulls(self._pool.run([_ARRIVE.call((), self.arguments((), arrivals))])[0])

    def parts(self, id: str) -> Iterator[list[bytes]]:
        key = self.prefix + id + ".j"
        command, first = "ZRANGE" if self._ordered else "LRANGE", 0
        while found := self._pool.run([(command, key, first, first + _BATCH - 1)])[0]:
            yield found
            first += len(found)

    def full(self) -> list[Full]:
        if not self._pool.run([("HLEN", self.full_key)])[0]:
            return []
        return fulls(self._pool.run([_FULL.call((), (self.full_key, self.prefix, f"celery-{os.getpid()}"))])[0])

    def fired(self, id: str, *, failed: bool = False) -> None:
        key = self.prefix + id
        gone = [".s"] if failed else [".j", ".t", ".s", ".d"]
        commands = [("DEL", *(key + end for end in gone)), ("SET", key + ".c", "done", "EX", 300)]
        self._pool.run([*commands, ("HDEL", self.full_key, id)])

    def standing(self, id: str) -> tuple[int | None, int]:
        key = self.prefix + id
        size, more, arrived = self._pool.run([("GET", key + ".s"), ("GET", key + ".t"), ("SCARD", key + ".d")])
        return None if size is None else int(size) + int(more or 0), arrived

    # -- groups ------------------------------------------------------------------------------------------------------

    def save_group(self, id: str, document: bytes) -> None:
        kept = ("EX", self._seconds) if self._seconds else ()
        self._pool.run([("SET", self.prefix + id, document, *kept)])

    def load_group(self, id: str) -> bytes | None:
        found: bytes | None = self._pool.run([("GET", self.prefix + id)])[0]
        return found

    def delete_group(self, id: str) -> None:
        self._pool.run([("DEL", self.prefix + id)])


def fulls(reply: Sequence[bytes]) -> list[Full]:
    """The barriers of a script's reply: id and body of each."""
    return [Full(id_.decode(), body) for id_, body in zip(reply[::2], reply[1::2], strict=True)]
