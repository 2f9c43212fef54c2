"""Entrance. Green pools want the standard library patched before anything else is imported ([app.48])."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["maybe_patch_concurrency"]


def maybe_patch_concurrency(
    argv: Sequence[str] | None = None,
    short_opts: Sequence[str] = ("-P",),
    long_opts: Sequence[str] = ("--pool",),
    patch: bool = True,
) -> None:
    """Look for a green pool among the arguments of the command, and patch for it unless `patch` is false."""
    pool = _option(sys.argv if argv is None else argv, short_opts, long_opts)
    if not patch:
        return
    if pool == "eventlet":
        _patch_eventlet()
    elif pool == "gevent":
        _patch_gevent()


def _option(argv: Sequence[str], short: Sequence[str], long: Sequence[str]) -> str | None:
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in long and equals:
            return value
        if word in (*short, *long):
            return argv[index + 1] if index + 1 < len(argv) else None
        if word[:2] in short and len(word) > 2:
            return word[2:]
    return None


def _patch_eventlet() -> None:
    import eventlet
    import eventlet.debug

    eventlet.monkey_patch()
    blocked_seconds = float(os.environ.get("EVENTLET_NOBLOCK", 0))
    if blocked_seconds:
        eventlet.debug.hub_blocking_detection(blocked_seconds, blocked_seconds)


def _patch_gevent() -> None:
    from gevent import monkey

    monkey.patch_all()
