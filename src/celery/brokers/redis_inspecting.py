"""Adapter. Looks at the queues of a Redis broker, in pages: however much there is, the server is busy for a moment at a
time."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from celery.brokers.inspecting import sent_at
from celery.brokers.redis_scripts import CANCEL, CENSUS
from celery.ports import QueueStats, Resting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.brokers.redis_layout import Layout
    from celery.drivers.redis import Command
    from celery.drivers.redis_pool import LinkPool

__all__ = ["RedisInspection"]

#: Held and parked messages that one script call counts, parked ones that are read at once, tags in one cancellation.
_COUNTED, _READ, _CANCELLED = 1000, 100, 500
#: An entry of `unacked`: the message, then exchange and routing key; see entries.lua.
_ENTRY = re.compile(rb'\[(.*),\s*("[^"]*"),\s*("[^"]*")\s*\]', re.S)
_QUOTED = re.compile(rb'\[(.*),\s*(""),\s*(".*")\s*\]', re.S)


class RedisInspection:
    """See `Inspection`. The id of a parked message is its tag; that of a waiting one its place on its list."""

    def __init__(self, pool: LinkPool, layout: Layout) -> None:
        self._pool = pool
        self._layout = layout

    def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        held, parked = self._census()
        names = [*dict.fromkeys(queues), *sorted({*held, *parked} - {*queues})]
        lists = [(name, key) for name in names for key in self._layout.lists(name)]
        commands: list[Command] = [command for _, key in lists for command in (("LLEN", key), ("LINDEX", key, -1))]
        replies = self._pool.run(commands) if commands else []
        waiting: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        for (name, _), length, last in zip(lists, replies[::2], replies[1::2], strict=True):
            waiting[name] += length
            sent = None if last is None else sent_at(last)
            if sent is not None:
                oldest[name] = min(sent, oldest.get(name, sent))
        return [QueueStats(name, waiting[name], held[name], parked[name], oldest.get(name)) for name in names]

    def peek(self, queue: str, limit: int) -> list[Resting]:
        found: list[Resting] = []
        for step, key in zip(self._layout.steps, self._layout.lists(queue), strict=True):
            if len(found) < limit:
                last = self._pool.run([("LRANGE", key, len(found) - limit, -1)])[0]
                found += [Resting(f"{step}-{place}", queue, one) for place, one in enumerate(reversed(last), 1)]
        return found

    def parked(self, queues: Sequence[str], limit: int, after: Resting | None = None) -> list[Resting]:
        found: list[Resting] = []
        for one in self._parked(after):
            if not queues or one.queue in queues:
                found.append(one)
            if len(found) >= limit:
                break
        return found

    def cancel(self, ids: Sequence[str]) -> list[str]:
        layout, dropped = self._layout, list[str]()
        for first in range(0, len(ids), _CANCELLED):
            tags = ids[first : first + _CANCELLED]
            call = CANCEL.call((), (layout.unacked, layout.unacked_index, layout.due, *tags))
            dropped += [tag.decode() for tag in self._pool.run([call])[0]]
        return dropped

    def _census(self) -> tuple[Counter[str], Counter[str]]:
        """Messages held and parked, by queue."""
        layout, held, parked = self._layout, Counter[str](), Counter[str]()
        cursor: Any = 0
        while True:
            call = CENSUS.call((), (layout.unacked, layout.due, cursor, _COUNTED))
            cursor, *found = self._pool.run([call])[0]
            for origin, holding, parking in zip(found[::3], found[1::3], found[2::3], strict=True):
                for queue in map(self._layout.shown, self._queues_of(*json.loads(b"[%b]" % origin))):
                    held[queue] += holding
                    parked[queue] += parking
            if int(cursor) == 0:
                return +held, +parked

    def _queues_of(self, exchange: str, key: str) -> Sequence[str]:
        """Where a message goes that real Celery took through an exchange."""
        if not exchange:
            return (key,)
        return self._layout.route(self._pool.run([("SMEMBERS", self._layout.bindings + exchange)])[0], key) or (key,)

    def _parked(self, after: Resting | None) -> Iterator[Resting]:
        """All, the first to be due first; what comes or goes meanwhile may be missed, or left out."""
        begin: Any = "-inf" if after is None else repr(after.due)
        passed = 0
        while True:
            command: Command = (
                "ZRANGEBYSCORE", self._layout.due, begin, "+inf", "WITHSCORES", "LIMIT", passed, _READ,
            )  # fmt: skip
            flat = self._pool.run([command])[0]
            if not flat:
                return
            tags = flat[::2]
            entries = self._pool.run([("HMGET", self._layout.unacked, *tags)])[0]
            for tag, due, entry in zip(tags, map(float, flat[1::2]), entries, strict=True):
                read = None if entry is None else (_ENTRY.fullmatch(entry) or _QUOTED.fullmatch(entry))
                one = (due, tag.decode())
                if read and (after is None or one > (after.due, after.id)):
                    yield Resting(one[1], json.loads(read[3]), read[1], due)
            passed += len(tags)
