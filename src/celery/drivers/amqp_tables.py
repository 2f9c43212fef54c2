"""Adapter. AMQP's field tables, which carry the headers of every message: read and written in one pass each.

The bytes are those that py-amqp writes and RabbitMQ understands; a task message has some twenty headers, and what they
cost is most of what a message costs.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Mapping
from decimal import Decimal
from struct import Struct
from typing import Any

__all__ = ["read_table", "write_table"]

_size = Struct(">I")
_int = Struct(">i")
_long = Struct(">q")
_double = Struct(">d")
_decimal = Struct(">Bi")
#: How values of a fixed length are written, by their letter.
_FIXED = {
    ord(letter): Struct(">" + form)
    for letter, form in (
        ("b", "b"), ("B", "B"), ("s", "h"), ("U", "h"), ("u", "H"), ("I", "i"), ("i", "I"), ("l", "q"), ("L", "q"),
        ("f", "f"), ("d", "d"),
    )
}  # fmt: skip
_S, _V, _T, _F, _A, _X, _TIME, _DECIMAL = (ord(letter) for letter in "SVtFAxTD")
#: Names that headers have, by their bytes: most are always the same.
_NAMES = {
    name.encode(): name
    for name in (
        "lang task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr "
        "origin ignore_result replaced_task_nesting stamped_headers stamps compression"
    ).split()
}


def read_table(data: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """The table that begins there, and where it ends. Raises `ValueError` for what is none."""
    try:
        end = offset + 4 + _size.unpack_from(data, offset)[0]
        if end > len(data):
            raise ValueError("it is cut short")
        return _read_fields(data, offset + 4, end), end
    except (struct.error, IndexError, OverflowError, ArithmeticError, OSError, RecursionError) as exc:
        raise ValueError(f"expected an AMQP table, got {data[offset : offset + 40]!r}: {exc!r}") from exc


def _read_fields(data: bytes, offset: int, end: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = _NAMES.get
    while offset < end:
        start = offset + 1
        offset = start + data[offset]
        raw = data[start:offset]
        name = known(raw) or raw.decode("utf-8", "surrogatepass")
        kind = data[offset]
        offset += 1
        if kind == _V:
            found[name] = None
        elif kind == _S:
            start = offset + 4
            offset = start + int.from_bytes(data[offset:start], "big")
            raw = data[start:offset]
            try:
                found[name] = raw.decode()
            except UnicodeDecodeError:
                found[name] = _text(raw)
        else:
            found[name], offset = _read_value(data, offset, kind)
    if offset != end:
        raise ValueError(f"expected an AMQP table of {end} bytes, got one that ends at {offset}")
    return found


def _read_value(data: bytes, offset: int, kind: int) -> tuple[Any, int]:
    """A value whose letter has been read."""
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed.unpack_from(data, offset)[0], offset + fixed.size
    if kind == _V:
        return None, offset
    if kind == _T:
        return bool(data[offset]), offset + 1
    if kind == _TIME:
        seconds = _long.unpack_from(data, offset)[0]
        return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(tzinfo=None), offset + 8
    if kind == _DECIMAL:
        places, number = _decimal.unpack_from(data, offset)
        return Decimal(number) / Decimal(10**places), offset + 5
    start = offset + 4
    end = start + _size.unpack_from(data, offset)[0]
    if end > len(data):
        raise ValueError("it is cut short")
    if kind == _S:
        return _text(data[start:end]), end
    if kind == _X:
        return data[start:end], end
    if kind == _F:
        return _read_fields(data, start, end), end
    if kind == _A:
        items = []
        while start < end:
            item, start = _read_value(data, start + 1, data[start])
            items.append(item)
        return items, end
    raise ValueError(f"expected a value of an AMQP table, got one of kind {chr(kind)!r}")


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw


def write_table(values: Mapping[str, Any]) -> bytes:
    """Raises `ValueError` for a value that AMQP cannot carry."""
    pieces: list[bytes] = []
    add = pieces.append
    for name, value in values.items():
        raw = name.encode("utf-8", "surrogatepass")
        if len(raw) > 255:
            raise ValueError(f"expected the name of a header of at most 255 bytes, got {len(raw)}: {name[:80]!r}...")
        add(bytes((len(raw),)))
        add(raw)
        if value is None:
            add(b"V")
        elif type(value) is str:
            raw = value.encode("utf-8", "surrogatepass")
            add(b"S" + _size.pack(len(raw)))
            add(raw)
        else:
            _write_value(add, value)
    written = b"".join(pieces)
    return _size.pack(len(written)) + written


def _write_value(add: Any, value: Any) -> None:
    if value is None:
        add(b"V")
    elif isinstance(value, str | bytes):
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        add(b"S" + _size.pack(len(raw)))
        add(raw)
    elif isinstance(value, bool):
        add(b"t\x01" if value else b"t\0")
    elif isinstance(value, int):
        try:
            add(b"I" + _int.pack(value) if -(2**31) < value < 2**31 else b"L" + _long.pack(value))
        except struct.error as exc:
            raise ValueError(f"expected a number of at most 64 bits in a header, got {value}") from exc
    elif isinstance(value, float):
        add(b"d" + _double.pack(value))
    elif isinstance(value, Mapping):
        add(b"F" + write_table(value))
    elif isinstance(value, list | tuple):
        pieces: list[bytes] = []
        for each in value:
            _write_value(pieces.append, each)
        written = b"".join(pieces)
        add(b"A" + _size.pack(len(written)) + written)
    elif isinstance(value, dt.datetime):
        utc = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        add(b"T" + _long.pack(int(utc.timestamp())))
    elif isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        number = int("".join(map(str, digits)))
        if not isinstance(exponent, int) or exponent > 0:
            number, exponent = int(value), 0
        add(b"D" + _decimal.pack(-exponent, -number if sign else number))
    else:
        raise ValueError(f"expected a value that a header of AMQP can have, got {value!r:.80} ({type(value).__name__})")
