"""Application. From a function or class to a task that is registered with its app ([app.7] to [app.14])."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.app.autoretry import add_autoretry_behaviour
from celery.exceptions import DuplicateTaskNameWarning
from celery.local import PromiseProxy, Proxy, maybe_evaluate
from celery.options import check_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = ["declare", "finalize", "make_task", "register", "share"]


def declare(
    app: Celery,
    fun: Callable[..., Any],
    shared: bool = True,
    filter: Callable[[Any], Any] | None = None,
    lazy: bool = True,
    **options: Any,
) -> Any:
    """What `@app.task` makes of a function: the task, or a promise of it until the app is finalized.

    `shared`: every other app gets the task too, under a name of its own.
    """
    if shared:
        _state.connect_on_app_finalize(lambda other: _offer(app, other, fun, options))
    task: Any
    if lazy and not app.finalized:
        task = PromiseProxy(app._task_from_fun, (fun,), options, __doc__=fun.__doc__)
        app._pending.append(task)
    else:
        task = app._task_from_fun(fun, **options)
    return filter(task) if filter else task


def _offer(app: Celery, other: Celery, fun: Any, options: dict[str, Any]) -> None:
    """Give another app the task, unless it has one of that name: its own come first."""
    if other is not app:
        name = options.get("name") or other.gen_task_name(fun.__name__, fun.__module__)
        if name not in other._tasks:
            other._task_from_fun(fun, **options)


def make_task(
    app: Celery,
    fun: Any,
    name: str | None = None,
    base: type[Task[..., Any]] | None = None,
    bind: bool = False,
    **options: Any,
) -> Task[..., Any]:
    """Make the task of a function and register it; if its name is taken, returns the task that has it ([app.12])."""
    if not app.finalized and not app.autofinalize:
        raise RuntimeError("Contract breach: app not finalized")
    asks_for_models = options.pop("pydantic", False)
    models = {option: options.pop(f"pydantic_{option}", None) for option in ("strict", "context", "dump_kwargs")}
    name = name or app.gen_task_name(fun.__name__, fun.__module__)
    check_task(name, options)
    if name in app._tasks:
        existing = app._tasks[name]
        _warn_of_duplicate(app, existing, fun)
        return existing
    called = fun
    if asks_for_models:
        options["_types"], called = _with_models(app, name, fun, {"bound": bind, **models}, bool(options.get("typed")))
    body = called if bind else staticmethod(called)
    attributes: dict[str, Any] = {
        "app": app,
        "name": name,
        "run": body,
        "_decorated": True,
        "_decorated_fun": staticmethod(fun),
        "__doc__": fun.__doc__,
        "__module__": fun.__module__,
        "__annotations__": getattr(fun, "__annotations__", {}),
        "__header__": staticmethod(app.type_checker(fun, bound=bind)),
        "__wrapped__": body,
        **options,
    }
    task: Task[..., Any] = type(fun.__name__, (base or app.Task,), attributes)()
    task.__dict__["__qualname__"] = getattr(fun, "__qualname__", fun.__name__)
    app._tasks[name] = task
    task.bind(app)
    add_autoretry_behaviour(task)
    return task


def _with_models(app: Celery, name: str, fun: Any, options: dict[str, Any], typed: bool) -> tuple[Any, Any]:
    """What checks a pydantic task's models, and the function with them checked ([task.66])."""
    from celery.app.validating import Models

    if typed:
        raise TypeError(f"task {name}: expected typed=True or pydantic=True, got both; typed tasks take models as well")
    models = Models(app, name, fun, **options)
    return models, models.wrap()


def finalize(app: Celery) -> None:
    """Make every task that waits for it, bind all to the app, and say so ([app.8])."""
    app.finalized = True
    while app._pending:
        maybe_evaluate(app._pending.popleft())
    _state._announce_app_finalized(app)  # after its own, which so win over those that others share
    for task in list(app._tasks.values()):
        task.bind(app)
    app.on_after_finalize.send(sender=app)


def register(app: Celery, task: Any, **options: Any) -> Task[..., Any]:
    """Register a task class or instance ([app.14]), in place of any other of that name."""
    if isinstance(task, type):
        task = task()
    if not task.name:
        cls = type(task)
        task.name = app.gen_task_name(cls.__name__, cls.__module__)
    for option, value in options.items():
        setattr(task, option, value)
    app.tasks[task.name] = task
    task._app = app
    task.bind(app)
    add_autoretry_behaviour(task)
    registered: Task[..., Any] = task
    return registered


def share(fun: Callable[..., Any], options: dict[str, Any]) -> Any:
    """What `@shared_task` makes of a function: a task in every app, and a proxy of the current app's one ([app.13])."""
    if issubclass(type(fun), Proxy):
        raise TypeError("@shared_task was applied to a function that is already shared: remove one of the decorators")
    name = options.get("name")
    _state.connect_on_app_finalize(lambda app: app._task_from_fun(fun, **options))
    # Apps that are finalized already will not announce it again.
    for app in list(_state._get_active_apps()):
        if app.finalized:
            with app._finalize_mutex:
                app._task_from_fun(fun, **options)

    def find() -> Any:
        app = _state.get_current_app()
        return app.tasks[name or app.gen_task_name(fun.__name__, fun.__module__)]

    return Proxy(find)


def _warn_of_duplicate(app: Celery, task: Any, fun: Any) -> None:
    existing = getattr(task, "_decorated_fun", None)
    if existing is None or _place(existing) == _place(fun) or task.name in app._duplicate_task_names_warned:
        return
    app._duplicate_task_names_warned.add(task.name)
    warnings.warn(
        f"task name {task.name!r} is taken by {_show(existing)}, so {_show(fun)} was not registered and calls under "
        "this name run the former. Give one of them another name: @app.task(name=...)",
        DuplicateTaskNameWarning,
        stacklevel=4,
    )


def _place(fun: Any) -> Any:
    # A module may be imported twice, or a shared task announced to the same app again: those are no duplicates.
    code = getattr(fun, "__code__", None)
    where = (code.co_filename, code.co_firstlineno) if code is not None else id(fun)
    return fun.__module__, getattr(fun, "__qualname__", ""), where


def _show(fun: Any) -> str:
    return f"{fun.__module__}.{getattr(fun, '__qualname__', fun.__name__)}"
