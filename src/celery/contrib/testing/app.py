"""Entrance. Apps for tests, and a process that is afterwards as it was before (`[test.9]`)."""

from __future__ import annotations

import inspect
import threading
from contextlib import closing, contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery import Celery, _state
from celery.app.log import Logging
from celery.drivers.memory import marks, server_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from celery.drivers.memory import Server

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app"]

#: Settings of every `TestApp`, unless `config` says otherwise.
DEFAULT_TEST_CONFIG: dict[str, Any] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
    "broker_heartbeat": 0,
}


class Trap:
    """Stands in the place of the current app, and refuses to be used: who needs an app is to be given one."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # copying and printing look for these; they are no use of an app
            raise AttributeError(name)
        raise RuntimeError(f"Test depends on current_app: it was asked for {name!r}. Pass the app explicitly.")


class UnitLogging(Logging):
    """Leaves logging as the test has it: says that it is set up already."""

    @property
    def already_setup(self) -> bool:
        """True."""
        return True

    @already_setup.setter
    def already_setup(self, value: bool) -> None:
        """Nothing changes."""


def TestApp(  # noqa: N802 - its public name
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = UnitLogging,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Celery:
    """An app with `DEFAULT_TEST_CONFIG`, changed by `config`; the rest are arguments of `Celery`.

    Logging is left to the test unless `enable_logging`.
    """
    settings = {**DEFAULT_TEST_CONFIG, **(config or {})}
    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker or settings["broker_url"],
        backend=backend or settings["result_backend"],
        **kwargs,
    )
    app.add_defaults(settings)
    return app


TestApp.__test__ = False  # type: ignore[attr-defined]  # pytest takes names that begin with Test for tests


@contextmanager
def set_trap(app: Celery | None) -> Iterator[None]:
    """Within this context, no thread has a current app but the one that is set meanwhile: see `Trap`."""
    trap = cast("Any", Trap())
    default, before = _state.default_app, _state._tls
    _state.set_default_app(trap)
    # The same for all threads: the worker's too must find the trap, or the app that was set in its place.
    _state._tls = cast("Any", SimpleNamespace(current_app=trap))
    try:
        yield
    finally:
        _state._tls = before
        _state.set_default_app(default)


@contextmanager
def setup_default_app(app: Celery, use_trap: bool = False) -> Iterator[None]:
    """Within this context the test may change which apps are current and default; afterwards they are as before.

    Afterwards `app` is closed, tasks that the test defined are forgotten, and so are the messages that it left on
    `memory://`: no other test's worker shall run them. With `use_trap` nothing but an explicit app is accepted.
    """
    trap = set_trap(app) if use_trap else nullcontext()
    with _leftovers_dropped(app), closing(app), _shared_tasks_forgotten(), current_apps_kept(), trap:
        yield


@contextmanager
def current_apps_kept() -> Iterator[None]:
    """Afterwards, the current app of this thread and the default one are those that they were."""
    default, current = _state.default_app, getattr(_state._tls, "current_app", None)
    try:
        yield
    finally:
        _state.set_default_app(default)
        _state._set_current_app(current)


@contextmanager
def _shared_tasks_forgotten() -> Iterator[None]:
    """Forget the tasks of functions that were defined in functions, in other words by tests.

    Those of modules that were imported meanwhile stay shared: nothing will import these modules again.
    """
    before = set(_state._on_app_finalizers)
    try:
        yield
    finally:
        for callback in set(_state._on_app_finalizers) - before:
            if _is_local(callback):
                del _state._on_app_finalizers[callback]


def _is_local(callback: Callable[[Celery], Any]) -> bool:
    fun = inspect.getclosurevars(callback).nonlocals.get("fun", callback)
    return "<locals>" in getattr(fun, "__qualname__", "")


#: Test apps in use.
_apps: list[Celery] = []
_apps_lock = threading.Lock()


@contextmanager
def _leftovers_dropped(app: Celery) -> Iterator[None]:
    """Drop what was published meanwhile and is left; what another test app may still wait for stays."""
    before = marks()
    with _apps_lock:
        _apps.append(app)
    try:
        yield
    finally:
        with _apps_lock:
            _apps.remove(app)
            others = {_memory_server(other) for other in _apps}
        server = _memory_server(app)
        if server is not None and server not in others:
            with server.changed:
                server.drop_since(before.get(server.name, 0))


def _memory_server(app: Celery) -> Server | None:
    """The server behind its broker, if it is one; nothing is configured for the sake of the question."""
    url = str(app.conf.broker_read_url or "") if app.configured else ""
    return server_of(url) if url.partition("://")[0] == "memory" else None
