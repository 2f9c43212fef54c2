"""Application. Loaders: they read configuration and import task modules ([loader.1])."""

from __future__ import annotations

from typing import Any

from celery.utils.imports import import_from_cwd, symbol_by_name

__all__ = ["LOADER_ALIASES", "get_loader_cls"]

LOADER_ALIASES = {
    "app": "celery.loaders.app:AppLoader",
    "default": "celery.loaders.default:Loader",
}


def get_loader_cls(loader: Any) -> Any:
    """The loader class: given itself, by alias or by dotted name (which may lie in the current directory)."""
    return symbol_by_name(loader, LOADER_ALIASES, imp=import_from_cwd)
