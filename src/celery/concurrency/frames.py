"""Adapter. What crosses the socket between the main process and a child: framed data, never pickles.

A frame is a length, a kind and a body. Jobs and outcomes travel as MessagePack; a job is its key, whether it was
handed out before, the message's envelope, and its soft and hard limit.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec

from celery.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BEGUN", "HELLO", "JOBS", "OUTCOMES", "PING", "PONG", "RECALL", "RETIRING", "RETURNED", "STOP", "WARNED",
    "FrameReader", "array", "decode_jobs", "decode_key", "decode_keys", "decode_outcomes", "encode", "frame",
]  # fmt: skip

#: To the child: run these; give back what has not begun; the same, then end; say that you are there.
JOBS, RECALL, STOP, PING = 1, 2, 3, 10
#: From the child: ready for jobs; these came to an end; these were given back (one answer for each RECALL and STOP);
#: this one has been running for a while; the child runs no more and waits for STOP; this one has been told of its soft
#: limit; it is there.
HELLO, OUTCOMES, RETURNED, BEGUN, RETIRING, WARNED, PONG = 4, 5, 6, 7, 8, 9, 11

_HEAD = struct.Struct("<IB")
_ARRAY = struct.Struct(">BI")

encode = msgspec.msgpack.Encoder().encode
decode_jobs = msgspec.msgpack.Decoder(list[tuple[int, bool, bytes, float | None, float | None]]).decode
decode_outcomes = msgspec.msgpack.Decoder(list[tuple[int, Outcome]]).decode
decode_key = msgspec.msgpack.Decoder(int).decode
decode_keys = msgspec.msgpack.Decoder(list[int]).decode


def frame(kind: int, body: bytes = b"") -> bytes:
    """One frame, ready to send."""
    return _HEAD.pack(len(body), kind) + body


def array(items: bytes, count: int) -> bytes:
    """The MessagePack array of `count` values that are encoded already, one after the other."""
    return _ARRAY.pack(0xDD, count) + items


class FrameReader:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_need", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._need = 0

    def feed(self, data: memoryview) -> Sequence[tuple[int, Any]]:
        """The frames that `data` completes, as (kind, body); a body is a view, valid until the next call."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return ()
            data = memoryview(self._rest)
        frames = []
        at, end = 0, len(data)
        need = _HEAD.size
        while at + _HEAD.size <= end:
            length, kind = _HEAD.unpack_from(data, at)
            body = at + _HEAD.size
            if body + length > end:
                need += length
                break
            at = body + length
            frames.append((kind, data[body:at]))
        # A new object: the old one is kept from changing by the views that were handed out.
        self._rest = bytearray(data[at:])
        self._need = need
        return frames
