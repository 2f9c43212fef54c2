"""Domain. Mappings of several kinds ([util.5])."""

from __future__ import annotations

from collections import ChainMap as _ChainMap
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

__all__ = [
    "AttributeDict", "AttributeDictMixin", "ChainMap", "DictAttribute", "OrderedDict", "force_mapping", "lpmerge",
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
