"""Adapter. The pools, looked up by the names that `-P` and `worker_pool` take."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__all__ = ["ALIASES", "get_available_pool_names", "get_implementation"]

#: Loaded on first use: a solo worker never pays for the others.
ALIASES = {
    "prefork": "celery.concurrency.prefork:PreforkPool",
    "processes": "celery.concurrency.prefork:PreforkPool",
    "solo": "celery.concurrency.solo:SoloPool",
    "threads": "celery.concurrency.thread:ThreadPool",
    "gevent": "celery.concurrency.gevent:GeventPool",
    "eventlet": "celery.concurrency.eventlet:EventletPool",
}


def get_implementation(cls: Any) -> Any:
    """The pool class that a name stands for (`[pool.1]`, `[pool.2]`): an alias, `module:Class` or `module.Class`.

    `custom` is what the environment variable `CELERY_CUSTOM_WORKER_POOL` names. Anything but text is returned as it
    is. Raises `ImportError` (`ModuleNotFoundError` where there is no such module), saying which names there are.
    """
    if not isinstance(cls, str):
        return cls
    path = _aliases().get(cls, cls)
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    if not module:
        raise ModuleNotFoundError(_unknown(cls), name=cls)
    try:
        return getattr(import_module(module), name)
    except AttributeError as exc:
        raise ImportError(_unknown(cls), name=module) from exc


def get_available_pool_names() -> tuple[str, ...]:
    """The names that `get_implementation` knows besides dotted paths (`[pool.2]`)."""
    return tuple(_aliases())


def _aliases() -> dict[str, str]:
    custom = os.environ.get("CELERY_CUSTOM_WORKER_POOL")
    return {**ALIASES, "custom": custom} if custom else ALIASES


def _unknown(name: str) -> str:
    known = ", ".join(_aliases())
    return f"expected the name of a pool ({known}) or the path of a pool class (module:Class), got {name!r}"
