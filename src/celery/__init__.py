"""Domain. The front door: each name is loaded when it is first used, so that `import celery` is cheap."""

from __future__ import annotations

from collections import namedtuple
from importlib import import_module

TYPE_CHECKING = False  # type checkers know what is meant; importing `typing` would take longer than all the rest
if TYPE_CHECKING:
    from typing import Any

    from celery import local
    from celery._state import current_app, current_task
    from celery.app import bugreport, shared_task
    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.canvas import (
        Signature,
        chain,
        chord,
        chunks,
        group,
        maybe_signature,
        signature,
        subtask,
        xmap,
        xstarmap,
    )  # fmt: skip
    from celery.utils.ids import uuid

__all__ = [
    "SERIES", "VERSION", "VERSION_BANNER", "Celery", "Signature", "Task", "__version__", "bugreport", "chain", "chord",
    "chunks", "current_app", "current_task", "group", "local", "maybe_patch_concurrency", "maybe_signature",
    "shared_task", "signature", "subtask", "uuid", "version_info", "version_info_t", "xmap", "xstarmap",
]  # fmt: skip


#: A version in its parts, comparable with tuples.
version_info_t = namedtuple("version_info_t", ("major", "minor", "micro", "releaselevel", "serial"))

#: Code name of this series.
SERIES = "next"
__version__ = "5.8.0+next"
__author__ = "The authors of this project"
__contact__ = ""
__homepage__ = ""
__docformat__ = "restructuredtext"
VERSION = version_info = version_info_t(5, 8, 0, "", "")
VERSION_BANNER = f"{__version__} ({SERIES})"

#: name → module that has it
_HOMES = {
    "Celery": "celery.app.base",
    "Signature": "celery.canvas",
    "Task": "celery.app.task",
    "bugreport": "celery.app",
    "chain": "celery.canvas",
    "chord": "celery.canvas",
    "chunks": "celery.canvas",
    "current_app": "celery._state",
    "current_task": "celery._state",
    "group": "celery.canvas",
    "maybe_patch_concurrency": "celery.patching",
    "maybe_signature": "celery.canvas",
    "shared_task": "celery.app",
    "signature": "celery.canvas",
    "subtask": "celery.canvas",
    "uuid": "celery.utils.ids",
    "xmap": "celery.canvas",
    "xstarmap": "celery.canvas",
}
#: Submodules that are attributes without having been imported ([app.49]).
_MODULES = frozenset({"execute", "local", "log", "messaging", "registry"})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        found = import_module(f"celery.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
