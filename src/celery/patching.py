"""Entrance. Green pools want the standard library patched before anything else is imported ([app.48])."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["maybe_patch_concurrency"]


def maybe_patch_concurrency(
    argv: Sequence[str] | None = None,
    short_opts: Sequence[str] | None = None,
    long_opts: Sequence[str] | None = None,
    patches: Mapping[str, Callable[[], object]] | None = None,
) -> None:
    """Look for a pool among the arguments of the command, and call what `patches` has for it (`[app.48]`).

    For a worker without that option, `CELERY_WORKER_POOL` is looked at, which stands for it. `patches` are gevent's and
    eventlet's own unless given. Raises `ImportError` where the library is not installed.
    """
    argv = sys.argv if argv is None else argv
    pool = _option(argv, short_opts or ("-P",), long_opts or ("--pool",))
    if pool is None and "worker" in argv:
        pool = os.environ.get("CELERY_WORKER_POOL")
    if patches is None:
        patches = {"eventlet": _patch_eventlet, "gevent": _patch_gevent}
    if pool is not None and pool in patches:
        patches[pool]()


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
