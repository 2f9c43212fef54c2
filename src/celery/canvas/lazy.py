"""Domain. The members of a canvas that a generator yields: taken from it when they are first needed ([canvas.37])."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

__all__ = ["Lazy", "members_of"]


class Lazy(Sequence[Any]):
    """What an iterator yields, each element taken once and kept.

    No list: an encoder that reads a list's storage without asking would find nothing in it.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        self._rest = iter(source)
        self._taken: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while position < len(self._taken) or self._take():
            yield self._taken[position]
            position += 1

    def _take(self) -> bool:
        for item in self._rest:
            self._taken.append(item)
            return True
        return False

    def __len__(self) -> int:
        self._taken.extend(self._rest)
        return len(self._taken)

    def __getitem__(self, index: Any) -> Any:
        self._taken.extend(self._rest)
        return self._taken[index]

    def __bool__(self) -> bool:
        return bool(self._taken) or self._take()

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def changed(self, change: Callable[[Any], Any]) -> Lazy:
        """Each element changed, when it is needed."""
        return Lazy(map(change, self))

    def __json__(self) -> list[Any]:
        return list(self)

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def __copy__(self) -> Lazy:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy:
        return self

    def __repr__(self) -> str:
        return "<lazy: [...]>"


def members_of(given: Any, make: Callable[[Any], Any]) -> list[Any] | Lazy:
    """Each one made by `make`: at once for a list or tuple, when it is needed for what can only be iterated over."""
    if isinstance(given, Lazy):
        return given.changed(make)
    if isinstance(given, list | tuple):
        return [make(member) for member in given]
    return Lazy(map(make, given))
