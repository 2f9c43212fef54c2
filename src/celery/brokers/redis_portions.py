"""Adapter. How many messages are asked for at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Portions"]

#: Messages that one script call takes at most.
_MOST = 2000
#: Bytes of them, about: of many MB nothing is in any cache, the server does nothing else meanwhile, and the children
#: have run out of work when it all comes at once. To a server that is far the way counts for more: for each
#: millisecond of it as much again, up to so many times.
_BYTES, _WAY, _FAR = 1 << 19, 0.001, 8.0
#: Of so many messages the size is looked at.
_SOME = 16


class Portions:
    """What one consumer has learned of its messages and of the way to its server."""

    def __init__(self) -> None:
        #: Bytes of a message, about, as they came last; a guess at first.
        self._size = 4096.0
        #: Seconds of a round trip that brought little.
        self._way = 0.0

    def met(self, seconds: float) -> None:
        """A server has answered its first question."""
        self._way = seconds

    def limit(self, wanted: int) -> int:
        """Of so many messages that there is room for: how many to ask for now, at least one."""
        room = _BYTES * min(max(self._way / _WAY, 1.0), _FAR)
        return min(wanted, _MOST, int(room / self._size) + 1)

    def came(self, raws: Sequence[bytes], seconds: float) -> None:
        """These, in a round trip of so many seconds."""
        self._way = min(self._way, seconds)
        if raws:
            some = raws[:: len(raws) // _SOME + 1]
            self._size = sum(map(len, some)) / len(some)
