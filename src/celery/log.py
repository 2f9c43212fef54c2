"""Compatibility. `celery.log`: the current app's logging ([app.49])."""

from typing import Any

from celery import _state

_NAMES = frozenset({"get_default_logger", "redirect_stdouts_to_logger", "setup_logging_subsystem"})


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(_state.get_current_app().log, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
