"""Adapter. JSON with the values of kombu's (`[wire.15]`), several times faster for ordinary data.

Writing: what is made of exact str, int, bool, None, finite float, list, tuple and str-keyed dict goes through msgspec;
everything else (tagged types, subclasses, `__json__`, NaN, other keys) through kombu itself. Reading: msgspec, and
kombu for documents that hold a type tag or that msgspec refuses (NaN, lone surrogates, broken input). A property test
holds that both ways give the same values as kombu's.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec

__all__ = ["dumps", "is_plain", "loads"]

_SCALARS = frozenset({str, int, bool, type(None)})
_DEPTH = 32
_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder().decode


def dumps(data: Any) -> bytes:
    """Encode; raises TypeError or ValueError for what JSON cannot hold, as kombu does."""
    if is_plain(data):
        try:
            return _write(data)
        except UnicodeEncodeError:  # a lone surrogate: kombu escapes it
            pass
    from kombu.utils.json import dumps as kombu_dumps

    text: str = kombu_dumps(data)
    return text.encode()


def loads(data: bytes) -> Any:
    """Decode; raises ValueError for what is no JSON."""
    if b"__type__" not in data:
        try:
            return _read(data)
        except msgspec.DecodeError:
            pass
    from kombu.utils.json import loads as kombu_loads

    return kombu_loads(data.decode("utf-8", "surrogatepass"))


def is_plain(data: Any, depth: int = _DEPTH) -> bool:
    """Whether msgspec writes the same value as kombu would. Deeper than `depth` counts as not plain."""
    kind = type(data)
    if kind in _SCALARS:
        return True
    if kind is float:
        return isfinite(data)
    if depth == 0:
        return False
    if kind is list or kind is tuple:
        kinds = set(map(type, data))
        return kinds <= _SCALARS or all(is_plain(item, depth - 1) for item in data)
    if kind is dict:
        if not data:
            return True
        if set(map(type, data)) != {str}:
            return False
        values = data.values()
        return set(map(type, values)) <= _SCALARS or all(is_plain(item, depth - 1) for item in values)
    return False
