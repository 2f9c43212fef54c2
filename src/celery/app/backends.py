"""Application. Result backends by name and by URL ([backend.1] to [backend.3])."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from celery.app.adapters import BACKENDS
from celery.exceptions import ImproperlyConfigured
from celery.utils.imports import load_extension_class_names, symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.backends.base import Backend

__all__ = ["BACKEND_ALIASES", "by_name", "by_url"]

#: Name or URL scheme → class. Adapters of ours share one face, that of Redis has a client too; the assembly opens what
#: is behind it.
BACKEND_ALIASES: dict[str, str] = {
    name: "celery.backends.redis:RedisBackend" if name.startswith("redis") else "celery.backends.face:StoreBackend"
    for name in BACKENDS
}
BACKEND_ALIASES["socket"] = BACKEND_ALIASES["redis"]
BACKEND_ALIASES["sentinel"] = "celery.backends.redis:SentinelBackend"
BACKEND_ALIASES["rpc"] = "celery.backends.rpc:RPCBackend"
BACKEND_ALIASES["disabled"] = "celery.backends.base:DisabledBackend"


def by_name(
    backend: Any = None, loader: Any = None, extension_namespace: str = "celery.result_backends"
) -> type[Backend]:
    """The class for a name, a scheme, `module:Class` or a class; None or "" is the disabled backend.

    Names in the entry-point group `extension_namespace` come first, then `loader.override_backends`, then our own.
    Raises `ImproperlyConfigured` for anything unknown.
    """
    backend = backend or "disabled"
    aliases = _aliases(loader, extension_namespace)
    try:
        found = symbol_by_name(backend, aliases)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(_unknown(backend, aliases, str(exc))) from exc
    if isinstance(found, ModuleType):
        raise ImproperlyConfigured(_unknown(backend, aliases, "it is a module, not a class"))
    cls: type[Backend] = found
    return cls


def by_url(backend: Any = None, loader: Any = None) -> tuple[type[Backend], str | None]:
    """The class for a URL, and the URL that it is to be made with (None if `backend` is a mere name).

    Of a scheme that is unknown as a whole, `db+sqlite://…`, the first part is the name and the rest the URL.
    """
    if not isinstance(backend, str) or "://" not in backend:
        return by_name(backend, loader), None
    scheme, _, _ = backend.partition("://")
    if "+" in scheme and scheme not in _aliases(loader):
        name, _, url = backend.partition("+")
        return by_name(name, loader), url
    return by_name(scheme, loader), backend


def _aliases(loader: Any, namespace: str = "celery.result_backends") -> dict[str, str]:
    overrides = getattr(loader, "override_backends", None) or {}
    return {**BACKEND_ALIASES, **overrides, **dict(load_extension_class_names(namespace))}


def _unknown(backend: Any, aliases: Mapping[str, str], why: str) -> str:
    return (
        f"Unknown result backend: {backend!r}.  Did you spell that correctly? ({why}; expected one of "
        f"{', '.join(sorted(aliases))}, or module:Class)"
    )
