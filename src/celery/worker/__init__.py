"""Application. The worker: takes messages from queues and has them run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.worker.worker import WorkController as WorkController

__all__ = ("WorkController",)


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the engine's modules must not bring the app with them."""
    if name == "WorkController":
        from celery.worker.worker import WorkController

        return WorkController
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
