"""Application. `celery.app`: apps, and the decorator of tasks that belong to every app."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery._state import (
        app_or_default,
        disable_trace,
        enable_trace,
        pop_current_task,
        push_current_task,
    )
    from celery.app.base import Celery
    from celery.app.pickling import AppPickler
    from celery.app.task import Task

__all__ = [
    "AppPickler", "Celery", "app_or_default", "bugreport", "default_app", "disable_trace", "enable_trace",
    "pop_current_task", "push_current_task", "shared_task",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")

_HOMES = {
    "AppPickler": "celery.app.pickling",
    "Celery": "celery.app.base",
    "disable_trace": "celery._state",
    "enable_trace": "celery._state",
    "pop_current_task": "celery._state",
    "push_current_task": "celery._state",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found
    if name == "default_app":
        from celery.local import Proxy

        return Proxy(lambda: import_module("celery._state").default_app)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:

    def app_or_default(app: Any = None) -> Any:
        """`app`, or the current one if it is None ([app.6])."""
        return import_module("celery._state").app_or_default(app)


def bugreport(app: Celery | None = None) -> str:
    """Versions, platform and settings of the app (the current one by default) as text."""
    return app_or_default(app).bugreport()


@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Any) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def shared_task(*, bind: Literal[False] = ..., **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task that every app has; what is returned is always the current app's one ([app.13])."""
    share = import_module("celery.app.declaring").share
    if len(args) == 1 and callable(args[0]):
        return share(args[0], options)
    if args:
        raise TypeError(f"@shared_task() takes one function, or options by name; got {args!r}")
    return lambda fun: share(fun, options)
