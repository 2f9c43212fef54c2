"""Domain. What an exception says, as bounded text, whatever its class does when it is asked (`[state.4]`).

An exception is a user's object: its `repr`, its attributes and even its class's name may raise, never end or be fifty
megabytes long. Nothing here raises because of one, and nothing here is longer than its limit.
"""

from __future__ import annotations

import sys
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "TEXT_LIMIT",
    "arguments_of",
    "bounded",
    "encodable",
    "exception_info",
    "is_small",
    "names_of",
    "remote_frames",
    "repr_of",
    "substitute_for",
    "traceback_of",
]

#: Characters of a traceback that are kept, and of all arguments of an exception together.
TEXT_LIMIT = 16_384
#: Characters of a name.
_NAME_LIMIT = 256
_CUT = "\n… {} characters left out …\n"
_type_name = type.__dict__["__qualname__"].__get__
_type_module = type.__dict__["__module__"].__get__
_arguments = BaseException.__dict__["args"].__get__


def bounded(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text, its middle left out if it is longer than `limit` bytes: the end of a traceback says most."""
    if len(text) > limit:
        text = _shortened(text, limit)
    if text.isascii() or len(text.encode("utf-8", "surrogatepass")) <= limit:
        return text
    return _shortened(text, limit // 4)


def encodable(text: str) -> str:
    """The text with lone surrogates escaped: UTF-8 has none."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _shortened(text: str, limit: int) -> str:
    half = max((limit - len(_CUT) - 12) // 2, 1)
    return text[:half] + _CUT.format(len(text) - 2 * half) + text[-half:]


def names_of(kind: type) -> tuple[str, str]:
    """Module and qualified name of a class, without asking its metaclass."""
    return _name(_type_module(kind)), _name(_type_name(kind))


def _name(value: Any) -> str:
    if type(value) is not str:
        return "builtins"
    text = value.replace("\0", "\\0")
    return encodable(text if len(text) <= _NAME_LIMIT else text[:_NAME_LIMIT] + "…")


def arguments_of(exc: BaseException) -> tuple[Any, ...]:
    """`exc.args`, whatever hides it."""
    found = _arguments(exc)
    return found if type(found) is tuple else ()


def repr_of(value: Any, limit: int = 1024) -> str:
    """The value's `repr`, cut; what can be said of it where that raises.

    Of an exception whose arguments are long, only as much of them is looked at: `repr` itself knows no bounds.
    """
    try:
        if issubclass(type(value), BaseException):
            arguments = arguments_of(value)
            if not is_small(arguments, limit):
                return f"{names_of(type(value))[1]}({encodable(bounded(saferepr(arguments, limit)[1:-1], limit))})"
        elif not is_small(value, limit):
            return encodable(bounded(saferepr(value, limit), limit))
        text = repr(value)
        return encodable(bounded(text, limit)) if type(text) is str else _unrepresentable(value, "no text")
    except BaseException as failure:  # noqa: BLE001 - a user's __repr__ may raise anything at all
        return _unrepresentable(value, names_of(type(failure))[1])


def _unrepresentable(value: Any, why: str) -> str:
    return f"<unrepresentable {names_of(type(value))[1]}: {why}>"


def is_small(value: Any, limit: int) -> bool:
    """Whether texts, bytes and items in it come to less than `limit`, looked at no further than that."""
    left = limit
    stack: deque[Any] = deque([value])
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind in (str, bytes, bytearray):
            left -= len(item)
        elif kind in (list, tuple, set, frozenset, dict):
            left -= len(item) + 1
            if left < 0:
                return False
            stack.extend(item)
            if kind is dict:
                stack.extend(item.values())
        elif kind is int:
            left -= item.bit_length() // 3 + 1
        else:
            left -= 1
        if left < 0:
            return False
    return True


def traceback_of(exc: BaseException, limit: int = TEXT_LIMIT) -> str:
    """The traceback as Python prints it, with causes, contexts, notes and members of a group."""
    try:
        return bounded("".join(traceback.format_exception(type(exc), exc, exc.__traceback__)), limit)
    except BaseException:  # noqa: BLE001 - an attribute of the user's exception raised
        return _plain_traceback(exc, limit)


def substitute_for(exc: BaseException, limit: int = TEXT_LIMIT) -> str | None:
    """What to show instead of the traceback where printing that raises or has no end in sight; None: print it."""
    try:
        text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    except BaseException:  # noqa: BLE001 - an attribute of the user's exception raised
        return _plain_traceback(exc, limit).rstrip("\n")
    return bounded(text, limit).rstrip("\n") if len(text) > limit else None


def _plain_traceback(exc: BaseException, limit: int) -> str:
    frames = BaseException.__dict__["__traceback__"].__get__(exc)
    module, name = names_of(type(exc))
    lines = ["Traceback (most recent call last):\n", *traceback.format_tb(frames)]
    return bounded("".join([*lines, f"{module}.{name}: {repr_of(exc)}\n"]), limit)


def exception_info(make: Callable[[], Any]) -> Any:
    """What `make` (billiard's `ExceptionInfo`) makes of the exception being handled, its traceback bounded."""
    kind, exc, frames = sys.exc_info()
    assert exc is not None, "no exception is being handled"
    try:
        info = make()
        info.traceback = bounded(info.traceback)
    except BaseException:  # noqa: BLE001 - an attribute of the user's exception raised
        cls: Any = make
        info = cls.__new__(cls)
        info.type, info.exception, info.tb, info.internal = kind, exc, frames, False
        info.traceback = traceback_of(exc)
    return info


def remote_frames(text: str) -> Any:
    """The frames that a traceback's text shows; None without tblib, or where the text is not whole."""
    try:
        from tblib import Traceback, TracebackParseError
    except ImportError:
        return None
    try:
        return Traceback.from_string(text, strict=False).as_traceback()
    except TracebackParseError:
        return None
