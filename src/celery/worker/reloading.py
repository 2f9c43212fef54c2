"""Application. Modules are imported or reloaded, and the pool's processes made anew (`[control.31]`, `[worker.33]`)."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import TYPE_CHECKING, Any

from celery.ports import Restartable
from celery.utils.functional import maybe_list

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ["reload_modules"]

logger = logging.getLogger("celery.worker")

#: Seconds that the engine has for it.
_PATIENCE = 0.7


def reload_modules(worker: WorkController, modules: Any, *, reload: bool, reloader: Any) -> None:
    """In this process, then in those of the pool, each of which is replaced when it has finished what it runs.

    `modules`: None for all that the app's loader has imported. Those that are not imported yet are; `reload`: the
    others are reloaded, by `reloader` if given. Raises what importing raises, `NotImplementedError` where the pool runs
    tasks in this very process and has nothing to make anew, and `Late`.
    """
    names = sorted(worker.app.loader.task_modules) if modules is None else list(maybe_list(modules))
    for name in names:
        if name not in sys.modules:
            logger.debug("importing the module %s", name)
            worker.app.loader.import_from_cwd(name)
        elif reload:
            logger.debug("reloading the module %s", name)
            (reloader or importlib.reload)(sys.modules[name])
    pool = worker.pool
    if not isinstance(pool, Restartable):
        raise NotImplementedError(
            f"pool_restart: a pool of the kind {type(pool).__name__} runs tasks in the worker's own process; modules "
            "are reloaded, and there is no process to make anew"
        )
    worker.consumer.commands.ask(pool.restart, _PATIENCE)
    worker.consumer.commands.post(worker.consumer.orders.limits_changed)
