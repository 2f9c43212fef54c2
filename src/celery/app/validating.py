"""Application. Pydantic tasks: models are checked where the task runs, and dumped where it is sent.

Specified by [task.66], [task.67], [call.31]. This is Celery's `@app.task(pydantic=True)`: what travels is the model's
data, and what the caller reads is that too. Typed tasks (`app/typed.py`) go further.
"""

from __future__ import annotations

from functools import wraps
from inspect import Parameter, signature
from itertools import chain, repeat
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = ["Models"]

_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class Models:
    """The pydantic models among a task's parameters, and what it returns. Looked up when they are first needed."""

    def __init__(
        self,
        app: Celery,
        name: str,
        function: Callable[..., Any],
        bound: bool = False,
        strict: bool | None = None,
        context: Mapping[str, Any] | None = None,
        dump_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """`bound`: the first parameter is the task itself. `strict` and `context` go to `model_validate`, `dump_kwargs`
        to `model_dump` (whose mode is otherwise json).

        Raises `ImproperlyConfigured` if pydantic is not installed.
        """
        try:
            from pydantic import BaseModel
        except ModuleNotFoundError as exc:
            raise ImproperlyConfigured(
                f"task {name}: pydantic=True needs the package pydantic: pip install 'celery[pydantic]'"
            ) from exc
        self._base: type[Any] = BaseModel
        self._function = function
        self._validation = {
            "strict": strict,
            "context": {**(context or {}), "celery_app": app, "celery_task_name": name},
        }
        self._dump_kwargs = {"mode": "json", **(dump_kwargs or {})}
        self._bound = bound
        self._known: _Known | None = None

    def wrap(self) -> Callable[..., Any]:
        """The function as the task's body: takes data or models, and gives data."""
        function, own = self._function, int(self._bound)

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            rest, kwargs = self._each(args[own:], kwargs, self._validated)
            value = function(*args[:own], *rest, **kwargs)
            model = self._models.returned
            return value.model_dump(**self._dump_kwargs) if model is not None and isinstance(value, model) else value

        return run

    def send(
        self, task: Task[..., Any], args: Any, kwargs: Any, options: Mapping[str, Any], producer: Any
    ) -> tuple[Any, Any]:
        """A call's arguments, with models as their data ([call.31]): those that are just what is annotated, and would
        be the same again after the journey. pickle carries models as they are."""
        if (options.get("serializer") or task.serializer) == "pickle":
            return args, kwargs
        sent, named = self._each(args or (), kwargs or {}, self._dumped)
        return type(args)(sent) if isinstance(args, list | tuple) else sent, named

    def result(self, value: Any) -> Any:
        """What the reader of a result gets: the data."""
        return value

    def _validated(self, model: type[Any], value: Any) -> Any:
        return model.model_validate(value, **self._validation)

    def _dumped(self, model: type[Any], value: Any) -> Any:
        if type(value) is not model:
            return value
        data = value.model_dump(**self._dump_kwargs)
        try:
            same = self._validated(model, data) == value
        except Exception:  # noqa: BLE001 - a validator may raise anything; the serializer will say what it thinks
            same = False
        return data if same else value

    def _each(self, args: Any, kwargs: Any, use: Callable[[type[Any], Any], Any]) -> tuple[tuple[Any, ...], Any]:
        """Apply `use` to each argument whose parameter is a model; None stays where it may be None."""
        known = self._models

        def one(name: str, value: Any) -> Any:
            model = known.models.get(name)
            return value if model is None or (value is None and name in known.optional) else use(model, value)

        names = chain(known.positional, repeat(""))
        return tuple(map(one, names, args)), {name: one(name, value) for name, value in kwargs.items()}

    @property
    def _models(self) -> _Known:
        if self._known is None:
            self._known = _find(self._function, self._base, int(self._bound))
        return self._known


class _Known(NamedTuple):
    """What a function says of models: its positional parameters, and the model of each that has one."""

    positional: list[str]
    models: dict[str, type[Any]]
    optional: frozenset[str]
    returned: type[Any] | None


def _find(function: Callable[..., Any], base: type[Any], skip: int) -> _Known:
    hints = get_type_hints(function)
    parameters = list(signature(function).parameters.values())[skip:]
    found = {p.name: _model(hints.get(p.name), base) for p in parameters if p.kind not in _VARIADIC}
    return _Known(
        [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)],
        {name: model for name, (model, _) in found.items() if model is not None},
        frozenset(name for name, (_, optional) in found.items() if optional),
        _model(hints.get("return"), base)[0],
    )


def _model(annotation: Any, base: type[Any]) -> tuple[type[Any] | None, bool]:
    """The model that an annotation is, and whether it may be None instead. Unions and generics are none."""
    if get_origin(annotation) in (Union, UnionType):
        members = [one for one in get_args(annotation) if one is not type(None)]
        return (_model(members[0], base)[0] if len(members) == 1 else None), True
    return (annotation if isinstance(annotation, type) and issubclass(annotation, base) else None), False
