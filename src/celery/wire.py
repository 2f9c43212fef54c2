"""Domain. Protocol 1, Celery's old task message: the whole call in the body (`[wire.13]`, `[wire.14]`).

It is written on request (`task_protocol`), and read into what protocol 2 would have said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from celery.message import MalformedMessage, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["body_v1", "from_protocol_1"]

_NO_LIMITS = (None, None)


def body_v1(headers: Mapping[str, Any], args: Any, kwargs: Any, embed: Mapping[str, Any], utc: bool) -> dict[str, Any]:
    """The mapping that a protocol 1 body holds (`[wire.13]`), from what protocol 2 would have said."""
    return {
        "task": headers["task"],
        "id": headers["id"],
        "args": args,
        "kwargs": kwargs,
        "group": headers["group"],
        "group_index": headers["group_index"],
        "retries": headers["retries"],
        "eta": headers["eta"],
        "expires": headers["expires"],
        "utc": utc,
        "callbacks": _linked(embed.get("chain"), embed["callbacks"]),
        "errbacks": embed["errbacks"],
        "timelimit": headers["timelimit"],
        "taskset": headers["group"],
        "chord": embed["chord"],
    }


def _linked(chain: Sequence[Any] | None, callbacks: Any) -> Any:
    """Callbacks with the next step of a chain among them, which has the one after it as its own, and so on.

    Protocol 1 has no other place for a chain ([canvas.32]); it comes from its end.
    """
    following = None
    for step in chain or ():
        if following is not None:
            links = [*(step["options"].get("link") or ()), following]
            step = {**step, "options": {**step["options"], "link": links}}
        following = step
    return callbacks if following is None else [*(callbacks or ()), following]


def from_protocol_1(
    envelope: bytes,
    decode: Callable[[bytes, str, str], Any],
    encode: Callable[[Any, str], bytes],
    decompress: Callable[[bytes, str], bytes],
) -> Message:
    """Read a protocol 1 message, whose whole call is in the body (`[wire.13]`, `[wire.14]`), as protocol 2.

    `decode` turns body, content type and content encoding into a value, `encode` a value into a body of a content
    type: the one that it came with, because no other may hold its arguments. Raises `MalformedMessage` if it is none.
    """
    try:
        whole = msgspec.json.decode(envelope)
        headers, properties = dict(whole.get("headers") or {}), dict(whole.get("properties") or {})
        info = properties.pop("delivery_info", None) or {}
        content_type = whole.get("content-type") or "application/data"
        content_encoding = whole.get("content-encoding") or "binary"
        # A protocol 2 message in all but its names, to read the body with the same rules.
        carrier = Message({**headers, "task": "?", "id": "?"}, whole["body"], properties=properties)
        carrier._body_encoding = properties.pop("body_encoding", None)
        compression = headers.pop("compression", None)
        body = decompress(carrier.body, compression) if compression else carrier.body
        payload = decode(body, content_type, content_encoding)
    except (msgspec.DecodeError, KeyError, AttributeError, TypeError, UnicodeDecodeError) as exc:
        raise MalformedMessage(f"expected a task message, got {len(envelope)} bytes: {exc}") from exc
    if not isinstance(payload, Mapping) or not (_is_name(payload.get("task")) and _is_name(payload.get("id"))):
        raise MalformedMessage(
            "expected a task message: either a 'task' header or a body with 'task' and 'id'; got a body of "
            f"{type(payload).__name__}: {payload!r:.200}"
        )
    properties.pop("delivery_tag", None)
    args, kwargs = payload.get("args") or [], payload.get("kwargs") or {}
    embed = {key: payload.get(key) for key in ("callbacks", "errbacks", "chord")} | {"chain": None}
    message = Message(
        {**headers, **_headers_of_v1(payload)},
        encode([args, kwargs, embed], content_type),
        properties=properties,
        content_type=content_type,
        content_encoding=content_encoding,
        exchange=info.get("exchange") or "",
        routing_key=info.get("routing_key") or "",
        redelivered=bool(info.get("redelivered")),
    )
    try:
        message.to_envelope()  # as which it crosses to a pool's process
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise MalformedMessage(f"expected a task message, got one that cannot be passed on: {exc}") from exc
    return message


def _headers_of_v1(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": payload["task"],
        "id": payload["id"],
        "root_id": payload["id"],
        "parent_id": None,
        "shadow": None,
        "eta": _with_zone(payload.get("eta"), payload),
        "expires": _with_zone(payload.get("expires"), payload),
        "group": payload.get("group") or payload.get("taskset"),
        "group_index": payload.get("group_index"),
        "retries": payload.get("retries") or 0,
        "timelimit": list(payload.get("timelimit") or _NO_LIMITS),
        "argsrepr": repr(tuple(payload.get("args") or ()))[:1024],
        "kwargsrepr": repr(dict(payload.get("kwargs") or {}))[:1024],
        "ignore_result": None,
        "stamped_headers": None,
        "stamps": {},
    }


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _with_zone(date: Any, payload: Mapping[str, Any]) -> Any:
    """`utc` says that dates without a zone are UTC."""
    if isinstance(date, str) and payload.get("utc", True) and len(date) <= 26 and not date.endswith("Z"):
        return date + "+00:00" if "+" not in date[10:] and "-" not in date[10:] else date
    return date
