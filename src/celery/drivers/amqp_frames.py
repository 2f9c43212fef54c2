"""Adapter. AMQP 0-9-1 as bytes: methods, messages and their properties, framed for a socket and read from one."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from amqp.serialization import dumps, loads

from celery.drivers.amqp_tables import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "CHANNEL", "HEARTBEAT", "Came", "Reader", "content", "framed", "long_tag", "method", "packed", "properties_of",
    "short", "table",
]  # fmt: skip

#: The channel that everything happens on.
CHANNEL = 1
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_frame = Struct(">BHI")
_id = Struct(">HH")
_header = Struct(">HHQ")
_long_long = Struct(">Q")
#: Methods that a message follows: return, deliver, get-ok.
_WITH_CONTENT = frozenset({(60, 50), (60, 60), (60, 71)})
#: Basic properties: the bit of each, its name, and how it is written.
_PROPERTIES = tuple(
    (1 << (15 - place), name, kind)
    for place, (name, kind) in enumerate(
        (
            ("content_type", "s"), ("content_encoding", "s"), ("headers", "F"), ("delivery_mode", "o"),
            ("priority", "o"), ("correlation_id", "s"), ("reply_to", "s"), ("expiration", "s"), ("message_id", "s"),
            ("timestamp", "T"), ("type", "s"), ("user_id", "s"), ("app_id", "s"), ("cluster_id", "s"),
        )
    )
)  # fmt: skip


class Came(NamedTuple):
    """A method that came, and the message that came with it."""

    channel: int
    kind: tuple[int, int]
    arguments: bytes
    #: As they came: flags and values.
    properties: bytes
    body: bytes


def short(text: str) -> bytes:
    """A short string. Raises `ValueError` where it is longer than 255 bytes."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > 255:
        raise ValueError(f"expected a name of at most 255 bytes, got {len(data)}: {text[:80]!r}...")
    return bytes((len(data),)) + data


def table(values: Mapping[str, Any]) -> bytes:
    """A field table."""
    return write_table(values)


def long_tag(tag: int) -> bytes:
    """A delivery tag."""
    return _long_long.pack(tag)


def method(class_id: int, method_id: int, arguments: bytes = b"", channel: int = CHANNEL) -> bytes:
    """The frame of a method."""
    return _frame.pack(1, channel, len(arguments) + 4) + _id.pack(class_id, method_id) + arguments + b"\xce"


def content(properties: Mapping[str, Any], body: bytes, frame_max: int) -> bytes:
    """The frames of a message, to follow the method that publishes it."""
    return framed(packed(properties), body, frame_max)


def packed(properties: Mapping[str, Any]) -> bytes:
    """Basic properties as they travel: flags and values. Raises `ValueError` for what AMQP cannot carry."""
    flags, values = 0, []
    get = properties.get
    for bit, name, kind in _PROPERTIES:
        value = get(name)
        if value is not None:
            flags |= bit
            if kind == "s":
                values.append(short(str(value)))
            elif kind == "F":
                values.append(write_table(value))
            elif kind == "o":
                values.append(bytes((value,)))
            else:
                values.append(dumps(kind, [value]))
    return flags.to_bytes(2, "big") + b"".join(values)


def framed(properties: bytes, body: bytes, frame_max: int) -> bytes:
    """The frames of a message whose properties are packed."""
    head = _header.pack(60, 0, len(body)) + properties
    most = (frame_max or len(body) + 8) - 8
    pieces = [_frame.pack(2, CHANNEL, len(head)), head, b"\xce"]
    for start in range(0, len(body), most):
        piece = body[start : start + most]
        pieces += (_frame.pack(3, CHANNEL, len(piece)), piece, b"\xce")
    return b"".join(pieces)


def properties_of(data: bytes) -> dict[str, Any]:
    """Read basic properties. Raises `ValueError` for what is none."""
    try:
        flags, offset = int.from_bytes(data[:2], "big"), 2
        found: dict[str, Any] = {}
        for bit, name, kind in _PROPERTIES:
            if not flags & bit:
                continue
            if kind == "s":
                end = offset + 1 + data[offset]
                found[name] = data[offset + 1 : end].decode("utf-8", "surrogatepass")
                offset = end
            elif kind == "F":
                found[name], offset = read_table(data, offset)
            elif kind == "o":
                found[name] = data[offset]
                offset += 1
            else:
                (found[name],), offset = loads(kind, data, offset)
        if offset > len(data):
            raise ValueError("they are cut short")
    except Exception as exc:  # whatever its reader raises for what a stranger wrote
        raise ValueError(f"expected AMQP properties, got {data[:40]!r}: {exc!r}") from exc
    return found


class Reader:
    """Turns the bytes of a connection into what came; heartbeats are taken out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._open: tuple[int, tuple[int, int], bytes] | None = None
        self._properties = b""
        self._missing = -1
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Came]:
        """What is whole now. Raises `ValueError` for what is no AMQP."""
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        whole: list[Came] = []
        while end - start >= 8:
            kind, channel, size = _frame.unpack_from(buffer, start)
            if end - start < size + 8:
                break
            if buffer[start + size + 7] != 0xCE:
                raise ValueError("expected the end of an AMQP frame")
            payload = bytes(buffer[start + 7 : start + size + 7])
            start += size + 8
            came = self._take(kind, channel, payload)
            if came is not None:
                whole.append(came)
        del buffer[:start]
        return iter(whole)

    def _take(self, kind: int, channel: int, payload: bytes) -> Came | None:
        if kind == 1:
            name: tuple[int, int] = _id.unpack_from(payload)
            if name not in _WITH_CONTENT:
                return Came(channel, name, payload[4:], b"", b"")
            self._open, self._pieces = (channel, name, payload[4:]), []
        elif kind == 2:
            self._missing, self._properties = _long_long.unpack_from(payload, 4)[0], payload[12:]
        elif kind == 3:
            self._pieces.append(payload)
            self._missing -= len(payload)
        if kind in (2, 3) and self._missing == 0 and self._open is not None:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            came, self._open, self._missing = Came(*self._open, self._properties, body), None, -1
            return came
        return None
