"""Domain. Small object helpers ([util.7])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from types import TracebackType

__all__ = ["Bunch", "FallbackContext", "getitem_property", "mro_lookup"]


class Bunch:
    """An object with the attributes that it is made with."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type, attr: str, stop: Container[type] | None = None, monkey_patched: Container[str] | None = None
) -> type | None:
    """The class that defines `attr` for `cls`, or None.

    Classes in `stop` end the search, save where their attribute comes from a module that is not in `monkey_patched`:
    then somebody replaced it.
    """
    for node in cls.mro():
        if node in (stop or ()):
            value = node.__dict__.get(attr)
            origin = getattr(value, "__module__", None)
            return node if value is not None and monkey_patched is not None and origin not in monkey_patched else None
        if attr in node.__dict__:
            return node
    return None


class FallbackContext:
    """A context of what was provided, else of what `fallback(*args, **kwargs)` makes; only the latter is closed."""

    def __init__(self, provided: Any, fallback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.provided = provided
        self.fallback = fallback
        self.fb_args = args
        self.fb_kwargs = kwargs
        self._context: Any = None

    def __enter__(self) -> Any:
        if self.provided is not None:
            return self.provided
        self._context = self.fallback(*self.fb_args, **self.fb_kwargs)
        return self._context.__enter__()

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> Any:
        return None if self._context is None else self._context.__exit__(*exc_info)


class getitem_property:  # noqa: N801 - reads as the built-in `property` does
    """An attribute that is kept under a key of the object itself; `"a.b"` is the key `b` of its item `a`."""

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        path, _, self.key = keypath.rpartition(".")
        self.path = path.split(".") if path else []
        self.__doc__ = doc

    def _holder(self, obj: Any) -> Any:
        for key in self.path:
            obj = obj[key]
        return obj

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self if obj is None else self._holder(obj).get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._holder(obj)[self.key] = value
