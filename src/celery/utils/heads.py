"""Domain. Whether a call's arguments fit its task, asked before anything is published ([app.18])."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["argument_checker"]

_VARIADIC = 0x04 | 0x08  # CO_VARARGS | CO_VARKEYWORDS
_PLAIN = 0x01 | 0x02  # CO_OPTIMIZED | CO_NEWLOCALS


def _nothing() -> None:
    return None


def argument_checker(fun: Callable[..., Any], bound: bool = False) -> Callable[..., None]:
    """A callable that takes what `fun` takes and does nothing: its TypeError is Python's own.

    `bound`: the first parameter is the task itself and is not the caller's affair.
    """
    function = getattr(fun, "__func__", fun)
    if isinstance(function, FunctionType):
        return _empty_twin(function, without_first=bound or function is not fun)
    return _binder(fun)


def _empty_twin(fun: FunctionType, without_first: bool) -> Callable[..., None]:
    """`fun` without its body: the interpreter matches arguments to parameters, so a check costs one call in C."""
    code, nothing = fun.__code__, _nothing.__code__
    skip = 1 if without_first and code.co_argcount else 0
    names = code.co_varnames[skip : code.co_argcount + code.co_kwonlyargcount]
    names += code.co_varnames[code.co_argcount + code.co_kwonlyargcount :][: (code.co_flags & _VARIADIC).bit_count()]
    defaults = fun.__defaults__
    if defaults and len(defaults) > code.co_argcount - skip:
        defaults = defaults[skip:]
    twin = code.replace(
        co_argcount=code.co_argcount - skip,
        co_posonlyargcount=max(code.co_posonlyargcount - skip, 0),
        co_varnames=names,
        co_nlocals=len(names),
        co_freevars=(),
        co_cellvars=(),
        co_flags=_PLAIN | code.co_flags & _VARIADIC,
        co_code=nothing.co_code,
        co_consts=nothing.co_consts,
        co_names=(),
        co_stacksize=nothing.co_stacksize,
        co_linetable=nothing.co_linetable,
        co_exceptiontable=nothing.co_exceptiontable,
        co_qualname=fun.__name__,
    )
    empty = FunctionType(twin, {}, fun.__name__, defaults)
    empty.__kwdefaults__ = fun.__kwdefaults__
    empty.__module__ = fun.__module__
    return empty


def _binder(fun: Callable[..., Any]) -> Callable[..., None]:
    import inspect  # heavy, and wanted only for callables that are no plain functions

    try:
        signature = inspect.signature(fun)
    except (TypeError, ValueError):  # written in C, without a signature: the call itself will tell
        return lambda *args, **kwargs: None

    def check(*args: Any, **kwargs: Any) -> None:
        signature.bind(*args, **kwargs)

    return check
