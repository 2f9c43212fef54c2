"""Application. The `celery` command, run for one app by `app.start` ([app.31])."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery.app.parts import part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.app.base import Celery

__all__ = ["run", "run_worker"]


def run(app: Celery, argv: Sequence[str] | None) -> Any:
    """Run the command with this app for the current one; returns its exit code (0 or None for success).

    `argv` goes without the program's name; by default it is the process's.
    """
    from click import ClickException

    app.set_current()
    app.set_default()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return part("command").main(args=words, prog_name="celery", standalone_mode=False, auto_envvar_prefix="CELERY")
    except ClickException as exc:
        exc.show()
        return exc.exit_code


def run_worker(app: Celery, argv: Sequence[str] | None) -> Any:
    """The same; raises ValueError unless `worker` is among the words."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "worker" not in words:
        raise ValueError(f"expected the worker sub-command in argv, got {words!r}: use app.start() for others")
    return run(app, words)
