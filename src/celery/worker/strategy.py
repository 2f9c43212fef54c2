"""Application. What a message of an older protocol says, in the terms of protocol 2 (`[wire.13]`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.exceptions import InvalidTaskError

__all__ = ["hybrid_to_proto2", "proto1_to_proto2"]

Converted = tuple[tuple[Any, Any, dict[str, Any]], dict[str, Any], bool, bool]

_EMBEDDED = ("callbacks", "errbacks", "chord")
#: Headers of protocol 2 that a body of the older one may hold.
_HEADERS = (
    "lang", "task", "id", "root_id", "parent_id", "group", "meth", "shadow", "eta", "expires", "retries", "timelimit",
    "argsrepr", "kwargsrepr", "origin",
)  # fmt: skip
_WITHOUT: dict[str, Any] = {"retries": 0, "timelimit": (None, None)}


def proto1_to_proto2(message: Any, body: dict[str, Any]) -> Converted:
    """`((args, kwargs, embed), headers, True, utc)` of a decoded protocol 1 body; the headers are that body, completed.

    Raises `InvalidTaskError` if the keyword arguments are no mapping.
    """
    args, kwargs = _arguments(body)
    body["argsrepr"], body["kwargsrepr"] = repr(args), repr(kwargs)
    body["headers"] = message.headers
    if "taskset" in body:
        body["group"] = body["taskset"]
    return (args, kwargs, _embedded(body)), body, True, bool(body.get("utc", True))


def hybrid_to_proto2(message: Any, body: dict[str, Any]) -> Converted:
    """The same for a message whose headers may hold some of what its body does not."""
    args, kwargs = _arguments(body)
    headers = {name: body.get(name, message.headers.get(name, _WITHOUT.get(name))) for name in _HEADERS}
    headers.update({name: value for name, value in message.headers.items() if name not in headers})
    return (args, kwargs, _embedded(body)), headers, True, bool(body.get("utc", True))


def _arguments(body: dict[str, Any]) -> tuple[Any, Any]:
    args, kwargs = body.get("args", ()), body.get("kwargs", {})
    if not isinstance(kwargs, Mapping):
        raise InvalidTaskError("Task keyword arguments must be a mapping")
    return args, kwargs


def _embedded(body: dict[str, Any]) -> dict[str, Any]:
    return {**{name: body.get(name) for name in _EMBEDDED}, "chain": None}
