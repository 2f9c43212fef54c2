"""Adapter. Values to plain data and back, as an annotation says: what typed tasks travel in.

Plain data is what JSON has: str, int, float, bool, None, lists and dicts with str keys, so that every serializer and
every language reads it. Writing goes by the value, reading by the annotation; msgspec does most of both. What it does
not know is added here: unions that it refuses, enums of any values, paths, addresses, fractions, complex numbers,
deques, and pydantic's models wherever pydantic is loaded.
"""

from __future__ import annotations

import sys
import types
from collections import Counter, OrderedDict, deque
from enum import Enum
from fractions import Fraction
from functools import reduce
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from operator import or_
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin
from zoneinfo import ZoneInfo

import msgspec

from celery.codecs import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Codec", "name_of"]

#: Written as their text, read by their constructor.
_TEXTS = (
    PurePath, Fraction, ZoneInfo, IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network,
)  # fmt: skip
#: Read as what it was declared to be: class → what its plain data is.
_CONTAINERS: dict[Any, Callable[..., Any]] = {
    deque: lambda *item: list.__class_getitem__(*item or (Any,)),
    OrderedDict: lambda *kinds: dict.__class_getitem__(kinds or (Any, Any)),
    Counter: lambda *item: dict.__class_getitem__((*(item or (Any,)), int)),
}
_BASES: tuple[Any, ...] = (str, int, float, bytes, list, dict)
_SCALARS = frozenset({str, int, float, bool, type(None)})
_UNIONS = (Union, types.UnionType)


class Codec:
    """Reads and writes values of one annotation. Thread-safe."""

    def __init__(self, annotation: Any) -> None:
        """Raises TypeError if values of that annotation cannot be told from plain data."""
        self.annotation = annotation
        #: What needs no look: an exact value of this type is its own plain data.
        self._as_is = annotation if isinstance(annotation, type) and annotation in _SCALARS else None
        self._type = _readable(annotation)
        for cls in _customs(msgspec.inspect.type_info(self._type)):
            if not _is_known(cls):
                raise TypeError(f"no plain data is known for {name_of(cls)}")

    def check(self, value: Any) -> Any:
        """The plain data of a value which, read again, gives that very value.

        Raises TypeError or `msgspec.ValidationError` if there is none: the value is not of the annotation, or would
        come back as another.
        """
        if type(value) is self._as_is:
            return value
        plain = dump(value)
        read = self._load(plain)
        if _equal(read, value) or (type(read) is type(value) and self._incomparable(plain) and _alike(read, plain)):
            return plain
        raise TypeError(f"it would arrive as {read!r:.200}")

    def dump(self, value: Any) -> Any:
        """The plain data of a value, or of what is plain data already. Raises as `check` does."""
        if type(value) is self._as_is:
            return value
        plain = dump(value)
        self._load(plain)
        return plain

    def load(self, plain: Any) -> Any:
        """The value. What a serializer has already made one (kombu's JSON has dates and ids) is taken too.

        Raises `msgspec.ValidationError`, or TypeError for an object that is no data at all.
        """
        return plain if type(plain) is self._as_is else self._load(dump(plain))

    def _incomparable(self, plain: Any) -> bool:
        """Whether equality says nothing: two readings of one thing differ (objects without `__eq__`)."""
        return not _equal(self._load(plain), self._load(plain))

    def _load(self, plain: Any) -> Any:
        return msgspec.convert(plain, self._type, dec_hook=_load_custom, str_keys=True)

    def __repr__(self) -> str:
        return f"Codec({name_of(self.annotation)})"


