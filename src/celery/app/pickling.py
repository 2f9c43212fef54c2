"""Application. Apps and the classes bound to them, as pickles ([app.39], [app.42])."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ["AppPickler", "reduce_app", "reduce_args", "reduce_keys", "subclass_with_app"]


class AppPickler:
    """Makes an app from the positional arguments of the older protocol; for subclasses of `Celery` to replace."""

    def __call__(self, cls: type[Celery], *args: Any) -> Celery:
        kwargs = self.build_kwargs(*args)
        app = self.construct(cls, **kwargs)
        self.prepare(app, **kwargs)
        return app

    def prepare(self, app: Celery, **kwargs: Any) -> None:
        """Put what was configured into the new app."""
        app.conf.update(kwargs["changes"])

    def build_kwargs(self, *args: Any) -> dict[str, Any]:
        return self.build_standard_kwargs(*args)

    def build_standard_kwargs(
        self,
        main: str | None,
        changes: dict[str, Any],
        loader: Any,
        backend: Any,
        amqp: Any,
        events: Any,
        log: Any,
        control: Any,
        accept_magic_kwargs: bool,
        config_source: Any = None,
        config_source_silent: bool = False,
    ) -> dict[str, Any]:
        given = dict(locals(), set_as_current=False)
        del given["self"], given["accept_magic_kwargs"]
        return given

    def construct(self, cls: type[Celery], **kwargs: Any) -> Celery:
        return cls(**kwargs)


def reduce_app(app: Celery) -> Any:
    """What `pickle` is to keep of an app."""
    if app._using_v1_reduce:
        return _unpickle_app, (type(app), app.Pickler, *app.__reduce_args__())
    return _unpickle_app_v2, (type(app), app.__reduce_keys__())


def reduce_keys(app: Celery) -> dict[str, Any]:
    """Keyword arguments for the class that make the app again; it never becomes the current one."""
    return {
        "main": app.main,
        "changes": dict(app._conf.changes if app.configured else app._preconf),
        "loader": app.loader_cls,
        "backend": app.backend_cls,
        "amqp": app.amqp_cls,
        "events": app.events_cls,
        "log": app.log_cls,
        "control": app.control_cls,
        "fixups": app.fixups,
        "config_source": app._config_source,
        "config_source_silent": app._config_source_silent,
        "task_cls": app.task_cls,
        "namespace": app.namespace,
    }


def reduce_args(app: Celery) -> tuple[Any, ...]:
    """The older, positional protocol."""
    keys = reduce_keys(app)
    names = ("main", "changes", "loader", "backend", "amqp", "events", "log", "control")
    return (*(keys[name] for name in names), False, app._config_source, app._config_source_silent)


def subclass_with_app(
    app: Celery, cls: Any, name: str | None, attribute: str, reverse: str | None, keep_reduce: bool, more: Any
) -> Any:
    """A subclass of `cls` (or of what that dotted name names) with the app as a class attribute."""
    base = symbol_by_name(cls)
    reverse = reverse or base.__name__

    def __reduce__(self: Any) -> Any:  # noqa: N807 - it becomes a method
        return _unpickle_appattr, (reverse, self.__reduce_args__())

    attributes = {attribute: app, "__module__": base.__module__, "__doc__": base.__doc__, **more}
    if not keep_reduce:
        attributes["__reduce__"] = __reduce__
    return type(name or base.__name__, (base,), attributes)


def _unpickle_app(cls: type[Celery], pickler: type[AppPickler], *args: Any) -> Celery:
    return pickler()(cls, *args)


def _unpickle_app_v2(cls: type[Celery], kwargs: dict[str, Any]) -> Celery:
    return cls(**{**kwargs, "set_as_current": False})


def _unpickle_appattr(reverse_name: str, args: tuple[Any, ...]) -> Any:
    """An object of a class that is an attribute of an app: of the current one, here."""
    return attrgetter(reverse_name)(_state.get_current_app())(*args)
