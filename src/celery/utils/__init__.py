"""Compatibility. `celery.utils`: small helpers under their old names, loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "LOG_LEVELS", "cached_property", "chunks", "gen_task_name", "gen_unique_id", "get_cls_by_name",
    "get_full_cls_name", "import_from_cwd", "instantiate", "memoize", "nodename", "nodesplit", "noop", "uuid",
    "worker_direct",
]  # fmt: skip

#: name → (module, name there)
_HOMES = {
    "LOG_LEVELS": ("celery.utils.log", "LOG_LEVELS"),
    "cached_property": ("kombu.utils.objects", "cached_property"),
    "chunks": ("celery.utils.functional", "chunks"),
    "gen_task_name": ("celery.utils.imports", "gen_task_name"),
    "gen_unique_id": ("celery.utils.ids", "uuid"),
    "get_cls_by_name": ("celery.utils.imports", "symbol_by_name"),
    "get_full_cls_name": ("celery.utils.imports", "qualname"),
    "import_from_cwd": ("celery.utils.imports", "import_from_cwd"),
    "instantiate": ("celery.utils.imports", "instantiate"),
    "memoize": ("celery.utils.functional", "memoize"),
    "nodename": ("celery.utils.nodenames", "nodename"),
    "nodesplit": ("celery.utils.nodenames", "nodesplit"),
    "noop": ("celery.utils.functional", "noop"),
    "uuid": ("celery.utils.ids", "uuid"),
    "worker_direct": ("celery.utils.nodenames", "worker_direct"),
}


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    found = globals()[name] = getattr(import_module(module), attribute)
    return found
