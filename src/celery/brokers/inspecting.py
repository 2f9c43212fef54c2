"""Adapter. What those who look at queues share, whatever the broker: when a message was sent."""

from __future__ import annotations

from msgspec import DecodeError, Struct, field, json

__all__ = ["sent_at"]


class _Properties(Struct):
    delivery_tag: str = ""


class _Envelope(Struct):
    properties: _Properties = field(default_factory=_Properties)


_read = json.Decoder(_Envelope).decode


def sent_at(envelope: bytes) -> float | None:
    """When a message was sent, wall-clock seconds since the epoch; None if whoever sent it did not say.

    Our brokers write it at the end of the delivery tag, behind an @: kombu has no place for it, and reads nothing from
    a tag.
    """
    try:
        return float(_read(envelope).properties.delivery_tag.rpartition("@")[2])
    except (DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
