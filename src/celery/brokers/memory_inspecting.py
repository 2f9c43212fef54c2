"""Adapter. Looks at the queues of a `memory://` server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.brokers.inspecting import sent_at
from celery.ports import QueueStats, Resting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.drivers.memory import Server

__all__ = ["MemoryInspection"]


class MemoryInspection:
    """See `Inspection`. The id of a message is its number."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        with self._server.changed:
            waiting, held, parked = self._server.census()
        oldest = {name: min(items, key=lambda item: item[1])[3] for name, items in waiting.items() if items}
        others = {name for name in {*waiting, *held, *parked} if waiting.get(name) or held[name] or parked[name]}
        names = [*dict.fromkeys(queues), *sorted(others - {*queues})]
        return [
            QueueStats(
                name,
                len(waiting.get(name, ())),
                held[name],
                parked[name],
                sent_at(oldest[name]) if name in oldest else None,
            )
            for name in names
        ]

    def peek(self, queue: str, limit: int) -> list[Resting]:
        with self._server.changed:
            items = sorted(self._server.census()[0].get(queue, ()))
        return [Resting(str(item[1]), queue, item[3]) for item in items[:limit]]

    def parked(self, queues: Sequence[str], limit: int, after: Resting | None = None) -> list[Resting]:
        with self._server.changed:
            parked = self._server.parked()
        found = sorted((due, item[1], item) for due, item in parked if not queues or item[2] in queues)
        if after is not None:
            found = [one for one in found if one[:2] > (after.due, int(after.id))]
        return [Resting(str(number), item[2], item[3], due) for due, number, item in found[:limit]]

    def cancel(self, ids: Sequence[str]) -> list[str]:
        with self._server.changed:
            return [str(number) for number in self._server.unpark({int(id) for id in ids if id.isdigit()})]
