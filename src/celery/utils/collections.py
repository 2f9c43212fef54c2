"""Domain. Mappings of several kinds ([util.5])."""

from __future__ import annotations

import time
from collections import ChainMap as _ChainMap
from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView, Mapping, MutableMapping
from typing import Any

__all__ = [
    "AttributeDict", "AttributeDictMixin", "ChainMap", "DictAttribute", "LimitedSet", "OrderedDict",
    "force_mapping", "lpmerge",
]  # fmt: skip


class AttributeDictMixin:
    """Items of a mapping as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]  # type: ignore[index]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class AttributeDict(dict[str, Any], AttributeDictMixin):
    """A dict whose items are attributes too."""


class DictAttribute:
    """The attributes of an object, as a mapping (`__dict__` and what it inherits). Writing sets them."""

    obj: Any

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, "obj", obj)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self.obj, key, default)

    def setdefault(self, key: str, default: Any = None) -> None:
        if key not in self:
            self[key] = default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and hasattr(self.obj, key)

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def __len__(self) -> int:
        return len(dir(self.obj))

    def keys(self) -> Iterator[str]:
        return iter(self)

    def values(self) -> Iterator[Any]:
        return (self[key] for key in self)

    def items(self) -> Iterator[tuple[str, Any]]:
        return ((key, self[key]) for key in self)

    iterkeys, itervalues, iteritems = keys, values, items


MutableMapping.register(DictAttribute)


class ChainMap(_ChainMap[Any, Any]):
    """Mappings in layers, with the names that Celery's settings use: `changes` on top of `defaults`."""

    @property
    def changes(self) -> MutableMapping[Any, Any]:
        return self.maps[0]

    @property
    def defaults(self) -> list[MutableMapping[Any, Any]]:
        return self.maps[1:]

    def add_defaults(self, d: Any) -> None:
        """Put a layer below the changes."""
        self.maps.insert(1, force_mapping(d))


def force_mapping(m: Any) -> Any:
    """`m` itself if it is a mapping, else its attributes as one."""
    m = getattr(m, "_wrapped", m)  # a lazy object of Django's, whose class may not be loaded yet
    return m if isinstance(m, Mapping) else DictAttribute(m)


def lpmerge(L: dict[Any, Any], R: Mapping[Any, Any] | Iterable[Any]) -> dict[Any, Any]:  # noqa: N803 - public names
    """Update `L` with those items of `R` that are not None. Returns `L`."""
    L.update({key: value for key, value in dict(R).items() if value is not None})
    return L


class LimitedSet:
    """A set that forgets: its oldest items beyond `maxlen`, and whatever was added more than `expires` seconds ago.

    0 means no limit. The `minlen` newest items are kept however old they are. Iterates oldest first ([util.2]).
    """

    #: Kept for its name: nothing is held twice here, so there is no overload.
    max_heap_percent_overload = 15

    def __init__(self, maxlen: int = 0, expires: float = 0, data: Any = None, minlen: int = 0) -> None:
        self.maxlen, self.minlen, self.expires = maxlen or 0, minlen or 0, expires or 0
        if not 0 <= self.minlen <= (self.maxlen or self.minlen):
            raise ValueError("minlen must be a positive number, less or equal to maxlen.")
        if self.expires < 0:
            raise ValueError("expires cannot be negative!")
        self._added: dict[Any, float] = {}
        if data:
            self.update(data)

    def add(self, item: Any, now: float | None = None) -> None:
        """Add an item, or make it new again. `now`: wall-clock seconds."""
        now = time.time() if now is None else now
        self._added.pop(item, None)
        newest = next(reversed(self._added.values()), now)
        self._added[item] = now
        if now < newest:
            in_order = sorted(self._added.items(), key=lambda entry: entry[1])
            self._added.clear()
            self._added.update(in_order)
        self.purge(now if self.expires else None)

    def update(self, other: Any) -> None:
        """Add items: of another such set or a mapping of times with their times, of any iterable as new ones."""
        if not other:
            return
        if isinstance(other, LimitedSet):
            other = other._added
        if isinstance(other, Mapping):
            for item, added in other.items():
                self.add(item, added)
        else:
            for item in other:
                self.add(item)

    def discard(self, item: Any) -> None:
        """Remove an item if it is there."""
        self._added.pop(item, None)

    pop_value = discard

    def pop(self, default: Any = None) -> Any:
        """Remove and return the oldest item."""
        for item in self._added:
            del self._added[item]
            return item
        return default

    def purge(self, now: float | None = None) -> None:
        """Forget what is too old or too much."""
        now = time.time() if now is None else now
        while self.maxlen and len(self._added) > self.maxlen:
            self.pop()
        while self.expires and len(self._added) > self.minlen:
            if next(iter(self._added.values())) > now - self.expires:
                break
            self.pop()

    def clear(self) -> None:
        self._added.clear()

    def view(self) -> KeysView[Any]:
        """The items at any time, for whoever asks often."""
        return self._added.keys()

    def as_dict(self) -> dict[Any, float]:
        """Item → when it was added."""
        return dict(self._added)

    def __contains__(self, item: object) -> bool:
        return item in self._added

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._added))

    def __len__(self) -> int:
        return len(self._added)

    def __bool__(self) -> bool:
        return bool(self._added)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitedSet) and self._added == other._added

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<LimitedSet({len(self)}): maxlen={self.maxlen}, expires={self.expires}, minlen={self.minlen}>"
