"""Application. The app that `-A` or a string names ([app.50])."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from celery.utils.imports import import_from_cwd, symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery

__all__ = ["find_app"]


def find_app(
    app: str,
    symbol_by_name: Callable[..., Any] = symbol_by_name,
    imp: Callable[..., Any] = import_from_cwd,
) -> Celery:
    """The app called `"proj"`, `"proj.celery"` or `"proj.celery:app"`.

    In a module: its `app`, then its `celery` (neither counts if it is a module), then for a package the same in
    `package.celery`, then the first app among its attributes. Raises ImportError or AttributeError if there is none.
    """
    try:
        found = symbol_by_name(app, imp=imp)
    except AttributeError:
        found = imp(app)  # "proj.celery": a module that nobody imported yet is no attribute of its package
    if isinstance(found, ModuleType):
        found = _in_module(found, found.__name__ if ":" in app else app, symbol_by_name, imp)
    return cast("Celery", found)


def _in_module(module: ModuleType, name: str, symbol_by_name: Any, imp: Any) -> Any:
    for attribute in ("app", "celery"):
        found = getattr(module, attribute, None)
        if found is not None and not isinstance(found, ModuleType):
            return found
    if getattr(module, "__path__", None):
        try:
            return find_app(f"{name}.celery", symbol_by_name, imp)
        except ModuleNotFoundError as exc:
            if exc.name != f"{name}.celery":
                raise
        except AttributeError:
            pass  # its `celery` module holds none: perhaps the package does
    found = _first_app(module)
    if found is None:
        raise AttributeError(f"expected a Celery app as an attribute of module {module.__name__!r}, found none")
    return found


def _first_app(module: ModuleType) -> Any:
    from celery.app.base import Celery  # heavy, and seldom wanted: most apps are called `app`

    return next((value for value in vars(module).values() if isinstance(value, Celery)), None)
