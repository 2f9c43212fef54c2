"""Application. How an app gets into a process that is no fork of this one: by its import path, or else as a pickle."""

from __future__ import annotations

import os
import pickle
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery.lifecycle import Latch

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.runner import TaskRunner

__all__ = ["changes", "reference", "restore_runner"]


def reference(app: Celery) -> Any:
    """What to pickle in the place of an app: (module, attribute) where it can be imported from, else itself.

    An imported app has all the tasks that its module declares; a pickled one only shared tasks and what the settings
    `imports` and `include` name.
    """
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return name, attribute
    return app


def changes(app: Celery) -> dict[str, Any]:
    """Settings made since the configuration was read (options of the command line among them), if they can travel."""
    return {name: value for name, value in app.conf.changes.items() if _travels(value)}


def restore_runner(found: Any, settings: dict[str, Any], hostname: str) -> TaskRunner:
    """In the other process: a runner like the one that was pickled."""
    app = found
    if isinstance(found, tuple):
        app = getattr(import_module(found[0]), found[1])
    app.conf.update(settings)
    app.loader.import_default_modules()
    app.finalize()
    environ = os.environ
    if environ.get("CELERY_LOG_LEVEL"):  # set where logging was set up, and only there
        app.log.setup(
            int(environ["CELERY_LOG_LEVEL"]),
            environ.get("CELERY_LOG_FILE") or None,
            app.conf.worker_redirect_stdouts,
            app.conf.worker_redirect_stdouts_level,
            hostname=hostname,
        )
    # The gate that says whether anybody listens is not shared with this process: it tells, whoever listens.
    runner: TaskRunner = app.assembly.runner(hostname, Latch(True))
    runner.spawned = True
    return runner


def _travels(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever says no
        return False
    return True
