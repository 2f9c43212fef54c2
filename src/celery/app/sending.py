"""Application. What `send_task`'s arguments come to ([app.19])."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from celery.exceptions import AlwaysEagerIgnored

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = ["OMITTED", "by_name", "given_options", "warn_if_eager"]

#: Tells "not given" from None, which clears a limit that the task has.
OMITTED: Any = object()

#: What `send_task` takes that is no option of the call.
_NO_OPTIONS = frozenset({"self", "name", "args", "kwargs", "options", "task_type"})
#: An argument that is its default was not given; for those that are not here, that is None.
_DEFAULTS = {"expires": OMITTED, "time_limit": OMITTED, "soft_time_limit": OMITTED, "add_to_parent": True, "retries": 0}


def given_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options among the arguments of a `send_task`."""
    options = arguments.keys() - _NO_OPTIONS
    return {key: arguments[key] for key in options if arguments[key] is not _DEFAULTS.get(key)}


def warn_if_eager(app: Celery) -> None:
    """What is sent by name is always published."""
    if app.conf.task_always_eager:
        warnings.warn(
            "task_always_eager has no effect on send_task: it is published all the same; call the task itself",
            AlwaysEagerIgnored,
            stacklevel=3,
        )


def by_name(app: Celery, task: Task[..., Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a call by name: the task's, if it is known here, below those that were given.

    Without a priority it is sent with 0, kombu's default; a task that is called says that it has none (`[wire.8]`).
    """
    if task is not None:
        given = {**task._get_given_options(), "ignore_result": None, **given}  # for the worker's task to say
    conf = app.conf
    if "priority" not in given and conf.task_default_priority is None and not conf.task_inherit_parent_priority:
        given["priority"] = 0
    return given
