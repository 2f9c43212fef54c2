"""Domain. Rows in an order and through a filter, kept up to date row by row: a screen asks for its few, however many
there are, and nothing is sorted for it."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Ordered", "Table"]

T = TypeVar("T")

#: Rows in one stretch at most; what is inserted moves those behind it in its stretch alone.
_STRETCH = 1024


class Ordered:
    """A sorted list of distinct tuples that is quick to change in the middle, and to ask for the i-th."""

    def __init__(self, rows: Iterable[tuple[Any, ...]] = ()) -> None:
        everything = sorted(rows)
        half = _STRETCH // 2
        self._stretches = [everything[at : at + half] for at in range(0, len(everything), half)]
        self._length = len(everything)

    def __len__(self) -> int:
        return self._length

    def _stretch_of(self, row: tuple[Any, ...]) -> int:
        """Where it lies or would lie: the first stretch whose last row is not before it."""
        low, high = 0, len(self._stretches) - 1
        while low < high:
            middle = (low + high) // 2
            if self._stretches[middle][-1] < row:
                low = middle + 1
            else:
                high = middle
        return low

    def add(self, row: tuple[Any, ...]) -> None:
        """Put it at its place."""
        self._length += 1
        if not self._stretches:
            self._stretches.append([row])
            return
        at = self._stretch_of(row)
        stretch = self._stretches[at]
        insort(stretch, row)
        if len(stretch) > _STRETCH:
            half = len(stretch) // 2
            self._stretches[at : at + 1] = [stretch[:half], stretch[half:]]

    def remove(self, row: tuple[Any, ...]) -> None:
        """Raises KeyError if it is not there."""
        at, within = self._find(row)
        stretch = self._stretches[at]
        del stretch[within]
        self._length -= 1
        if not stretch:
            del self._stretches[at]

    def index(self, row: tuple[Any, ...]) -> int:
        """How many lie before it. Raises KeyError if it is not there."""
        at, within = self._find(row)
        return sum(map(len, self._stretches[:at])) + within

    def _find(self, row: tuple[Any, ...]) -> tuple[int, int]:
        if self._stretches:
            at = self._stretch_of(row)
            stretch = self._stretches[at]
            within = bisect_left(stretch, row)
            if within < len(stretch) and stretch[within] == row:
                return at, within
        raise KeyError(row)

    def slice(self, start: int, stop: int) -> list[tuple[Any, ...]]:
        """Rows `start` to `stop`, as of a list; neither may be negative."""
        found: list[tuple[Any, ...]] = []
        for stretch in self._stretches:
            if stop <= 0:
                break
            if start < len(stretch):
                found += stretch[max(start, 0) : stop]
            start -= len(stretch)
            stop -= len(stretch)
        return found


class Table(Generic[T]):
    """Things by their ids, in the order of a key. Equal keys: in the order of their ids."""

    def __init__(
        self, key: Callable[[T], Any], wanted: Callable[[T], bool] | None = None, reverse: bool = True
    ) -> None:
        """`key`: what to sort by; keys must compare with each other. `wanted`: which to show."""
        self._key = key
        self._wanted = wanted
        self.reverse = reverse
        self._things: dict[str, T] = {}
        self._rows: dict[str, tuple[Any, str]] = {}
        self._ordered = Ordered()

    def __len__(self) -> int:
        """How many are shown."""
        return len(self._ordered)

    @property
    def known(self) -> int:
        """How many there are, shown or not."""
        return len(self._things)

    def put(self, uuid: str, thing: T) -> None:
        """Take it in, or see what has become of it."""
        self._things[uuid] = thing
        before = self._rows.get(uuid)
        row = (self._key(thing), uuid) if self._wanted is None or self._wanted(thing) else None
        if row == before:
            return
        if before is not None:
            self._ordered.remove(before)
            del self._rows[uuid]
        if row is not None:
            self._ordered.add(row)
            self._rows[uuid] = row

    def keep(self, uuids: Iterable[str]) -> None:
        """Forget all but these."""
        for uuid in self._things.keys() - set(uuids):
            del self._things[uuid]
            row = self._rows.pop(uuid, None)
            if row is not None:
                self._ordered.remove(row)

    def rearrange(self, key: Callable[[T], Any], wanted: Callable[[T], bool] | None, reverse: bool) -> None:
        """Another order or filter: every row is looked at, once."""
        self._key, self._wanted, self.reverse = key, wanted, reverse
        self._rows = {
            uuid: (key(thing), uuid) for uuid, thing in self._things.items() if wanted is None or wanted(thing)
        }
        self._ordered = Ordered(self._rows.values())

    def window(self, start: int, count: int) -> list[tuple[str, T]]:
        """`count` rows from the `start`-th on."""
        if self.reverse:
            stop = len(self._ordered) - start
            rows = self._ordered.slice(max(0, stop - count), max(0, stop))[::-1]
        else:
            rows = self._ordered.slice(start, start + count)
        return [(uuid, self._things[uuid]) for _, uuid in rows]

    def position(self, uuid: str) -> int | None:
        """Which row it is in; None: it is not shown."""
        row = self._rows.get(uuid)
        if row is None:
            return None
        at = self._ordered.index(row)
        return len(self._ordered) - 1 - at if self.reverse else at
