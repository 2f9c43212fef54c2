"""Application. Typed tasks: what arrives is what was sent, by the annotations of the task's function.

`@app.task(typed=True)`, or `typed = True` in a class of tasks. Arguments and return values travel as plain data, and
are what they were at the other end; what would not be is refused where it is sent. See decision 0013.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ParamSpecArgs, ParamSpecKwargs, TypeVar, get_origin, get_type_hints

import msgspec

from celery.codecs.annotated import Codec, name_of
from celery.producer import Gathered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from celery.app.task import Task

__all__ = ["Many", "Types", "install"]

#: Values of these annotations travel as the serializer has them.
_UNTYPED = (Any, object)
_VARIABLES = (TypeVar, ParamSpecArgs, ParamSpecKwargs)
_REFUSALS = (TypeError, ValueError, msgspec.ValidationError)


class _NotThere(TypeError):
    """An annotation names something that is not defined, or not yet."""


class Types:
    """What a typed task's arguments and results are. The annotations are looked up when they are first needed."""

    def __init__(self, name: str, function: Callable[..., Any], own: int = 0) -> None:
        """`own`: how many parameters, the first ones, no caller gives: the task itself."""
        self._name = name
        self._function = function
        self._own = own
        self._ready = False
        self._positional: list[tuple[str, Codec | None]] = []
        self._named: dict[str, Codec | None] = {}
        self._more: Codec | None = None
        self._others: Codec | None = None
        self._return: Codec | None = None

    def send(
        self, task: Task[..., Any], args: Any, kwargs: Any, options: Mapping[str, Any], producer: Any
    ) -> tuple[Any, Any]:
        """A call's arguments as plain data. Raises TypeError or ValueError, naming the argument, what was expected and
        what came: also for a value that would arrive as another. Arguments of a retry, and what a run hands to its
        callbacks, may be plain data already."""
        relayed = options.get("retries") or (isinstance(producer, Gathered) and producer.relayed)
        use = Codec.dump if relayed else Codec.check
        return self._each(args or (), kwargs or {}, use)

    def embed(self, args: Sequence[Any], kwargs: Mapping[str, Any], ahead: int) -> tuple[Any, Any]:
        """The arguments of a call that travels in another's message as plain data, which they may be already; `ahead`:
        so many arguments will come before them. Raises as `send` does."""
        return self._each(args, kwargs, Codec.dump, ahead)

    @property
    def one_of_many(self) -> Many:
        """Calls by `map`: each has one argument."""
        return Many(self, starred=False)

    @property
    def each_of_many(self) -> Many:
        """Calls by `starmap` and `chunks`: each has a list of arguments."""
        return Many(self, starred=True)

    def receive(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments as the function wants them. Raises as `send` does."""
        return self._each(args, kwargs, Codec.load)

    def give(self, value: Any) -> Any:
        """What the task returned, as plain data. Raises TypeError or ValueError if it is not what was annotated."""
        self.prepare()
        return value if self._return is None else self._apply(Codec.check, self._return, value, "return value")

    def result(self, plain: Any) -> Any:
        """What the task returned, for whoever reads the result. Raises as `give` does."""
        self.prepare()
        return plain if self._return is None else self._apply(Codec.load, self._return, plain, "return value")

    def prepare(self) -> None:
        """Read the annotations. Raises TypeError for one that names nothing known, or whose values are no data."""
        if self._ready:
            return
        hints = self._hints()
        parameters = list(inspect.signature(self._function).parameters.values())[self._own :]
        positional: list[tuple[str, Codec | None]] = []
        for parameter in parameters:
            codec = self._codec(hints.get(parameter.name, Any), f"argument {parameter.name!r}")
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._more = codec
            elif parameter.kind is parameter.VAR_KEYWORD:
                self._others = codec
            else:
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    positional.append((parameter.name, codec))
                if parameter.kind is not parameter.POSITIONAL_ONLY:
                    self._named[parameter.name] = codec
        self._positional = positional
        self._return = self._codec(hints.get("return", Any), "the return value")
        self._ready = True

    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self._function, include_extras=True)
        except NameError as exc:
            raise _NotThere(
                f"typed task {self._name}: an annotation names what is not there ({exc}): import it at run time, not "
                "under TYPE_CHECKING, and define it in the module, not in a function"
            ) from exc

    def _codec(self, annotation: Any, what: str) -> Codec | None:
        if annotation in _UNTYPED or isinstance(annotation, _VARIABLES):
            return None
        try:
            return Codec(annotation)
        except TypeError as exc:
            raise TypeError(
                f"typed task {self._name}: {what} is annotated {name_of(annotation)}, which cannot travel: {exc}"
            ) from exc

    def _each(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], use: Callable[[Codec, Any], Any], ahead: int = 0
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.prepare()
        known = self._positional[ahead:] if ahead else self._positional
        plain = [
            value if codec is None else self._apply(use, codec, value, f"argument {name!r}")
            for value, (name, codec) in zip(args, known, strict=False)
        ]
        for number, value in enumerate(args[len(known) :], len(known)):
            more = self._more
            plain.append(value if more is None else self._apply(use, more, value, f"argument {number + 1}"))
        named = {}
        for name, value in kwargs.items():
            codec = self._named.get(name, self._others)
            named[name] = value if codec is None else self._apply(use, codec, value, f"argument {name!r}")
        return tuple(plain), named

    def _apply(self, use: Callable[[Codec, Any], Any], codec: Codec, value: Any, what: str) -> Any:
        try:
            return use(codec, value)
        except _REFUSALS as exc:
            wanted = codec.annotation
            if get_origin(wanted) is Annotated:
                wanted = wanted.__origin__
            wanted = get_origin(wanted) or wanted
            fits = isinstance(wanted, type) and isinstance(value, wanted)
            came = f"{value!r:.200} ({name_of(type(value))})"
            message = f"{self._name}: {what}: expected {name_of(codec.annotation)}, got {came}: {exc}"
            raise (ValueError if fits else TypeError)(message) from exc


class Many:
    """A typed task that one message calls many times (`map`, `starmap`, `chunks`); raises as `Types` does."""

    def __init__(self, types: Types, *, starred: bool) -> None:
        """`starred`: each item is the list of a call's arguments, not its only one."""
        self._types = types
        self._starred = starred

    def send(self, items: Iterable[Any]) -> list[Any]:
        """The arguments as plain data, which they may be already: what has travelled in a canvas is."""
        calls = (self._types.embed(item if self._starred else (item,), {}, 0)[0] for item in items)
        return [list(args) if self._starred else args[0] for args in calls]

    def run(self, task: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        """Call it for each, here: plain data in, plain data out."""
        calls = (self._types.receive(item if self._starred else (item,), {})[0] for item in items)
        return [self._types.give(task(*args)) for args in calls]

    def result(self, plain: Sequence[Any]) -> list[Any]:
        """What the calls returned, for whoever reads the result."""
        return [self._types.result(value) for value in plain]


def install(cls: type[Task[..., Any]]) -> None:
    """Make the tasks of a class typed: `run` takes and gives plain data where a worker calls it.

    Called as a function, a task takes and gives what it always did. Raises as `Types.prepare` does, save for names that
    are not there yet: those are looked up again when the task is first sent or run.
    """
    defined = next(vars(base)["run"] for base in cls.__mro__ if "run" in vars(base))
    static = isinstance(defined, staticmethod)
    body = defined.__func__ if static else defined
    body = getattr(body, "__typed__", body)  # a class between has installed it
    own = 0 if static else 1
    types = Types(cls.name, body, own)
    with suppress(_NotThere):
        types.prepare()

    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        request = cls.request_stack.top if cls.request_stack is not None else None
        if request is None or request.called_directly:
            return body(*args, **kwargs)
        given, kwargs = types.receive(args[own:], kwargs)
        return types.give(body(*args[:own], *given, **kwargs))

    run.__typed__ = body  # type: ignore[attr-defined]
    cls.run = staticmethod(run) if static else run  # type: ignore[method-assign]
    cls._types = types
