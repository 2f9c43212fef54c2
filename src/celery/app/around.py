"""Application. What the loader and the backend of a task do before and after each of its runs (`[task.51]`)."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.loaders.base import BaseLoader

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["around"]

logger = logging.getLogger("celery.app.trace")


def around(
    loader: BaseLoader, plain: type[Any], task: Any
) -> tuple[Callable[[str, Any], None] | None, Callable[[], None] | None]:
    """The loader's word before a run, and what is to be done after each; None for what would do nothing.

    `plain`: the class of backends whose clean-up does nothing.
    """
    backend = task.backend
    init = loader.on_task_init if type(loader).on_task_init is not BaseLoader.on_task_init else None
    cleanups = []
    if type(backend).process_cleanup is not plain.process_cleanup:
        cleanups.append(backend.process_cleanup)
    if type(loader).on_process_cleanup is not BaseLoader.on_process_cleanup:
        cleanups.append(loader.on_process_cleanup)
    return init, partial(_clean_up, cleanups) if cleanups else None


def _clean_up(cleanups: list[Callable[[], None]]) -> None:
    for cleanup in cleanups:
        try:
            cleanup()
        except Exception:
            logger.exception("Process cleanup failed")
