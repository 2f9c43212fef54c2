"""Application. Commands that only look (`celery inspect`). They answer while the engine is busy."""

from __future__ import annotations

from typing import Any

__all__ = ["ping"]


def ping(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Ask whether the worker is there."""
    return {"ok": "pong"}
