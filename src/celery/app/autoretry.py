"""Application. Tasks that are tried again by themselves when they raise ([task.32], [task.33], [task.34])."""

from __future__ import annotations

import os
from functools import wraps
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Retry
from celery.retry import RetryPolicy

if TYPE_CHECKING:
    from celery.app.task import Task

__all__ = ["add_autoretry_behaviour", "backoff"]

_OPTIONS = (
    "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff", "retry_backoff_max", "retry_jitter",
)  # fmt: skip


def add_autoretry_behaviour(task: Task[..., Any], **options: Any) -> None:
    """Wrap the task's `run`, if it names exceptions in `autoretry_for`; the second time nothing is done.

    `options` are named as the task's attributes, and come before them. Raises TypeError for what is no exception class.
    """
    policy = _policy(task, options)
    if not policy.errors or "_orig_run" in task.__dict__:
        return
    original = task.run
    passing: tuple[type[BaseException], ...] = (Ignore, Retry, *policy.exempt)

    @wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except passing:
            raise
        except policy.errors as exc:
            arguments = dict(policy.arguments)
            wait = policy.wait(task.request.retries or 0, _draw)
            if wait is not None:
                arguments["countdown"] = wait
            # What the task itself has said in this run, by an explicit retry, holds.
            if (said := task.override_max_retries) is not None:
                arguments["max_retries"] = said
            raise task.retry(exc=exc, **arguments) from None

    task._orig_run, task.run = original, run  # type: ignore[attr-defined, method-assign]


def backoff(task: Task[..., Any]) -> int | None:
    """Seconds that an explicit retry waits which says nothing of time itself; None: the task has no back-off."""
    if not getattr(task, "retry_backoff", None):
        return None
    return _policy(task, {}).wait(task.request.retries or 0, _draw)


def _policy(task: Task[..., Any], options: dict[str, Any]) -> RetryPolicy:
    own = {name: getattr(task, name) for name in _OPTIONS if hasattr(task, name)}
    return RetryPolicy.of({**own, **{name: options[name] for name in _OPTIONS if name in options}})


def _draw(n: int) -> int:
    """Any whole number below n. Not from `random`: children forked from one process would all draw the same."""
    return int.from_bytes(os.urandom(8)) % n
