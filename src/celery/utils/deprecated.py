"""Compatibility. Marks what will go away (`[util.11]`)."""

from __future__ import annotations

import warnings
from functools import wraps
from typing import TYPE_CHECKING, Any

from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning

if TYPE_CHECKING:
    import collections.abc

__all__ = ("Callable", "Property", "warn")


def warn(
    description: str | None = None,
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn that something is (`removal` only) or will be deprecated, and say what to use instead."""
    instead = f" {alternative}" if alternative else ""
    if deprecation is not None:
        gone = f" and removal in version {removal}" if removal else ""
        text = f"{description} is scheduled for deprecation in version {deprecation}{gone}.{instead}"
        warnings.warn(CPendingDeprecationWarning(text), stacklevel=stacklevel)
    elif removal:
        text = f"{description} is deprecated and scheduled for removal in version {removal}.{instead}"
        warnings.warn(CDeprecationWarning(text), stacklevel=stacklevel)


def Callable(  # noqa: N802 - Celery's name
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> collections.abc.Callable[[Any], Any]:
    """A decorator: each call of the function warns."""

    def decorate(fun: Any) -> Any:
        @wraps(fun)
        def call(*args: Any, **kwargs: Any) -> Any:
            warn(description or fun.__qualname__, deprecation, removal, alternative, stacklevel=3)
            return fun(*args, **kwargs)

        return call

    return decorate


def Property(  # noqa: N802 - Celery's name
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> collections.abc.Callable[[Any], Any]:
    """A decorator: a property that warns when it is read, set or deleted."""

    def decorate(fun: Any) -> _DeprecatedProperty:
        said = (description or fun.__name__, deprecation, removal, alternative)
        return _DeprecatedProperty(said, fun)

    return decorate


class _DeprecatedProperty(property):
    """A property that warns at each use."""

    def __init__(self, said: tuple[str | None, ...], fget: Any, fset: Any = None, fdel: Any = None) -> None:
        super().__init__(fget, fset, fdel)
        self._said = said

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None:
            warn(*self._said, stacklevel=3)  # type: ignore[arg-type, misc]
        return super().__get__(instance, owner)

    def __set__(self, instance: Any, value: Any) -> None:
        warn(*self._said, stacklevel=3)  # type: ignore[arg-type, misc]
        super().__set__(instance, value)

    def __delete__(self, instance: Any) -> None:
        warn(*self._said, stacklevel=3)  # type: ignore[arg-type, misc]
        super().__delete__(instance)

    def setter(self, fset: Any) -> _DeprecatedProperty:
        """The same with a function that sets."""
        return _DeprecatedProperty(self._said, self.fget, fset, self.fdel)

    def deleter(self, fdel: Any) -> _DeprecatedProperty:
        """The same with a function that deletes."""
        return _DeprecatedProperty(self._said, self.fget, self.fset, fdel)
