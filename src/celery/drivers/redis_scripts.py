"""Adapter. Server-side scripts of Redis: read from files, called by their digest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from celery.drivers.redis_pool import script_bodies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from celery.drivers.redis import Command

__all__ = ["Script"]


class Script:
    """A Lua script from files, joined in order: shared functions first. Called by digest, sent whole where unknown."""

    def __init__(self, *files: Path) -> None:
        self.name = files[-1].stem
        self.body = "\n".join(file.read_text("utf-8") for file in files)
        self.digest = hashlib.sha1(self.body.encode(), usedforsecurity=False).hexdigest()
        script_bodies[self.digest] = self.body

    def call(self, keys: Sequence[Any], arguments: Sequence[Any]) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)
