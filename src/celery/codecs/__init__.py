"""Adapter. Arguments and results to bytes and back: kombu's serializer registry, with a fast path for JSON.

Specified by `[wire.15]`, `[wire.16]`, `[call.13]`, `[call.14]`. JSON has the values of kombu's, several times faster
for ordinary data. Writing: what is made of exact str, int, bool, None, finite float, list, tuple and str-keyed dict
goes through msgspec; everything else (tagged types, subclasses, `__json__`, NaN, other keys) through kombu itself.
Reading: msgspec, and kombu for documents that hold a type tag or that msgspec refuses (NaN, lone surrogates, broken
input). A property test holds that both ways give kombu's values. kombu is imported only when something other than
plain JSON is at hand, so that a process which just sends simple tasks starts quickly.
"""

from __future__ import annotations

import sys
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from celery.message import Repeated
from celery.wire import from_protocol_1

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from celery.message import Message

__all__ = [
    "JSON",
    "accept_types",
    "compress",
    "decode",
    "decode_from",
    "decompress",
    "dumps",
    "encode",
    "encode_as",
    "encode_call",
    "is_plain",
    "loads",
    "read_protocol_1",
]

JSON = "application/json"
_SCALARS = frozenset({str, int, bool, type(None)})
_STRINGS = frozenset({str})
_DEPTH = 32
_JSON_NAMES = (None, "json")
#: The end of a message's body that says nothing beyond its arguments (`[wire.9]`), as a value and as text.
_NO_EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_NO_MORE = b', {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder().decode
_TYPES = {
    "json": JSON,
    "pickle": "application/x-python-serialize",
    "yaml": "application/x-yaml",
    "msgpack": "application/x-msgpack",
}


def encode(data: Any, serializer: str | None) -> tuple[str, str, bytes]:
    """Serialise with a registered serializer (None: json); returns content type, content encoding and the bytes.

    Raises kombu's `SerializerNotInstalled` for an unknown name and `EncodeError` for data that does not fit.
    """
    if (serializer is None or serializer == "json") and _json_is_ours():
        try:
            return JSON, "utf-8", dumps(data)
        except (TypeError, ValueError, RecursionError) as exc:
            from kombu.exceptions import EncodeError

            raise EncodeError(exc) from exc
    from kombu.serialization import dumps as registered

    content_type, content_encoding, payload = registered(data, serializer=serializer)
    return content_type, content_encoding, payload.encode() if isinstance(payload, str) else payload


def encode_call(call: tuple[Any, Any, dict[str, Any]], serializer: str | None) -> tuple[str, str, bytes]:
    """`encode` for the body of a message, `(args, kwargs, embed)`: most are plain arguments and nothing else."""
    args, kwargs, embed = call
    if not kwargs and embed == _NO_EMBED and serializer in _JSON_NAMES and is_plain(args) and _json_is_ours():
        try:
            return JSON, "utf-8", b"[%b%b" % (_write(args), _NO_MORE)
        except UnicodeEncodeError:  # a lone surrogate: kombu escapes it
            pass
    if type(embed.get("chord")) is Repeated:
        return _encode_repeated(args, kwargs, embed, serializer)
    return encode(call, serializer)


def _encode_repeated(args: Any, kwargs: Any, embed: dict[str, Any], serializer: str | None) -> tuple[str, str, bytes]:
    body = embed["chord"]
    rest = {**embed, "chord": None}
    if serializer in _JSON_NAMES and is_plain((args, kwargs, rest)) and _json_is_ours():
        try:
            if body.text is None:
                plain = dict(body)
                body.text = _write(plain) if is_plain(plain) else b""
            if body.text:
                return JSON, "utf-8", _write((args, kwargs, {**embed, "chord": msgspec.Raw(body.text)}))
        except UnicodeEncodeError:  # a lone surrogate: kombu escapes it
            pass
    return encode((args, kwargs, {**embed, "chord": dict(body)}), serializer)


