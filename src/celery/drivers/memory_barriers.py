"""Adapter. The barriers of chords, and groups, within one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from celery.ports import Full

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery.outcome import Arrival

__all__ = ["MemoryBarriers"]

#: Seconds for which whoever fills a barrier is trusted to fire it; a fired one is remembered for this long.
_CLAIM, _REMEMBERED = 30.0, 300.0
_BATCH = 1000


class _Counted(Struct, eq=False):
    size: int | None = None
    more: int = 0
    #: member → (place, part)
    members: dict[str, tuple[float, bytes]] = field(default_factory=dict)
    body: bytes | None = None
    claimed: float = 0.0
    done: bool = False
    expires: float = float("inf")


class MemoryBarriers:
    """Every method expects that the caller holds the lock of the server that this is a part of."""

    def __init__(self) -> None:
        self._barriers: dict[str, _Counted] = {}
        self._groups: dict[str, tuple[bytes, float]] = {}

    def open(self, id: str, size: int, expires: float) -> None:
        one = self._barriers.setdefault(id, _Counted())
        one.size, one.body, one.claimed, one.done, one.expires = size, None, 0.0, False, expires

    def grow(self, id: str, more: int, expires: float) -> None:
        one = self._barriers.setdefault(id, _Counted(expires=expires))
        one.more += more

    def arrive(self, arrivals: Iterable[Arrival], now: float, expires: float) -> list[Full]:
        found = []
        for arrival in arrivals:
            one = self._barriers.setdefault(arrival.barrier, _Counted())
            if one.done:
                continue
            one.expires = expires
            if arrival.member not in one.members:
                place = 1e15 + len(one.members) if arrival.index is None else arrival.index
                one.members[arrival.member] = (place, arrival.part)
                one.more += arrival.more
            if one.size is not None and len(one.members) >= one.size + one.more and one.claimed <= now:
                one.body, one.claimed = arrival.body, now + _CLAIM
                found.append(Full(arrival.barrier, arrival.body))
        return found

    def parts(self, id: str) -> Iterator[list[bytes]]:
        one = self._barriers.get(id)
        parts = [] if one is None else [part for _, part in sorted(one.members.values(), key=lambda member: member[0])]
        for first in range(0, len(parts), _BATCH):
            yield parts[first : first + _BATCH]

    def full(self, now: float) -> list[Full]:
        found = []
        for id, one in self._barriers.items():
            if one.body is not None and one.claimed <= now:
                one.claimed = now + _CLAIM
                found.append(Full(id, one.body))
        return found

    def take(self, id: str) -> bool:
        """Whether the barrier is full and was not fired yet."""
        one = self._barriers.get(id)
        return one is not None and one.body is not None

    def fired(self, id: str, failed: bool, now: float) -> None:
        one = self._barriers.get(id)
        if one is None:
            return
        one.done, one.body = True, None
        if not failed:
            one.members, one.size, one.more = {}, None, 0
            one.expires = now + _REMEMBERED

    def standing(self, id: str) -> tuple[int | None, int]:
        one = self._barriers.get(id)
        if one is None:
            return None, 0
        return None if one.size is None else one.size + one.more, len(one.members)

    def drop_expired(self, now: float) -> None:
        self._barriers = {id: one for id, one in self._barriers.items() if one.expires > now}
        self._groups = {id: one for id, one in self._groups.items() if one[1] > now}

    # -- groups ------------------------------------------------------------------------------------------------------

    def save_group(self, id: str, document: bytes, expires: float) -> None:
        self._groups[id] = (document, expires)

    def load_group(self, id: str, now: float) -> bytes | None:
        kept = self._groups.get(id)
        return kept[0] if kept is not None and kept[1] > now else None

    def delete_group(self, id: str) -> None:
        self._groups.pop(id, None)
