"""Application. Entries for `celery beat`, added by `app.add_periodic_task` ([app.21])."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ["add", "apply_pending"]

logger = logging.getLogger(__name__)


def add(app: Celery, schedule: Any, sig: Any, args: Any, kwargs: Any, name: str | None, options: dict[str, Any]) -> str:
    """Add an entry to `beat_schedule`, or keep it until the settings are loaded. Returns its key."""
    signature = sig.clone(args, dict(kwargs)) if hasattr(sig, "clone") else sig.signature(args, dict(kwargs))
    key = name or repr(signature)
    entry = {
        "schedule": schedule,
        "task": signature.get("task"),
        "args": tuple(signature.get("args") or ()),
        "kwargs": signature.get("kwargs") or {},
        "options": {**(signature.get("options") or {}), **options},
    }
    if app.configured:
        _put(app, key, entry, named=name is not None)
    else:
        app._pending_periodic_tasks.append((key, entry, name is not None))
    return key


def apply_pending(app: Celery) -> None:
    """Put what was added before the settings were loaded."""
    while app._pending_periodic_tasks:
        _put(app, *app._pending_periodic_tasks.popleft())


def _put(app: Celery, key: str, entry: dict[str, Any], named: bool) -> None:
    schedule = app._conf.beat_schedule
    if not named and key in schedule:
        logger.warning(
            "Periodic task %s is added twice without a name, so the second takes the place of the first: "
            "give each a name, add_periodic_task(..., name=...)",
            key,
        )
    schedule[key] = entry