def decode(body: bytes, content_type: str, content_encoding: str, accept: Collection[str] | None = None) -> Any:
    """Deserialise; `accept` holds the content types allowed (None: any that the registry trusts).

    Raises kombu's `ContentDisallowed` for a type outside `accept` and `DecodeError` for bytes that do not decode.
    """
    if content_type == JSON and (accept is None or JSON in accept) and _json_is_ours():
        try:
            return loads(body)
        except (ValueError, RecursionError, TypeError) as exc:
            from kombu.exceptions import DecodeError

            raise DecodeError(f"expected JSON, got {len(body)} bytes beginning {body[:40]!r}: {exc}") from exc
    from kombu.serialization import loads as registered

    return registered(body, content_type, content_encoding, accept=accept)


def decode_from(body: bytes, serializer: str, accept: Collection[str] | None = None) -> Any:
    """`decode` for what the registered serializer of that name wrote, where nothing else says so.

    Raises as `decode` does, and kombu's `SerializerNotInstalled` for a name that is not registered.
    """
    if serializer == "json" and _json_is_ours():
        return decode(body, JSON, "utf-8", accept)
    from kombu.serialization import registry

    (content_type,) = accept_types([serializer])
    codec = registry._encoders.get(serializer)
    return decode(body, content_type, "binary" if codec is None else codec.content_encoding, accept)


def encode_as(data: Any, content_type: str) -> bytes:
    """Serialise into a content type. Raises kombu's `EncodeError`, and KeyError for a type that is not registered."""
    if content_type == JSON:
        return encode(data, "json")[2]
    from kombu.serialization import registry

    return encode(data, registry.type_to_name[content_type])[2]


def read_protocol_1(envelope: bytes, accept: Collection[str] | None = None) -> Message:
    """A protocol 1 message as protocol 2. Raises `MalformedMessage`, or what `decode` and `decompress` raise."""
    return from_protocol_1(
        envelope, lambda body, kind, encoding: decode(body, kind, encoding, accept), encode_as, decompress
    )


def accept_types(names: Iterable[str]) -> frozenset[str]:
    """Content types for a list of serializer names or MIME types, as in `accept_content`.

    Raises kombu's `SerializerNotInstalled` for a name that is not registered.
    """
    types = set()
    for name in names:
        known = name if "/" in name else _TYPES.get(name)
        if known is None:
            from kombu.exceptions import SerializerNotInstalled
            from kombu.serialization import registry

            known = registry.name_to_type.get(name)
            if known is None:
                raise SerializerNotInstalled(
                    f"accept_content: expected names of registered serializers ({', '.join(registry.name_to_type)}) "
                    f"or content types, got {name!r}: register it with kombu.serialization.register() or correct it"
                )
        types.add(known)
    return frozenset(types)


def compress(body: bytes, method: str) -> tuple[bytes, str]:
    """Compress by name or MIME type; returns the bytes and the MIME type for the `compression` header.

    Raises KeyError for a method that is not installed here.
    """
    from kombu.compression import compress as by_name

    try:
        compressed, mime = by_name(body, method)
    except KeyError as exc:
        from kombu.compression import encoders

        raise KeyError(
            f"compression: expected one of {', '.join(sorted(encoders()))} or an alias; got {method!r}"
        ) from exc
    return compressed, mime


def decompress(body: bytes, method: str) -> bytes:
    """Undo `compress`. Raises kombu's `DecodeError` for a method that is not installed here."""
    from kombu.compression import decompress as by_name

    try:
        plain: bytes = by_name(body, method)
    except KeyError as exc:
        from kombu.compression import encoders
        from kombu.exceptions import DecodeError

        raise DecodeError(
            f"expected a body compressed by one of {', '.join(sorted(encoders()))}; got {method!r}: "
            "install its package here, or let the sender choose another"
        ) from exc
    return plain


def _json_is_ours() -> bool:
    """Whether "json" still means kombu's own: users may have registered another encoder under that name."""
    serialization = sys.modules.get("kombu.serialization")
    if serialization is None:
        return True
    codec = serialization.registry._encoders.get("json")
    return codec is not None and codec.encoder is sys.modules["kombu.utils.json"].dumps


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
        return _SCALARS.issuperset(map(type, data)) or all(is_plain(item, depth - 1) for item in data)
    if kind is dict:
        if not _STRINGS.issuperset(map(type, data)):
            return False
        values = data.values()
        return _SCALARS.issuperset(map(type, values)) or all(is_plain(item, depth - 1) for item in values)
    return False
