"""Application. The apps of this process, and which of them is current ([app.5], [env.5]).

Old paths lead here: third parties replace `_register_app` and read `_task_stack`, so callers look names up in this
module when they call, never before.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
import weakref
from typing import TYPE_CHECKING, Any, cast

from celery.current import get_current_task, get_current_worker_task, task_stack
from celery.local import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = [
    "app_or_default", "connect_on_app_finalize", "current_app", "current_task", "disable_trace", "enable_trace",
    "get_current_app", "get_current_task", "get_current_worker_task", "pop_current_task", "push_current_task",
    "set_default_app",
]  # fmt: skip

#: Made or chosen with `set_default_app`; what threads without a current app fall back to.
default_app: Celery | None = None

_apps: weakref.WeakSet[Celery] = weakref.WeakSet()
_on_app_finalizers: dict[Callable[[Celery], Any], None] = {}  # in the order in which they were connected
_task_stack = task_stack
_task_join_will_block = False


class _TLS(threading.local):
    #: The app that this thread made current.
    current_app: Celery | None = None


_tls = _TLS()


def _set_task_join_will_block(blocks: bool) -> None:
    global _task_join_will_block
    _task_join_will_block = blocks


def task_join_will_block() -> bool:
    """Whether waiting for a result here would keep a worker's process from other tasks ([call.33])."""
    return _task_join_will_block


def connect_on_app_finalize(callback: Callable[[Celery], Any]) -> Callable[[Celery], Any]:
    """Have `callback(app)` called when any app is finalized."""
    _on_app_finalizers[callback] = None
    return callback


def _announce_app_finalized(app: Celery) -> None:
    for callback in list(_on_app_finalizers):
        callback(app)


def set_default_app(app: Celery | None) -> None:
    """Make `app` the one that threads without a current app fall back to."""
    global default_app
    default_app = app


def _set_current_app(app: Celery | None) -> None:
    _tls.current_app = app


def _get_current_app() -> Celery:
    if default_app is None:
        from celery.app.base import Celery  # only a process that made no app of its own comes here

        set_default_app(
            Celery(
                "default",
                fixups=[],
                set_as_current=False,
                loader=os.environ.get("CELERY_LOADER") or "default",
            )
        )
    return _tls.current_app or cast("Celery", default_app)


def _get_current_app_or_raise() -> Celery:
    raise RuntimeError(
        "expected an app to be passed explicitly, but the current app was asked for (C_STRICT_APP is set)"
    )


def _get_current_app_and_tell() -> Celery:
    print("-- the current app was asked for (C_WARN_APP is set), by:", file=sys.stderr)  # noqa: T201
    traceback.print_stack(file=sys.stderr)
    return _get_current_app()


get_current_app: Callable[[], Celery]
if os.environ.get("C_STRICT_APP"):
    get_current_app = _get_current_app_or_raise
elif os.environ.get("C_WARN_APP"):
    get_current_app = _get_current_app_and_tell
else:
    get_current_app = _get_current_app

#: The current app of this thread, whichever it is at the moment of use.
current_app: Celery = cast("Celery", Proxy(lambda: get_current_app()))
#: The task that is being run here; false outside of tasks.
current_task: Task[..., Any] = cast("Task[..., Any]", Proxy(get_current_task))


def _register_app(app: Celery) -> None:
    _apps.add(app)


def _deregister_app(app: Celery) -> None:
    _apps.discard(app)


def _get_active_apps() -> Iterable[Celery]:
    return _apps


def push_current_task(task: Task[..., Any]) -> None:
    task_stack.push(task)


def pop_current_task() -> Task[..., Any] | None:
    return task_stack.pop()


def _app_or_default(app: Celery | None = None) -> Celery:
    return app if app is not None else get_current_app()


def _app_or_default_trace(app: Celery | None = None) -> Celery:
    if app is not None:
        return app
    if getattr(_tls, "current_app", None) is not None:
        print("-- returning the current app to:", file=sys.stderr)  # noqa: T201
        traceback.print_stack(file=sys.stderr)
        return cast("Celery", _tls.current_app)
    raise RuntimeError(
        "expected an app to be passed explicitly: CELERY_TRACE_APP is set, so the default app is refused"
    )


app_or_default = _app_or_default


def enable_trace() -> None:
    """Have `app_or_default` tell or refuse when no app is passed ([app.6])."""
    global app_or_default
    app_or_default = _app_or_default_trace


def disable_trace() -> None:
    global app_or_default
    app_or_default = _app_or_default


if os.environ.get("CELERY_TRACE_APP"):
    enable_trace()
