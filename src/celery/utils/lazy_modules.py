"""Application. Modules that load their names when they are first asked for: names of `celery.local` ([util.13])."""

from __future__ import annotations

import sys
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from celery import _state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LazyModule", "getappattr", "recreate_module"]


def getappattr(path: str) -> Any:
    """An attribute of the current app, or of what it leads to: `"conf.broker_url"`."""
    return attrgetter(path)(_state.current_app)


class LazyModule(ModuleType):
    """Looks its names up in other modules, once each."""

    #: Name → the module that has it.
    _homes: Mapping[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        home = self._homes.get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = getattr(import_module(home), name)
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self._homes})

    def __reduce__(self) -> Any:
        return import_module, (self.__name__,)


def recreate_module(
    name: str,
    compat_modules: Iterable[str] = (),
    by_module: Mapping[str, Iterable[str]] | None = None,
    direct: Mapping[str, str] | None = None,
    base: type[LazyModule] = LazyModule,
    **attrs: Any,
) -> tuple[ModuleType, LazyModule]:
    """Put a lazy module in the place of the imported module `name`; returns both.

    `by_module`: module → names that it has; `direct`: name → the module that it is; `attrs` are attributes at once.
    Raises KeyError if `name` is not imported. `compat_modules` were modules of Celery 3 and name nothing now.
    """
    old = sys.modules[name]
    new = type(name.rpartition(".")[2], (base,), {})(name)
    homes = {each: home for home, names in (by_module or {}).items() for each in names}
    new.__dict__.update({each: import_module(module) for each, module in (direct or {}).items()}, **attrs)
    new._homes = homes
    new.__all__ = tuple({**homes, **(direct or {}), **attrs})
    sys.modules[name] = new
    return old, new
