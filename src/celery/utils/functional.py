"""Domain. Helpers for functions and sequences ([util.6])."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from celery.utils.heads import argument_checker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "arity_greater", "chunks", "dictfilter", "first", "firstmethod", "fun_accepts_kwargs", "fun_takes_argument",
    "head_from_fun", "is_list", "is_numeric_value", "mattrgetter", "maybe",
    "maybe_evaluate", "maybe_list", "mlazy", "noop", "padlist", "regen", "seq_concat_item", "seq_concat_seq", "uniq",
]  # fmt: skip

#: Names that are kombu's own.
_KOMBU = frozenset({"LRUCache", "lazy", "memoize"})

T = TypeVar("T")


def __getattr__(name: str) -> Any:
    if name in _KOMBU:
        return getattr(import_module("kombu.utils.functional"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class mlazy:  # noqa: N801 - its public name
    """A value that is worked out when first asked for, once: call it, or `evaluate()`."""

    evaluated = False
    _value: Any = None

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._fun, self._args, self._kwargs = fun, args, kwargs

    def evaluate(self) -> Any:
        if not self.evaluated:
            self._value = self._fun(*self._args, **self._kwargs)
            self.evaluated = True
        return self._value

    __call__ = evaluate


class _Regenerated(list[Any]):
    """The elements of an iterator, taken from it when first needed. A list, so that it is JSON like any other."""

    def __init__(self, it: Iterable[Any]) -> None:
        super().__init__()
        self._rest: Iterator[Any] | None = iter(it)

    def _fill(self) -> None:
        if self._rest is not None:
            rest, self._rest = self._rest, None
            self.extend(rest)

    def __getitem__(self, index: Any) -> Any:
        self._fill()
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        self._fill()
        return super().__iter__()

    def __len__(self) -> int:
        self._fill()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._fill()
        return super().__eq__(other)

    __hash__ = None

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def __repr__(self) -> str:
        return f"<regen: {list(self)!r}>"


def regen(it: Any) -> Any:
    """A list (or the list or tuple given) of what an iterator yields, which is asked only when the list is used."""
    return it if isinstance(it, (list, tuple)) else _Regenerated(it)


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """A function that gives these attributes of an object as a dict; missing ones are None."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


def noop(*args: Any, **kwargs: Any) -> None:
    """Take anything, do nothing."""


def maybe_evaluate(value: Any) -> Any:
    """What a lazy value evaluates to, or the value itself."""
    evaluate = getattr(type(value), "evaluate", None)
    return value if evaluate is None else evaluate(value)


def is_list(obj: Any, scalars: tuple[type, ...] = (Mapping, str), iters: tuple[type, ...] = (Iterable,)) -> bool:
    """Whether `obj` is iterable, and no mapping and no text."""
    return isinstance(obj, iters) and not isinstance(obj, scalars)


def maybe_list(obj: Any, scalars: tuple[type, ...] = (Mapping, str)) -> Any:
    """`[obj]`, unless it is a list (any iterable but mappings and text) or None."""
    return obj if obj is None or is_list(obj, scalars) else [obj]


def maybe(typ: Callable[[Any], T], val: Any) -> T | None:
    """`typ(val)`, or None for None."""
    return None if val is None else typ(val)


def first(predicate: Callable[[Any], Any] | None, it: Iterable[T]) -> T | None:
    """The first element that the predicate is true of (without one: that is not None), or None."""
    accepts = predicate or (lambda value: value is not None)
    return next((value for value in it if accepts(value)), None)


def firstmethod(method: str, on_call: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A function that calls `method` on each of its objects until one returns something other than None."""

    def call(it: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        for obj in it:
            bound = getattr(maybe_evaluate(obj), method)
            answer = on_call(bound, *args, **kwargs) if on_call else bound(*args, **kwargs)
            if answer is not None:
                return answer
        return None

    return call


def chunks(it: Iterator[T], n: int) -> Iterator[list[T]]:
    """Lists of up to `n` elements each."""
    it = iter(it)
    while chunk := list(islice(it, n)):
        yield chunk


def padlist(container: Iterable[T], size: int, default: Any = None) -> list[Any]:
    """Exactly `size` elements: cut, or filled with `default`."""
    items: list[Any] = list(islice(container, size))
    return items + [default] * (size - len(items))


def uniq(it: Iterable[T]) -> Iterator[T]:
    """Each element once, in order."""
    return iter(dict.fromkeys(it))


def dictfilter(d: Mapping[Any, Any] | None = None, **kw: Any) -> dict[Any, Any]:
    """The items that are not None."""
    return {key: value for key, value in {**(d or {}), **kw}.items() if value is not None}


def seq_concat_item(seq: Any, item: Any) -> Any:
    """The sequence, a list or a tuple, and the item, as the same type."""
    return (*seq, item) if isinstance(seq, tuple) else [*seq, item]


def seq_concat_seq(a: Any, b: Iterable[Any]) -> Any:
    """Both sequences as one, of the first one's type."""
    return type(a)([*a, *b])


def is_numeric_value(value: Any) -> bool:
    """Whether it is a number, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parameters(fun: Callable[..., Any]) -> Any:
    import inspect

    return inspect.getfullargspec(fun)


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """Whether it takes keyword arguments of any name."""
    return _parameters(fun).varkw is not None


def arity_greater(fun: Callable[..., Any], n: int) -> bool:
    """Whether it takes more than `n` positional arguments; a method's object is one."""
    spec = _parameters(fun)
    return spec.varargs is not None or len(spec.args) > n


def fun_takes_argument(name: str, fun: Callable[..., Any], position: int | None = None) -> bool:
    """Whether it takes an argument of that name by position or, given a position (from 1), that many at all."""
    spec = _parameters(fun)
    if spec.varkw or spec.varargs:
        return True
    return len(spec.args) >= position if position else name in spec.args


def head_from_fun(fun: Callable[..., Any], bound: bool = False) -> Callable[..., None]:
    """A function that takes what `fun` takes (but for the first argument, if `bound`) and does nothing.

    Arguments that do not fit raise the TypeError that a call of `fun` would.
    """
    return argument_checker(getattr(fun, "__func__", fun), bound)