def name_of(annotation: Any) -> str:
    """As it is written in source, without modules."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__qualname__
    if get_origin(annotation) in _UNIONS:
        return " | ".join(name_of(one) for one in get_args(annotation))
    return repr(annotation).replace("typing.", "")


def dump(value: Any) -> Any:
    """Plain data; raises TypeError for an object that has none."""
    return value if type(value) in _SCALARS else msgspec.to_builtins(value, str_keys=True, enc_hook=_dump_custom)


# -- what msgspec does not know --------------------------------------------------------------------------------------


def _dump_custom(value: Any) -> Any:
    if isinstance(value, _TEXTS):
        return str(value)
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, deque):
        return list(value)
    if _is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    for base in _BASES:  # a subclass: Django's SafeString, say
        if isinstance(value, base):
            return str.__str__(value) if base is str else base(value)
    raise TypeError(f"{name_of(type(value))} has no plain data")


def _load_custom(kind: Any, plain: Any) -> Any:
    if isinstance(kind, _Standin):
        return kind.load(plain)
    if issubclass(kind, _TEXTS):
        return kind(_expect(str, plain, kind))
    if kind is complex:
        return complex(*_expect(list, plain, kind))
    return kind.model_validate_json(msgspec.json.encode(plain))


def _expect(wanted: type, plain: Any, kind: type) -> Any:
    if not isinstance(plain, wanted):
        raise ValueError(f"Expected `{name_of(kind)}` as {wanted.__name__}, got `{type(plain).__name__}`")
    return plain


def _is_known(cls: Any) -> bool:
    return isinstance(cls, _Standin) or (
        isinstance(cls, type) and (issubclass(cls, (*_TEXTS, complex)) or _is_model(cls))
    )


def _is_model(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


class _Standin(type):
    """A class in the place of an annotation that msgspec refuses; whatever its `load` gives passes for an instance."""

    load: Callable[[Any], Any]

    def __instancecheck__(cls, _: object) -> bool:
        return True


def _standin(annotation: Any, load: Callable[[Any], Any]) -> _Standin:
    return _Standin(name_of(annotation), (), {"load": staticmethod(load)})


def _readable(annotation: Any) -> Any:
    """The annotation with stand-ins for what msgspec refuses."""
    origin, args = get_origin(annotation), get_args(annotation)
    kind: Any = origin or annotation
    if isinstance(kind, type) and kind in _CONTAINERS:
        inner = Codec(_CONTAINERS[kind](*args))
        return _standin(annotation, lambda plain: kind(inner.load(plain)))
    if origin is None:
        odd = isinstance(annotation, type) and issubclass(annotation, Enum) and not _is_simple(annotation)
        return _readable_enum(annotation) if odd else annotation
    if origin is Literal:
        return annotation
    if origin is Annotated:
        return Annotated[(_readable(args[0]), *annotation.__metadata__)]
    if origin in _UNIONS:
        return _readable_union(args)
    readable = tuple(arg if arg is Ellipsis else _readable(arg) for arg in args)
    return annotation if readable == args else origin[readable if len(readable) > 1 else readable[0]]


def _readable_union(members: tuple[Any, ...]) -> Any:
    union = reduce(or_, map(_readable, members))
    try:
        msgspec.inspect.type_info(union)
        msgspec.convert(None, union)
    except msgspec.ValidationError:
        pass
    except TypeError:
        codecs = [Codec(one) for one in members if one is not type(None)]
        stand = _standin(reduce(or_, members), lambda plain: _first_of(codecs, plain))
        return stand | None if type(None) in members else stand
    return union


def _first_of(codecs: list[Codec], plain: Any) -> Any:
    """The value of the first member that would have been written just so, else of the first that reads it at all."""
    readings = list(_readings(codecs, plain))
    for value in readings:
        if _alike(value, plain):
            return value
    if readings:
        return readings[0]
    names = " | ".join(name_of(codec.annotation) for codec in codecs)
    raise ValueError(f"Expected `{names}`, got {plain!r:.100}")


def _readings(codecs: list[Codec], plain: Any) -> Iterator[Any]:
    for codec in codecs:
        try:
            yield codec.load(plain)
        except (ValueError, TypeError, msgspec.ValidationError):
            continue


def _is_simple(enum: type[Enum]) -> bool:
    """Whether msgspec reads it: all values text, or all whole numbers."""
    return {type(member.value) for member in enum} in ({str}, {int})


def _readable_enum(enum: type[Enum]) -> _Standin:
    """Raises TypeError for values that are no plain data: they are written as they are."""
    members = {}
    for member in enum:
        if not is_plain(member.value):
            raise TypeError(f"the value of {name_of(enum)}.{member.name} is no plain data: {member.value!r:.100}")
        members[msgspec.json.encode(member.value)] = member

    def load(plain: Any) -> Enum:
        member = members.get(msgspec.json.encode(plain))
        if member is None:
            raise ValueError(f"Expected `{name_of(enum)}`, got {plain!r:.100}")
        return member

    return _standin(enum, load)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - arrays and the like have an equality of their own
        return False


def _alike(value: Any, plain: Any) -> bool:
    """Whether this is the value's plain data, sets in whatever order; NaN is the same as NaN."""
    first, second = _ordered(dump(value)), _ordered(plain)
    return first == second or repr(first) == repr(second)


def _ordered(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _ordered(plain[key]) for key in sorted(plain)}
    return sorted(map(_ordered, plain), key=repr) if isinstance(plain, list | tuple) else plain


def _customs(info: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """The classes in a type, and in what it is made of, that msgspec leaves to us."""
    seen = set() if seen is None else seen
    if isinstance(info, list | tuple):
        for part in info:
            yield from _customs(part, seen)
    elif isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    elif isinstance(info, msgspec.Struct):
        if id(info) in seen:
            return
        seen.add(id(info))
        for name in info.__struct_fields__:
            yield from _customs(getattr(info, name), seen)
