"""Compatibility. `celery.uuid`: random identifiers as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.producer import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["uuid"]


def uuid(_uuid: Callable[[], Any] = new_id) -> str:
    """A new random id (a UUID of version 4), or what `_uuid` returns, as text."""
    return str(_uuid())
