"""Application. What the engine must know of a task: its attributes, the settings, and the worker's own options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured
from celery.utils.time import rate
from celery.worker.admission import TaskPolicy
from celery.worker.attendance import has_own_request

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ["check_rates", "policy_of"]


def policy_of(worker: WorkController, name: str) -> TaskPolicy | None:
    """None if there is no such task."""
    app = worker.app
    task = app.tasks.get(name)
    if task is None:
        return None
    first = app.conf.get("task_acks_first") if task.acks_first is None else task.acks_first
    return TaskPolicy(
        name,
        acks_late=bool(task.acks_late),
        acks_first=bool(first) and not task.acks_late,
        reject_on_worker_lost=bool(task.reject_on_worker_lost),
        acks_on_failure=task.acks_on_failure is not False,
        acks_on_timeout=task.acks_on_timeout is not False,
        retry_on_worker_lost=bool(task.retry_on_worker_lost),
        soft_limit=task.soft_time_limit or worker.soft_time_limit or None,
        hard_limit=task.time_limit or worker.time_limit or None,
        attended=has_own_request(task),
        rate=None if app.conf.worker_disable_rate_limits else rate_of(task),
    )


def rate_of(task: Any) -> float | None:
    """Runs a second, or None (`[limit.5]`). Raises `ImproperlyConfigured`."""
    try:
        found = rate(task.rate_limit)
        if found < 0:
            raise ValueError("negative")
    except (ValueError, KeyError, TypeError) as exc:
        raise ImproperlyConfigured(
            f"rate_limit of the task {task.name}: expected runs a second, minute or hour, such as '10/s', '100/m' or "
            f"'5/h', or a number of runs a second, got {task.rate_limit!r}"
        ) from exc
    return float(found) or None


def check_rates(app: Any) -> None:
    """Raises `ImproperlyConfigured` for the first task whose rate is none."""
    for task in app.tasks.values():
        rate_of(task)
