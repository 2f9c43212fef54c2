"""Domain. Exceptions that pickle refuses, and values that JSON does not know (`[util.3]`)."""

from __future__ import annotations

import datetime
import numbers
import pickle
import sys
from base64 import b64decode as base64decode
from base64 import b64encode as base64encode
from inspect import getmro
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = (
    "UnpickleableExceptionWrapper", "b64decode", "b64encode", "create_exception_cls", "ensure_serializable",
    "find_pickleable_exception", "get_pickleable_etype", "get_pickleable_exception", "get_pickled_exception",
    "itermro", "jsonify", "raise_with_context", "strtobool", "subclass_exception",
)  # fmt: skip

#: No better than no exception at all: what an unpicklable one is never replaced with.
unwanted_base_classes = (Exception, BaseException, object)

STRTOBOOL_DEFAULT_TABLE: dict[str, bool] = {
    "false": False, "no": False, "0": False, "off": False,
    "true": True, "yes": True, "1": True, "on": True,
}  # fmt: skip


def subclass_exception(name: str, parent: type[BaseException], module: str) -> type[BaseException]:
    """A new exception class that seems to come from `module`."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(name: str, module: str, parent: type[BaseException] | None = None) -> type[BaseException]:
    """A new class for an exception that was seen elsewhere and cannot be imported here."""
    return subclass_exception(name, parent or Exception, module)


def itermro(cls: type, stop: Iterable[type]) -> Iterator[type]:
    """The classes that `cls` descends from, itself first, until one of `stop`."""
    stop = tuple(stop)
    for parent in getmro(cls):
        if parent in stop:
            return
        yield parent


def find_pickleable_exception(
    exc: BaseException, loads: Callable[[bytes], Any] = pickle.loads, dumps: Callable[[Any], bytes] = pickle.dumps
) -> BaseException | None:
    """An exception of the nearest base class that can be pickled, with the same arguments; None if there is none."""
    for parent in itermro(type(exc), unwanted_base_classes):
        try:
            candidate: BaseException = parent(*exc.args)
            loads(dumps(candidate))
        except Exception:  # noqa: BLE001, S112 - whatever a user's class raises, the next one may do
            continue
        return candidate
    return None


class UnpickleableExceptionWrapper(Exception):
    """Stands for an exception that cannot be pickled: names of module and class, arguments as far as they pickle."""

    exc_module: str
    exc_cls_name: str
    exc_args: tuple[Any, ...]

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: Iterable[Any], text: str | None = None) -> None:
        safe_args = ensure_serializable(exc_args, lambda value: pickle.loads(pickle.dumps(value)))  # noqa: S301 - ours
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = safe_args
        self.text = text
        super().__init__(exc_module, exc_cls_name, safe_args, text)

    def restore(self) -> BaseException:
        """An exception of a class of that name."""
        return create_exception_cls(self.exc_cls_name, self.exc_module)(*self.exc_args)

    def __str__(self) -> str:
        return self.text or ""

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """Wrap; an exception that is wrapped already comes back as it is."""
        if isinstance(exc, cls):
            return exc
        return cls(type(exc).__module__, type(exc).__name__, getattr(exc, "args", []), _safe_repr(exc))


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """The exception itself if it survives pickling, else its nearest base that does, else a wrapper."""
    try:
        pickle.loads(pickle.dumps(exc))  # noqa: S301 - made here, a moment ago
    except Exception:  # noqa: BLE001, S110 - a user's class may raise anything
        pass
    else:
        return exc
    nearest = find_pickleable_exception(exc)
    return nearest if nearest is not None else UnpickleableExceptionWrapper.from_exception(exc)


def get_pickleable_etype(
    cls: type[BaseException],
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> type[BaseException]:
    """The class itself if it can be pickled (found by its name), else `Exception`."""
    try:
        loads(dumps(cls))
    except Exception:  # noqa: BLE001 - as above
        return Exception
    return cls


def get_pickled_exception(exc: BaseException) -> BaseException:
    """What was wrapped by `get_pickleable_exception`; other exceptions as they are."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def b64encode(s: str | bytes) -> str:
    """Base64 as text."""
    return base64encode(s.encode() if isinstance(s, str) else s).decode("ascii")


def b64decode(s: str | bytes) -> bytes:
    """The bytes that the base64 text stands for."""
    return base64decode(s)


def strtobool(term: Any, table: Mapping[str, bool] | None = None) -> Any:
    """The truth of a word; what is no text passes. Raises `TypeError` for other words."""
    if not isinstance(term, str):
        return term
    table = STRTOBOOL_DEFAULT_TABLE if table is None else table
    try:
        return table[term.lower()]
    except KeyError:
        raise TypeError(f"Cannot coerce {term!r} to type bool: expected one of {', '.join(table)}") from None


def jsonify(
    obj: Any,
    builtin_types: tuple[type, ...] = (numbers.Real, str),
    key: Any = None,
    keyfilter: Callable[[Any], bool] | None = None,
    unknown_type_filter: Callable[[Any], Any] | None = None,
) -> Any:
    """The value made of nothing but what JSON has: dates become ISO 8601 texts, tuples lists.

    `keyfilter` chooses the keys of dicts, `unknown_type_filter` converts all other values. Raises `ValueError` for
    those without it, naming the key that the value was under.
    """

    def inner(value: Any, parent: Any) -> Any:
        return jsonify(value, builtin_types, parent, keyfilter, unknown_type_filter)

    if obj is None or isinstance(obj, builtin_types):
        return obj
    if isinstance(obj, (tuple, list)):
        return [inner(value, key) for value in obj]
    if isinstance(obj, dict):
        return {name: inner(value, name) for name, value in obj.items() if not keyfilter or keyfilter(name)}
    if isinstance(obj, (datetime.date, datetime.time)):
        return _date_text(obj)
    if isinstance(obj, datetime.timedelta):
        return str(obj)
    if unknown_type_filter is None:
        raise ValueError(f"Unsupported type: {type(obj)!r} {obj!r} (parent: {key})")
    return unknown_type_filter(obj)


def _date_text(value: datetime.date | datetime.time) -> str:
    """Milliseconds are enough, and UTC is Z."""
    if isinstance(value, datetime.datetime):
        text = value.isoformat(timespec="milliseconds" if value.microsecond else "auto")
        return text[:-6] + "Z" if text.endswith("+00:00") else text
    return value.isoformat()


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise it, because of the exception that is being handled, if there is one."""
    current = sys.exc_info()[1]
    if current is None or current is exc:
        raise exc
    raise exc from current


def ensure_serializable(items: Iterable[Any], encoder: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The items, each that `encoder` refuses replaced with its `repr`."""
    safe = []
    for item in items:
        try:
            encoder(item)
        except Exception:  # noqa: BLE001 - encoders raise all kinds of errors
            safe.append(_safe_repr(item))
        else:
            safe.append(item)
    return tuple(safe)


def _safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<Unrepresentable {type(value)!r}: {type(error).__name__}>"
