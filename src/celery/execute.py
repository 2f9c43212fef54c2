"""Compatibility. `celery.execute.send_task`: the current app's ([app.49])."""

from typing import Any

from celery import _state


def __getattr__(name: str) -> Any:
    if name == "send_task":
        return _state.get_current_app().send_task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
