"""Domain. Mappings of several kinds ([util.5])."""

from __future__ import annotations

import time
from collections import ChainMap as _ChainMap
from collections import OrderedDict
from collections import deque as _deque
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, MutableMapping, Sequence
from queue import Empty as _Empty
from typing import Any

__all__ = [
    "AttributeDict", "AttributeDictMixin", "BufferMap", "ChainMap", "ConfigurationView", "DictAttribute", "Evictable",
    "LimitedSet", "Messagebuffer", "OrderedDict", "force_mapping", "lpmerge",
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


class ConfigurationView(ChainMap, AttributeDictMixin):
    """Settings in layers, as items and as attributes: `changes` over `defaults`, each key under several names.

    A key is looked for as it is, with `prefix` and an underscore before it, and as each function in `keys` makes it.
    """

    def __init__(
        self,
        changes: Any,
        defaults: Sequence[Any] | None = None,
        keys: Iterable[Callable[[str], str]] | None = None,
        prefix: str | None = None,
    ) -> None:
        vars(self).update(_names=tuple(keys or ()), prefix=prefix.rstrip("_") + "_" if prefix else "")
        vars(self)["maps"] = [force_mapping(changes), *map(force_mapping, defaults or ())]

    def _forms(self, key: Any) -> list[Any]:
        forms = [key]
        if isinstance(key, str):
            forms += [self.prefix + key] if self.prefix else []
            forms += [name(key) for name in self._names]
        return forms

    def __getitem__(self, key: Any) -> Any:
        forms = self._forms(key)
        for layer in self.maps:
            for form in forms:
                if form in layer:
                    return layer[form]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        forms = self._forms(key)
        return any(form in layer for layer in self.maps for form in forms)

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def first(self, *keys: Any) -> Any:
        """The value of the first of these keys that has one; None if none has."""
        return next((value for key in keys if (value := self.get(key)) is not None), None)

    def clear(self) -> None:
        """Drop the changes."""
        self.changes.clear()

    def swap_with(self, other: ConfigurationView) -> None:
        """Become what the other is."""
        vars(self).update(maps=other.maps, _names=other._names, prefix=other.prefix)


class Evictable:
    """Something of limited size that drops its oldest."""

    Empty = _Empty

    def evict(self) -> None:
        """Drop what is too much."""
        raise NotImplementedError


class Messagebuffer(Evictable):
    """A queue of the `maxsize` newest items (None: of all). Iterating takes the items out."""

    def __init__(self, maxsize: int | None, iterable: Iterable[Any] | None = None, deque: Any = _deque) -> None:
        self.maxsize = maxsize
        self.data = deque(iterable or ())
        self.evict()

    def put(self, item: Any) -> None:
        self.data.append(item)
        self.evict()

    def extend(self, it: Iterable[Any]) -> None:
        for item in it:
            self.put(item)

    def take(self, *default: Any) -> Any:
        """Remove and return the oldest item. Without any, the `default`, if one is given; else raises `Empty`."""
        if self.data:
            return self.data.popleft()
        if default:
            return default[0]
        raise self.Empty

    def evict(self) -> None:
        while self.maxsize is not None and len(self.data) > self.maxsize:
            self.data.popleft()

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, item: object) -> bool:
        return item in self.data

    def __getitem__(self, index: int) -> Any:
        return self.data[index]

    def __iter__(self) -> Iterator[Any]:
        while self.data:
            yield self.data.popleft()

    def __reversed__(self) -> Iterator[Any]:
        return iter(reversed(self.data))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)}/{self.maxsize}>"


class BufferMap(OrderedDict[Any, Any], Evictable):
    """A buffer for each key. Beyond `maxsize` items in all, the oldest of the key that waited longest go first."""

    Buffer = Messagebuffer

    def __init__(
        self, maxsize: int | None, iterable: Iterable[tuple[Any, Any]] | None = None, bufmaxsize: int | None = 1000
    ) -> None:
        """`bufmaxsize`: items for one key, at most."""
        super().__init__()
        self.maxsize, self.bufmaxsize = maxsize, bufmaxsize
        #: Items that were put here and not taken; fewer are there if buffers are emptied on their own.
        self._most = 0
        for key, items in dict(iterable or ()).items():
            self.extend(key, list(items))

    @property
    def total(self) -> int:
        """How many items there are."""
        return sum(map(len, self.values()))

    def put(self, key: Any, item: Any) -> None:
        self._add(key, (item,))
        self.move_to_end(key)
        self.evict()

    def extend(self, key: Any, it: Iterable[Any]) -> None:
        self._add(key, it)
        self.evict()

    def _add(self, key: Any, items: Iterable[Any]) -> None:
        buffer = self._buffer(key)
        before = len(buffer)
        buffer.extend(items)
        self._most += len(buffer) - before

    def take(self, key: Any, *default: Any) -> Any:
        """The oldest item of that key, whose turn is over then. Without any, as `Messagebuffer.take`."""
        if key not in self:
            return self.Buffer(0).take(*default)
        self.move_to_end(key)
        self._most -= bool(self[key])
        return self[key].take(*default)

    def evict(self) -> None:
        while self.maxsize is not None and self._most > self.maxsize and self:
            key = next(iter(self))
            if self[key]:
                self[key].take()
                self._most -= 1
            else:
                del self[key]
        if not self:
            self._most = 0

    def _buffer(self, key: Any) -> Messagebuffer:
        if key not in self:
            self[key] = self.Buffer(self.bufmaxsize)
        found: Messagebuffer = self[key]
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.total}/{self.maxsize}>"
