"""Application. How an app comes by its settings: sources, layers, and when they are read ([app.22] to [app.29])."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from celery import signals
from celery.app import periodic
from celery.app.utils import PendingConfiguration, Settings, detect_settings
from celery.exceptions import ImproperlyConfigured
from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

    from celery.app.base import Celery

__all__ = ["add_defaults", "autodiscover", "autodiscover_later", "load", "prepare", "timezone", "use_source"]


def prepare(
    app: Celery, arguments: dict[str, Any], changes: dict[str, Any] | None, source: Any, source_silent: bool
) -> None:
    """Note what the constructor was told; nothing is read.

    `arguments` outrank the source; `_preconf_set_by_auto` names them, so that they do not decide between old and new
    names of settings.
    """
    app._preconf = dict(changes or {})
    app._preconf_set_by_auto = {key for key, value in arguments.items() if value is not None}
    app._preconf.update({key: value for key, value in arguments.items() if value is not None})
    app._pending_defaults = deque()
    app._pending_periodic_tasks = deque()
    app._config_source = source
    app._config_source_silent = source_silent
    app.configured = False
    app._backend = None
    app._conf = PendingConfiguration(app._preconf, lambda: load_pending(app))


def load_pending(app: Celery) -> Settings:
    """Load, for the first read of a pending configuration."""
    settings = app._conf = load(app)
    return settings


def load_now(app: Celery) -> None:
    """Load, for `force=True`."""
    app._conf = load(app)


def load(app: Celery) -> Settings:
    """Read the source, put the layers together and apply what waited for that."""
    if callable(app.on_configure) and not hasattr(app.on_configure, "send"):
        app.on_configure()  # a subclass made a method of it
    else:
        app.on_configure.send(sender=app)
    source = _read_source(app)
    app.configured = True
    settings = detect_settings(
        app.prepare_config(source),
        app._preconf,
        ignore_keys=app._preconf_set_by_auto,
        prefix=app.namespace,
        strict=is_strict(),
    )
    app._conf = settings
    while app._pending_defaults:
        settings.add_defaults(_evaluate(app._pending_defaults.popleft()))
    periodic.apply_pending(app)
    app.on_after_configure.send(sender=app, source=settings)
    return settings


def is_strict() -> bool:
    """Whether `--strict-settings` was given: what would be a warning is then an error."""
    return os.environ.get("CELERY_STRICT_SETTINGS", "").lower() in ("1", "true", "yes", "on")


def _read_source(app: Celery) -> Any:
    """What the loader reads. Raises ImportError if a module cannot be imported, whatever is wrong in it ([conf.16])."""
    try:
        if app._config_source:
            app.loader.config_from_object(app._config_source, silent=app._config_source_silent)
        return app.loader.conf
    except AttributeError as exc:  # who reads a setting would take it for a setting that is missing
        raise ModuleNotFoundError(str(exc)) from exc
    except ModuleNotFoundError as exc:
        if exc.name and isinstance(app._config_source, str) and app._config_source.startswith(exc.name):
            exc.add_note(f"The settings are to be read from {app._config_source!r}: see config_from_object.")
        raise


def use_source(app: Celery, source: Any, silent: bool, namespace: str | None) -> None:
    """Have the settings read from `source` at the next read."""
    app._config_source, app._config_source_silent, app.namespace = source, silent, namespace
    app.loader.override_backends = {}
    app._conf = PendingConfiguration(app._preconf, lambda: load_pending(app))
    app.configured = False


def module_from_environment(variable: str, silent: bool) -> str | None:
    """What the environment variable says. Raises `ImproperlyConfigured` if it says nothing, unless `silent`."""
    name = os.environ.get(variable)
    if not name and not silent:
        raise ImproperlyConfigured(
            f"The environment variable {variable!r} is not set, and it should name the module to read the settings "
            f'from. Set it, for example: {variable}="proj.celeryconfig"'
        )
    return name or None


def add_defaults(app: Celery, defaults: Any) -> Any:
    """Add a layer now, or once the settings are loaded. Returns `defaults`, so that it may decorate.

    Their name is a promise that Celery does not keep: they lie above the configuration's source ([conf.5]).
    """
    if app.configured:
        app.conf.add_defaults(_evaluate(defaults))
    else:
        app._pending_defaults.append(defaults)
    return defaults


def _evaluate(defaults: Any) -> Any:
    return defaults() if callable(defaults) else defaults


def autodiscover(app: Celery, packages: Any, related_name: str | None) -> None:
    """Import the task modules of the packages; without packages, of those that fixups know of (Django's apps)."""
    names: Iterable[str]
    if packages is None:
        lists = [fixup.autodiscover_tasks() for fixup in app._fixups if hasattr(fixup, "autodiscover_tasks")]
        names = [name for found in lists for name in found]
    else:
        names = packages() if callable(packages) else packages
    app.loader.autodiscover_tasks(names, related_name)


def autodiscover_later(app: Celery, packages: Any, related_name: str | None) -> None:
    """The same, when this app's worker imports its modules."""

    def on_import_modules(**_: Any) -> None:
        autodiscover(app, packages, related_name)

    signals.import_modules.connect(on_import_modules, sender=app, weak=False)


def backend(app: Celery) -> Any:
    """Make the app's backend face: one for all threads if it can serve them, else one for each ([backend.37])."""
    threads: Any = app.__dict__.setdefault("_thread_backends", threading.local())
    version = app.conf.version, os.getpid()
    if threads.__dict__.get("version") == version:
        return threads.backend
    overrides = app.conf.get("override_backends")
    if overrides:  # set otherwise than in what the loader reads
        app.loader.override_backends = {**app.loader.override_backends, **overrides}
    cls, url = _backend_by_url(app.backend_cls or app.conf.result_backend, app.loader)
    made = cls(app=app, url=url)
    if getattr(cls, "thread_safe", False) or app.conf.get("result_backend_thread_safe"):
        app._backend = made
    else:
        threads.backend, threads.version = made, version
    return made


def _backend_by_url(url: Any, loader: Any) -> tuple[Any, Any]:
    found = symbol_by_name("celery.app.backends:by_url")(url, loader)
    return cast("tuple[Any, Any]", found)


def timezone(conf: Settings, zones: Any) -> tzinfo:
    """The time zone of naive dates: as set, else UTC, or local time if `enable_utc` is off ([conf.9])."""
    if conf.timezone:
        return cast("tzinfo", zones.get_timezone(conf.timezone))
    return cast("tzinfo", zones.utc if conf.enable_utc else zones.local)
