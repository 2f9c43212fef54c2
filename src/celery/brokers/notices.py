"""Adapter. Notices as bytes, for brokers that have no messages of their own: kombu's envelope (`[sample.12]`)."""

from __future__ import annotations

import binascii
import uuid
from typing import Any

import msgspec

from celery.ports import Notice

__all__ = ["MalformedNotice", "from_envelope", "to_envelope"]

#: Properties that the envelope adds, and that are taken off again.
_OURS = ("delivery_info", "delivery_tag", "body_encoding")
_write = msgspec.json.Encoder(enc_hook=str).encode
_read = msgspec.json.Decoder().decode


class MalformedNotice(ValueError):
    """Bytes that are no notice. The text says what was expected."""


def to_envelope(notice: Notice) -> bytes:
    """The notice as kombu writes one."""
    properties = {
        "delivery_mode": 1,
        **notice.properties,
        "delivery_info": {"exchange": notice.exchange, "routing_key": notice.routing_key},
        "priority": notice.properties.get("priority") or 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    return _write(
        {
            "body": notice.body,  # in base64, three times as fast as by `binascii`
            "content-encoding": notice.content_encoding,
            "content-type": notice.content_type,
            "headers": dict(notice.headers),
            "properties": properties,
        }
    )


def from_envelope(envelope: bytes, exchange_type: str) -> Notice:
    """The notice in bytes that anybody may have sent. Raises `MalformedNotice`."""
    try:
        return _taken_apart(_read(envelope), exchange_type)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise MalformedNotice(
            f"expected a message as kombu writes it, got {len(envelope)} bytes beginning {envelope[:60]!r}: {exc!r}"
        ) from exc


def _taken_apart(read: dict[str, Any], exchange_type: str) -> Notice:
    properties, headers, body = dict(read["properties"]), dict(read.get("headers") or {}), read["body"]
    info = properties["delivery_info"]
    exchange, routing_key = info["exchange"], info.get("routing_key") or ""
    encoded = properties.get("body_encoding") == "base64"
    content_type, content_encoding = read.get("content-type") or "", read.get("content-encoding") or "utf-8"
    for text in (exchange, routing_key, body, content_type, content_encoding):
        if not isinstance(text, str):
            raise TypeError(f"{text!r:.100} is no text")
    return Notice(
        exchange,
        exchange_type,
        routing_key,
        binascii.a2b_base64(body) if encoded else body.encode(),
        content_type,
        content_encoding,
        headers,
        {name: value for name, value in properties.items() if name not in _OURS},
    )
