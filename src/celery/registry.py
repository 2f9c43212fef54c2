"""Compatibility. `celery.registry.tasks`: the tasks of the current app ([app.49])."""

from typing import Any

from celery import _state


def __getattr__(name: str) -> Any:
    if name == "tasks":
        return _state.get_current_app().tasks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
